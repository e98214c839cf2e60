"""What the live tests of the fleet share: a fleet whose turns the test makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gomem.bpf.shared_source import SharedSource
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.selection import Selection
from gomem.tracer.discovery.workloads import Workloads
from gomem.tracer.fleet.fleet import Fleet, Settings
from gomem.tracer.fleet.view import FleetView, TargetView


@dataclass
class Watched:
    """A fleet, its views so far, and what it complained of."""

    fleet: Fleet
    views: list[FleetView]
    complaints: list[tuple[int, Exception]] = field(default_factory=list)

    def until(self, condition: Callable[[FleetView], bool], what: str, seconds: float = 60.0) -> FleetView:
        """Make turns until a published view meets the condition, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            self.fleet.turn(0.05)
            if self.views and condition(self.views[-1]):
                return self.views[-1]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds} s; {self.views[-1:]}")


@contextmanager
def watching(
    selection: Selection,
    source: SharedSource | None = None,
    interval: float = 0.3,
    settle: float = 0.05,
    patience: float = 5.0,
    workloads: Workloads | None = None,
    minds_limits: bool = False,
) -> Iterator[Watched]:
    """Start a fleet without a thread of its own; its budget is no limit."""
    views: list[FleetView] = []
    complaints: list[tuple[int, Exception]] = []
    discovery = Discovery(selection, settle=settle, scan_every=0.2, patience=patience, workloads=workloads)
    discovery.start()
    settings = Settings(interval, cpu_budget=1.0, patience=patience, minds_limits=minds_limits)
    fleet = Fleet(
        discovery, source, "as the test wants it", settings, views.append,
        complain=lambda pid, error: complaints.append((pid, error)),
    )  # fmt: skip
    try:
        yield Watched(fleet, views, complaints)
    finally:
        fleet.close()
        discovery.stop()


def of(view: FleetView, pid: int) -> TargetView | None:
    """Return what a view has of a process."""
    return next((target for target in view.targets if target.pid == pid), None)
