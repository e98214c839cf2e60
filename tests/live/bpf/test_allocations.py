"""Counted allocations are those that the target's own runtime has counted, and their types have reflect's names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gomem.tracer.process.guardian import Guardian
from gomem.tracer.process.target import Target
from gomem.tracer.report import Allocations
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.allocations import AllocationWatch
from tests.support.builds import Mode, build
from tests.support.commands import Commands
from tests.support.processes import running

pytestmark = pytest.mark.bpf

TINY_CLASS = 2


@dataclass(frozen=True, slots=True)
class Own:
    """What the target's runtime says that it has allocated: objects of the tiny allocator beside others, objects by
    size class with large ones at 0, bytes.
    """

    tiny: int
    objects: list[int]
    total: int

    def since(self, before: Own) -> Own:
        objects = [now - then for now, then in zip(self.objects, before.objects, strict=True)]
        return Own(self.tiny - before.tiny, objects, self.total - before.total)


class Allocs(Commands):
    """Tells tests/targets/allocs what to do."""

    def allocate(self) -> None:
        """Let it allocate, and wait until it has."""
        self.do("a")

    def own(self) -> Own:
        """Return its own statistics."""
        self.say("s")
        tiny, *objects, total = map(int, self.line().split())
        return Own(tiny, [objects[-1], *objects[:-1]], total)

    def types(self) -> dict[str, tuple[int, int]]:
        """Return the objects and bytes that one `allocate` makes of each type, by name."""
        self.say("n")
        found = {}
        while line := self.line():
            objects, size, name = line.split(" ", 2)
            found[name] = int(objects), int(size)
        return found


@contextmanager
def counting(release: str, mode: Mode = "exe") -> Iterator[tuple[Allocs, AllocationWatch]]:
    """Run the target, with what counts all of its allocations from the block's beginning on."""
    guardian = Guardian()
    with running(build("allocs", release, stripped=True, mode=mode)) as process:
        commands = Allocs(process)
        commands.allocate()  # what is made once only is there
        commands.own()
        commands.own()
        with Target.open(process.pid) as target, Inspector.open(target) as inspector:
            inspector.prove_layout()
            watch = AllocationWatch(inspector.program, process.pid, 1.0, guardian)
            try:
                watch.begin(inspector, from_start=False)
                yield commands, watch
            finally:
                watch.close()
                guardian.close()


@pytest.fixture(scope="module", params=["1.19", "1.25.5", "1.26.6", "1.27.3"])
def seen(request: pytest.FixtureRequest) -> tuple[Allocations, Own, dict[str, tuple[int, int]]]:
    """One bounded run: what was counted, what the target says itself, and its types."""
    with counting(request.param) as (commands, watch):
        before = commands.own()
        for _ in range(5):
            commands.allocate()
        after = commands.own()
        section, limits = watch.finish(1.0)
        assert section is not None
        assert not limits
        return section, after.since(before), commands.types()


def test_every_object_of_each_size_class_is_counted(seen: tuple[Allocations, Own, object]) -> None:
    section, own, _ = seen
    counted = {row.size_class: row.scan + row.noscan + row.tiny for row in section.classes}
    wanted = {number: count for number, count in enumerate(own.objects) if count}
    # A tiny object either shares a block, which the runtime counts apart, or is a new block of that class.
    wanted[TINY_CLASS] += own.tiny
    assert counted == wanted
    assert len(counted) > 20
    assert section.objects == sum(own.objects) + own.tiny


def test_the_runtimes_own_counts_are_beside_them(seen: tuple[Allocations, Own, object]) -> None:
    section, own, _ = seen
    assert section.complete
    assert section.coverage == 1.0
    assert section.runtime_objects == section.objects
    assert section.runtime_bytes == own.total
    for row in section.classes:
        assert row.runtime_objects == row.scan + row.noscan + row.tiny


def test_types_have_the_names_that_reflect_gives_them(
    seen: tuple[Allocations, Own, dict[str, tuple[int, int]]],
) -> None:
    section, _, types = seen
    found = {row.name: row for row in section.types}
    assert len(types) == 6
    for name, (objects, size) in types.items():
        assert found[name].objects == 5 * objects
        assert found[name].bytes >= 5 * size
    assert found["main.node"].pointers
    assert not found["main.leaf"].pointers
    assert found["main.dot"].bytes == 5 * types["main.dot"][1]
    assert {"uint8", "*uint8"} <= found.keys()
    assert sum(row.objects for row in section.types) + section.more_objects == section.objects


def test_nothing_is_counted_twice_or_named_wrongly_where_the_program_is_position_independent() -> None:
    with counting("1.25.5", "pie") as (commands, watch):
        before = commands.own()
        commands.allocate()
        own = commands.own().since(before)
        section, _ = watch.finish(1.0)
        assert section is not None
        assert section.objects == sum(own.objects) + own.tiny
        assert {"main.node", "main.wide", "main.box[string]"} <= {row.name for row in section.types}
