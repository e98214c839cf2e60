"""The memory cgroups of all followed processes, each once, and the kills in them, which outlive process and cgroup.

A container that is killed comes back as another process, in another cgroup, with another container id. So the figures
belong to a *place*: a container of a pod by its name, else a cgroup by its path. The kernel counts kills before it
sends the signal (`__oom_kill_process` in mm/oom_kill.c), and all of the machine in /proc/vmstat: when that rises, every
cgroup is asked at once, for its runtime is about to remove it. In v2 the pod's cgroup counts those below it as well,
and stays; a kill there that no container owns up to is shown as the pod's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import CgroupView
from gomem.tracer.kernel.cgroup_memory import CgroupMemory, OpenCgroup
from gomem.tracer.proc.cgroup_paths import without_container
from gomem.tracer.proc.small_files import decimal

KEPT = 900.0  # seconds that the count of a place is shown after its cgroup went: longer than a rule looks back
MOST_PLACES = 4096
_GLANCE = 0.1  # seconds between two questions for kills on this machine
_SLOWLY = 1.0  # seconds between two for those in each cgroup, where the kernel has no count of the machine
_VMSTAT = Path("/proc/vmstat")

Key = tuple[int, int]
PlaceKey = tuple[str | None, str | None, str | None, str]


def machine_kills() -> int | None:
    """Return how often the kernel has killed on this machine for want of memory; None before Linux 4.13."""
    try:
        text = _VMSTAT.read_text()
    except OSError:
        return None
    _, _, rest = text.partition("\noom_kill ")
    return decimal(rest.partition("\n")[0])


def place_of(path: str, workload: Workload) -> str:
    """Return the path that stays when a container starts anew: where its name is known, that of its pod."""
    return without_container(path) if workload.pod and workload.container else path


def _key(path: str, workload: Workload) -> PlaceKey:
    return workload.namespace, workload.pod, workload.container, place_of(path, workload)


@dataclass(slots=True, eq=False)
class _Place:
    """What is shown as one."""

    path: str
    workload: Workload
    kills: int
    there_at: float  # time.monotonic() at which its cgroup was last there
    memory: CgroupMemory | None = None  # None: there is no cgroup now
    view: CgroupView | None = None  # of all this, None when something is new


@dataclass(slots=True, eq=False)
class _Pod:
    """The cgroup of a pod. `owned`: kills since its count was `first` that are shown, a container's or its own."""

    cgroup: OpenCgroup
    place: _Place
    first: int
    owned: int = 0
    containers: int = 0


@dataclass(slots=True, eq=False)
class _Watched:
    """One cgroup that is there. `kills`: its own count, as it was last read."""

    cgroup: OpenCgroup
    place: _Place
    kills: int
    pod: _Pod | None
    pids: set[int] = field(default_factory=set)
    left_at: float = 0.0  # time.monotonic() at which the last process that is followed left it


class Cgroups:
    """Watches. Any thread may call; one of its own asks the kernel while there is something to ask for."""

    def __init__(self, interval: float, machine: Callable[[], int | None] = machine_kills) -> None:
        """Read all figures every `interval` seconds, and whenever `machine` counts another kill."""
        self._interval = interval
        self._machine = machine
        self._lock = threading.Lock()
        self._watched: dict[Key, _Watched] = {}
        self._pods: dict[Key, _Pod] = {}
        self._places: dict[PlaceKey, _Place] = {}
        self._of_pid: dict[int, Key] = {}
        self._killed = machine()
        self._asked_at = self._read_at = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def joined(self, pid: int, cgroup: OpenCgroup | None, workload: Workload) -> None:
        """Take the cgroup that a process is in now, or with None what is new of where the process belongs."""
        with self._lock:
            if cgroup is not None:
                key = cgroup.key
                if self._of_pid.get(pid, key) != key:
                    self._leave(pid)
                self._of_pid[pid] = key
                if key in self._watched:
                    cgroup.close()
                elif len(self._places) < MOST_PLACES:
                    self._watched[key] = self._begin(cgroup, workload)
                else:
                    cgroup.close()
            watched = self._watched.get(self._of_pid.get(pid, (0, 0)))
            if watched is None:
                return
            watched.pids.add(pid)
            if watched.place.workload != workload:
                self._rename(watched, workload)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gomem-cgroups", daemon=True)
                self._thread.start()

    def left(self, pid: int) -> None:
        """Take note that a process is not followed any more."""
        with self._lock:
            self._leave(pid)

    def memory_of(self, pid: int) -> CgroupMemory | None:
        """Return the newest figures of the cgroup that a process is in; None where it is not known."""
        with self._lock:
            watched = self._watched.get(self._of_pid.get(pid, (0, 0)))
            return watched.place.memory if watched is not None else None

    def close(self) -> None:
        """Let go of all."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            for watched in list(self._watched.values()):
                self._end(watched)
            for pod in self._pods.values():
                pod.cgroup.close()
            self._pods.clear()

    def views(self) -> tuple[CgroupView, ...]:
        """Return what is known of each place; the same object as long as nothing is new."""
        with self._lock:
            return tuple(self._view_of(place) for _, place in sorted(self._places.items(), key=_order))

    def ask(self, now: float, *, figures: bool) -> None:
        """Ask the kernel for all kills, and for all other figures if `figures`; forget what went long ago."""
        with self._lock:
            # The pods first: what happens meanwhile is then owned before it is missed.
            counts = {key: pod.cgroup.oom_kills() for key, pod in self._pods.items()}
            for watched in list(self._watched.values()):
                self._count(watched)
                if watched.cgroup.removed or (not watched.pids and now - watched.left_at > KEPT):
                    self._end(watched)
                    continue
                watched.place.there_at = now
                if figures:
                    watched.place.memory = watched.cgroup.memory()
                    watched.place.view = None
            for key, count in counts.items():
                if count is not None:
                    self._count_unowned(self._pods[key], count, now)
                elif not self._pods[key].containers:
                    self._pods.pop(key).cgroup.close()
            for place_key, place in list(self._places.items()):
                if now - place.there_at > KEPT:
                    del self._places[place_key]

    def _run(self) -> None:
        while not self._stop.wait(_GLANCE):
            now, killed = time.monotonic(), self._machine()
            due = now - self._read_at >= self._interval
            blind = killed is None and now - self._asked_at >= _SLOWLY
            if due or blind or killed != self._killed:
                self._killed, self._asked_at = killed, now
                if due:
                    self._read_at = now
                self.ask(now, figures=due)

    def _begin(self, cgroup: OpenCgroup, workload: Workload) -> _Watched:
        now, kills = time.monotonic(), cgroup.oom_kills() or 0
        place = self._place(_key(cgroup.path, workload), workload, now)
        pods = len(self._pods)
        pod = self._pod_of(cgroup, workload, now)
        if pod is None or len(self._pods) > pods:  # else its pod has shown them, as nobody's
            place.kills += kills
        place.memory, place.there_at = cgroup.memory(), now
        return _Watched(cgroup, place, kills, pod)

    def _place(self, key: PlaceKey, workload: Workload, now: float) -> _Place:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(key[-1], workload, 0, now)
        place.workload, place.view = workload, None
        return place

    def _pod_of(self, cgroup: OpenCgroup, workload: Workload, now: float) -> _Pod | None:
        try:
            opened = cgroup.pod()
        except OSError:
            return None
        if opened is None:
            return None
        pod = self._pods.get(opened.key)
        if pod is None:
            whole = replace(workload, container=None, container_id=None)
            place = self._place(_key(opened.path, whole), whole, now)
            pod = self._pods[opened.key] = _Pod(opened, place, opened.oom_kills() or 0)
        else:
            opened.close()
        pod.containers += 1
        return pod

    def _rename(self, watched: _Watched, workload: Workload) -> None:
        """Its pod or container got a name: the place is another one, and its count goes on there."""
        old, new_key = watched.place, _key(watched.cgroup.path, workload)
        if self._places.get(new_key) is old:
            old.workload, old.view = workload, None
            return
        place = self._place(new_key, workload, old.there_at)
        place.kills += old.kills
        place.memory, watched.place = old.memory, place
        if all(other.place is not old for other in self._watched.values()):
            self._places = {key: one for key, one in self._places.items() if one is not old}
        if watched.pod is not None:
            self._rename_pod(watched.pod, replace(workload, container=None, container_id=None))

    def _rename_pod(self, pod: _Pod, workload: Workload) -> None:
        old = pod.place
        if old.workload == workload:
            return
        pod.place = self._place(_key(pod.cgroup.path, workload), workload, old.there_at)
        if pod.place is not old:
            pod.place.kills += old.kills
            self._places = {key: one for key, one in self._places.items() if one is not old}

    def _leave(self, pid: int) -> None:
        watched = self._watched.get(self._of_pid.pop(pid, (0, 0)))
        if watched is not None:
            watched.pids.discard(pid)
            watched.left_at = time.monotonic()

    def _count(self, watched: _Watched) -> None:
        kills = watched.cgroup.oom_kills()
        if kills is not None and kills > watched.kills:
            more = kills - watched.kills
            watched.kills = kills
            watched.place.kills += more
            watched.place.view = None
            if watched.pod is not None:
                watched.pod.owned += more

    def _count_unowned(self, pod: _Pod, count: int, now: float) -> None:
        pod.place.there_at = now
        unowned = count - pod.first - pod.owned
        if unowned > 0:
            pod.owned += unowned
            pod.place.kills += unowned
            pod.place.view = None

    def _end(self, watched: _Watched) -> None:
        """Let go of a cgroup; the count of its place stays for a while, and its pod's while that is there."""
        key = watched.cgroup.key
        watched.cgroup.close()
        del self._watched[key]
        if all(other.place is not watched.place for other in self._watched.values()):
            watched.place.memory = watched.place.view = None
        if watched.pod is not None:
            watched.pod.containers -= 1

    def _view_of(self, place: _Place) -> CgroupView:
        if place.view is None:
            place.view = CgroupView(place.path, place.workload, place.memory, place.kills)
        return place.view


def _order(item: tuple[PlaceKey, _Place]) -> tuple[str, ...]:
    return tuple(part or "" for part in item[0])
