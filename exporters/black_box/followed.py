"""What is kept of one process while it lives: its last report, the figures of its looks, its last profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gomem.exporters.black_box.contents import GOROUTINES, HEAP
from gomem.exporters.black_box.schedule import ProfileAge
from gomem.exporters.black_box.timeline import Looks
from gomem.tracer.ending.afterlife import Afterlife
from gomem.tracer.fleet.view import TargetView
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import Report

_NOT_YET = "it was not taken yet"


@dataclass(frozen=True, slots=True)
class Kept:
    """A profile: its file, and when it was taken, time.monotonic()."""

    body: bytes
    taken: float

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.body)


@dataclass(slots=True, eq=False)
class Followed:
    """One process. `target` is the newest view that had a report; `seen` when a view had the process, monotonic.

    `near`: the share used of the limit that is nearest, as of the last look that told; 0 where nothing is known.
    """

    life: Afterlife
    target: TargetView
    report: Report
    seen: float
    near: float = 0.0
    looks: Looks = field(default_factory=Looks)
    profiles: Mapping[str, Kept] = field(default_factory=dict)  # by file; empty until they are taken
    age: ProfileAge = field(default_factory=ProfileAge)
    why_none: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys((HEAP, GOROUTINES), _NOT_YET))

    @property
    def goroutines(self) -> int | None:
        """How many goroutines it had when it was looked at last."""
        structure = self.report.structure
        return structure.scheduler.goroutines if structure is not None and structure.scheduler is not None else None

    @property
    def profile_bytes(self) -> int:
        """What its profiles take."""
        return sum(kept.size for kept in self.profiles.values())

    def learn(self, target: TargetView, cgroup: CgroupMemory | None) -> None:
        """Take a view of the same process that has a report; it may run another program by now."""
        report = target.report
        assert report is not None
        if report.process.exe != self.report.process.exe or report.process.build_id != self.report.process.build_id:
            self.forget_profiles("it executed another program since")
            self.age = ProfileAge()
        looked = target.looked is not None and (not len(self.looks) or target.looked != self.target.looked)
        self.target, self.report = target, report
        self.near = self.near if target.near is None else target.near
        if looked and target.looked is not None:
            self.looks.add(round(target.looked * 1e9), report, cgroup, target.near)

    def forget_profiles(self, why: str) -> None:
        """Let go of its profiles."""
        self.profiles, self.why_none = {}, dict.fromkeys((HEAP, GOROUTINES), why)
