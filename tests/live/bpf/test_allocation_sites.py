"""Allocations are counted where the target's own heap profile has them, to the object and the byte."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gomem.bpf.stacks import MOST_STACKS
from gomem.tracer.process.guardian import Guardian
from gomem.tracer.process.target import Target
from gomem.tracer.report import Allocations
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.allocations import AllocationWatch
from tests.support.builds import Mode, build
from tests.support.commands import Commands
from tests.support.processes import running

pytestmark = pytest.mark.bpf

Place = tuple[str, str]
Counts = dict[Place, tuple[int, int]]
ROUNDS = 5
FORGED = 20_000  # objects of each command of tests/targets/forged
# What tests/targets/sites needs to tell of itself, and where the profile leaves out what shares a block.
NOT_COMPARED = {"main.tell", "main.siteOf", "main.tiny"}
PACKAGES = ("main.", "strings.", "strconv.", "reflect.")


class Counted(Commands):
    """Tells a target what to do; `begin` begins to count."""

    def __init__(self, process: subprocess.Popen[bytes], begin: Callable[[], None]) -> None:
        super().__init__(process)
        self.begin = begin

    def profile(self) -> Counts:
        """Return the objects and bytes of each call site by its own heap profile: file:line, and function."""
        self.say("p")
        found = {}
        while line := self.line():
            objects, size, place, name = line.split(" ", 3)
            found[place, name] = int(objects), int(size)
        return found


@contextmanager
def counting(target: str, release: str, mode: Mode = "exe") -> Iterator[tuple[Counted, AllocationWatch]]:
    """Run a target of tests/targets, with what will count all of its allocations."""
    guardian = Guardian()
    with (
        running(build(target, release, stripped=True, mode=mode)) as process,
        Target.open(process.pid) as opened,
        Inspector.open(opened) as inspector,
    ):
        inspector.prove_layout()
        watch = AllocationWatch(inspector.program, process.pid, 1.0, guardian)
        try:
            yield Counted(process, lambda: watch.begin(inspector, from_start=False)), watch
        finally:
            watch.close()
            guardian.close()


def counted(release: str, mode: Mode = "exe") -> tuple[Allocations, Counts]:
    """Run the target for a bounded time; return what was counted, and what it says itself."""
    with counting("sites", release, mode) as (commands, watch):
        commands.do("a")
        commands.profile()
        before = commands.profile()
        commands.begin()
        for _ in range(ROUNDS):
            commands.do("a")
        section, limits = watch.finish(1.0)
        assert section is not None
        assert not limits
        return section, _since(commands.profile(), before)


def _since(now: Counts, before: Counts) -> Counts:
    found = {}
    for place, (objects, size) in now.items():
        objects_before, size_before = before.get(place, (0, 0))
        if objects > objects_before and _is_compared(place[1]):
            found[place] = objects - objects_before, size - size_before
    return found


def _is_compared(name: str) -> bool:
    return name.startswith(PACKAGES) and name not in NOT_COMPARED


def sites_of(section: Allocations) -> Counts:
    """Return what was counted by call site, as the target tells it: with "[...]" for the types of generic functions."""
    found: Counts = {}
    for row in section.sites:
        name = re.sub(r"\[.*\]", "[...]", row.function or "")
        if _is_compared(name):
            place = f"{row.file}:{row.line}", name
            objects, size = found.get(place, (0, 0))
            found[place] = objects + row.objects, size + row.bytes
    return found


@pytest.mark.parametrize("release", ["1.19", "1.25.5", "1.26.6", "1.27.3"])
def test_every_object_is_counted_at_the_call_site_that_the_targets_own_profile_has(release: str) -> None:
    section, truth = counted(release)
    found = sites_of(section)
    assert found == truth
    assert len(truth) > 12
    names = {name for _, name in truth}
    assert {"main.inlined", "main.two", "main.maps", "main.slices", "main.large", "main.deep"} <= names
    (tiny,) = [row for row in section.sites if row.function == "main.tiny"]
    assert tiny.objects == ROUNDS * 50 * 10
    assert section.unsited_objects == section.more_sites == 0
    assert sum(row.objects for row in section.sites) == section.objects


def test_call_sites_are_those_of_a_position_independent_program_too() -> None:
    section, truth = counted("1.25.5", "pie")
    assert sites_of(section) == truth


@pytest.mark.parametrize("frames", ["f", "k", "l"], ids=["unmapped", "of the kernel", "a circle"])
def test_frame_pointers_that_lead_nowhere_end_a_stack_behind_its_call_site(frames: str) -> None:
    with counting("forged", "1.27.3") as (commands, watch):
        commands.begin()
        watch._probes.stacks.end_outside(0, 0)  # as they are before it is known where the runtime's code is
        commands.do(frames)
        depths = {len(stack) for stack, _, (count, *_) in watch._probes.stacks.all() if count > FORGED / 2}
        section, _ = watch.finish(1.0)
    assert section is not None
    (row,) = [row for row in section.sites if row.function == "main.allocate"]
    assert row.objects == FORGED
    assert section.unsited_objects == 0
    assert depths == ({16} if frames == "l" else {2})  # in allocate, and in what called it with such a pointer


def test_stacks_for_which_there_is_no_room_are_counted_without_a_call_site_but_with_their_type() -> None:
    with counting("forged", "1.27.3") as (commands, watch):
        commands.begin()
        watch._probes.stacks.end_outside(0, 0)
        commands.do("m")
        lost = watch._probes.stacks.lost()
        section, _ = watch.finish(1.0)
    assert section is not None
    (row,) = [row for row in section.sites if row.function == "main.allocate"]
    (of_type,) = [row for row in section.types if row.name == "main.node"]
    assert of_type.objects == FORGED
    assert 8000 < row.objects <= MOST_STACKS
    assert FORGED - row.objects <= section.unsited_objects == lost
    others = sum(row.objects for row in section.sites) - row.objects
    assert row.objects + section.unsited_objects + others == section.objects


def test_a_program_that_makes_up_types_fills_the_tables_and_every_object_is_still_counted() -> None:
    with counting("forged", "1.27.3") as (commands, watch):
        commands.begin()
        commands.do("t")
        section, _ = watch.finish(1.0)
    assert section is not None
    (row,) = [row for row in section.sites if row.function == "reflect.New"]
    assert section.coverage == 1.0
    assert section.more_types > 10_000
    assert 0 < FORGED - row.objects <= section.unsited_objects
    assert section.untold_objects == 0
