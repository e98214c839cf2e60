"""Processes of tests/targets/refills, what they say of themselves, and what gomem makes of their refills meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from gomem.tracer.process.target import Target
from gomem.tracer.report.profile import Profile, error_label
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.refills import RefillRequest, Watcher, watch_refills
from tests.support.commands import Commands
from tests.support.processes import running

_LIMIT = 60.0  # seconds that no watch needs
LONG = 300.0  # seconds: until it is told to end


@dataclass(frozen=True, slots=True)
class Own:
    """What a target says that it has allocated: MemStats' bytes and objects, and objects and bytes by site.

    `mallocs` are without what the tiny allocator put beside others.
    """

    total: int
    mallocs: int
    sites: dict[str, tuple[int, int]]

    def since(self, before: Own) -> Own:
        sites = {name: (a - before.sites[name][0], b - before.sites[name][1]) for name, (a, b) in self.sites.items()}
        return Own(self.total - before.total, self.mallocs - before.mallocs, sites)


class Refills(Commands):
    """Tells tests/targets/refills what to do."""

    def allocate(self) -> None:
        """Let it allocate from all sites."""
        self.do("a")

    def take_turns(self) -> None:
        """Let it allocate two kinds of objects in turns."""
        self.do("t")

    def execute_anew(self) -> Own:
        """Let it execute itself, and return the counts that it begins with."""
        self.say("x")
        return self.own()

    def own(self) -> Own:
        """Return its own counts."""
        self.say("s")
        total, mallocs, tiny = map(int, self.line().split())
        sites = {}
        while line := self.line():
            name, objects, size = line.split()
            sites[name] = int(objects), int(size)
        return Own(total, mallocs - tiny, sites)


@contextmanager
def commanded(binary: Path) -> Iterator[Refills]:
    """Run a build of tests/targets/refills that has come to rest."""
    with running(binary) as process:
        commands = Refills(process)
        commands.own()  # what is made once only is there
        commands.own()
        yield commands


def profile_during(
    pid: int, act: Callable[[], None], *, budget: float = 1.0, seconds: float = LONG, waits: bool = False
) -> Profile:
    """Return the profile of a process of the time of `act`; `waits`: and then until it ends by itself."""
    ready, over = threading.Event(), threading.Event()
    found: list[Profile | BaseException] = []

    def watch() -> None:
        watcher = Watcher(
            lambda text: ready.set(),
            lambda: nullcontext(over.is_set),
            lambda inspector: nullcontext(lambda watched, left: None),
        )
        try:
            with Target.open(pid) as target, Inspector.open(target) as inspector:
                found.append(watch_refills(inspector, RefillRequest(seconds, budget), watcher))
        except BaseException as error:
            found.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert ready.wait(_LIMIT)
        act()
    finally:
        if not waits:
            over.set()
        thread.join(_LIMIT)
    (profile,) = found
    if isinstance(profile, BaseException):
        raise profile
    return profile


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a profile says of a function: objects, bytes, and the standard errors of both."""

    objects: int
    bytes: int
    objects_error: float
    bytes_error: float


def estimate(profile: Profile, function: str, *, large: bool = False) -> Estimate:
    """Return what the stacks that have a function have allocated; of `large` objects alone."""
    values, variances = [0, 0], [0.0, 0.0]
    for sample in profile.samples:
        names = {line.function for at in sample.stack for line in profile.locations[at].lines}
        labels = {label[0]: label[1] for label in sample.labels}
        if function in names and not (large and "bytes" in labels):
            for at, name in enumerate(("alloc_objects", "alloc_space")):
                values[at] += sample.values[at]
                variances[at] += float(labels.get(error_label(name), 0)) ** 2
    return Estimate(values[0], values[1], variances[0] ** 0.5, variances[1] ** 0.5)


def limits(profile: Profile) -> set[str]:
    """Return the ids of what the profile could not see."""
    return {limit.id for limit in profile.limits}
