"""Which memory cgroups have counted a kill by the OOM killer of late: for where the kernel's log cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.cgroups import place_of
from gomem.tracer.fleet.view import CgroupView, FleetView, TargetView
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.proc.cgroup_paths import pod_uid
from gomem.tracer.report import OomKill

SOON = 10.0  # seconds between a kill that is counted and the end of the process, which may have much to let go of

_Place = tuple[str | None, str | None, str | None, str]


@dataclass(slots=True)
class _Counted:
    """A place's count, the rises of the last seconds, and when they were seen, time.monotonic()."""

    kills: int
    rises: list[tuple[float, int]] = field(default_factory=list)


class Kills:
    """Learns from views."""

    def __init__(self) -> None:
        self._places: dict[_Place, _Counted] = {}

    def see(self, view: FleetView) -> None:
        """Take the counts of a view. The first of a place says nothing: when those were, nobody knows."""
        seen: dict[_Place, _Counted] = {}
        for cgroup in view.cgroups:
            place = _place(cgroup.workload, cgroup.path)
            counted = self._places.get(place) or _Counted(cgroup.oom_kills)
            if cgroup.oom_kills > counted.kills:
                counted.rises.append((view.published, cgroup.oom_kills - counted.kills))
                counted.kills = cgroup.oom_kills
            counted.rises = [rise for rise in counted.rises if rise[0] > view.published - 2 * SOON]
            seen[place] = counted
        self._places = seen

    def near(self, target: TargetView, ended: float) -> OomKill | None:
        """Return the kills that were counted about when a process ended (time.monotonic()); None for none.

        They were counted in its cgroup, or in its pod where its container's cgroup was gone too soon to be asked.
        """
        path = place_of(target.cgroup, target.workload)
        if path and (kills := self._since(_place(target.workload, path), ended - SOON)):
            return OomKill(None, path, None, proven=False, kills=kills)
        for place in self._places:
            above = place[-1]
            if pod_uid(above) and place[2] is None and target.cgroup.startswith(f"{above}/"):
                kills = self._since(place, ended - SOON)
                return OomKill(None, above, None, proven=False, kills=kills) if kills else None
        return None

    def _since(self, place: _Place, begin: float) -> int:
        counted = self._places.get(place)
        return sum(kills for seen, kills in counted.rises if seen >= begin) if counted is not None else 0


def _place(workload: Workload, path: str) -> _Place:
    return workload.namespace, workload.pod, workload.container, path


def memory_by_place(cgroups: Iterable[CgroupView]) -> Callable[[TargetView], CgroupMemory | None]:
    """Return what gives the newest figures of the cgroup that a process is in, None where they are not known."""
    known = {_place(one.workload, one.path): one.memory for one in cgroups}
    return lambda target: known.get(_place(target.workload, place_of(target.cgroup, target.workload)))
