"""What `gomem top` shows in tests: views with histories, of the sample reports."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from msgspec import structs

from gomem.tracer.fleet.close_up import CloseUp, Part
from gomem.tracer.fleet.view import FleetView, TargetState, TargetView
from gomem.tracer.snapshot.glance import Glance
from tests.support.samples.maps import seen
from tests.support.samples.reports import busy_and_inexact, churning, grown_and_scavenged, launched
from tests.support.samples.views import several, target, view

START = 1000.0  # of the views, time.monotonic()
MIB = 1 << 20


def glanced(one: TargetView, at: float, rss: int, cycles: int | None = None) -> TargetView:
    """The same target, with a glance of a moment."""
    return replace(one, glance=Glance(rss, cycles=cycles), glanced=at)


def course(views: int = 20) -> list[FleetView]:
    """Several processes from second to second: one grows by 2 MiB a second, one collects twice a second."""
    first = several()
    found = []
    for second in range(views):
        targets = []
        for number, one in enumerate(first.targets):
            if one.report is None or one.report.resident is None:
                targets.append(one)
                continue
            total = one.report.resident.total + (second * 2 * MIB if number == 0 else 0)
            targets.append(glanced(one, START + second, total, 2 * second if number == 1 else 7))
        found.append(replace(first, targets=tuple(targets), published=START + second))
    return found


def opened() -> FleetView:
    """One process of which all is known, and a busy one."""
    report, picture = seen()
    report = structs.replace(report, gc_cycles=churning().gc_cycles, event_log=launched().event_log)
    close_up = CloseUp(map=Part(picture.moments[-1].map, "", START))
    return view(
        target(77, report, close_up=close_up),
        target(78, grown_and_scavenged()),
        target(79, busy_and_inexact(), TargetState.FOLLOWED),
    )


@dataclass
class Engine:
    """Gives these views one after the other, the last one for ever, and notes what is asked of it."""

    views: list[FleetView]
    asked: list[tuple[str, int | None]] = field(default_factory=list)
    said: str = ""
    hidden: str = ""
    over: bool = False

    def view(self) -> FleetView | None:
        return self.views.pop(0) if len(self.views) > 1 else self.views[0] if self.views else None

    def news(self) -> str:
        return self.said

    def unreadable(self) -> str:
        return self.hidden

    def open(self, pid: int | None) -> None:
        self.asked.append(("open", pid))

    def record(self, target: TargetView) -> None:
        self.asked.append(("record", target.pid))

    def write(self, target: TargetView) -> None:
        self.asked.append(("write", target.pid))
