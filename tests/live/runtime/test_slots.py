"""Which slots hold objects, against a program that says where those are that it keeps, and were that it dropped."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.runtime.slots import read_slots
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.snapshot.memory_map import memory_map
from tests.support.holds import holds
from tests.support.toolchains import RELEASES

KEPT, EVERY = 600, 3


@pytest.mark.parametrize("version", [RELEASES[0], RELEASES[-1]])
def test_kept_objects_are_in_used_slots_and_dropped_ones_in_free_slots(version: str) -> None:
    with holds(version) as target:
        before = {one["address"] for one in target.say("nodes", KEPT, 2)["objects"]}
        target.say("drop", KEPT, EVERY)
        target.say("gc")
        kept = {one["address"] for one in target.say("gc")["objects"]}
        with Target.open(target.pid) as process, Inspector.open(process) as inspector:
            look = inspector.look()
            runtime, layout = look.runtime, inspector.program.layout
            assert runtime is not None
            assert layout is not None
            slots = read_slots(inspector.memory(), layout, runtime.spans)
        spans = runtime.spans
        order = np.argsort(spans.start, kind="stable")
        used = {}
        for address in before:
            span = int(order[np.searchsorted(spans.start[order], np.uint64(address), side="right") - 1])
            slot = (address - int(spans.start[span])) // int(spans.object_size[span])
            full = spans.objects[span] == spans.capacity[span]
            if slots.first[span] >= 0 or full:
                used[address] = full or bool(slots.used[slots.first[span] + slot])
        dropped = before - kept
        assert len(kept) > KEPT / 2
        assert len(dropped) == KEPT // EVERY
        assert len(used.keys() & kept) > len(kept) * 0.9
        assert all(used[address] for address in used.keys() & kept)
        # What the program needs to answer may have taken some of them.
        assert sum(not used[address] for address in used.keys() & dropped) > len(dropped) * 0.8
        shown = memory_map(look, slots).spans
        assert int(np.unpackbits(shown.slots).sum()) == int(shown.objects[shown.slots_known != 0].sum()) > 0


def test_spans_that_have_changed_since_are_not_known() -> None:
    with holds("1.27.3") as target:
        target.say("nodes", KEPT, 2)
        target.say("drop", KEPT, EVERY)
        target.say("gc")
        with Target.open(target.pid) as process, Inspector.open(process) as inspector:
            look = inspector.look()
            target.say("nodes", KEPT, 2)
            assert look.runtime is not None
            assert inspector.program.layout is not None
            slots = read_slots(inspector.memory(), inspector.program.layout, look.runtime.spans)
        spans = look.runtime.spans
        filled = (spans.object_size >= 2048) & (spans.object_size < 3000) & (spans.objects < spans.capacity)
        assert np.any(filled)
        assert np.mean(slots.first[filled & (spans.state == 1)] < 0) > 0.9


@pytest.mark.parametrize("known", [True, False])
def test_the_map_has_no_slot_of_an_object_too_many(known: bool) -> None:
    with holds("1.27.3") as target:
        target.say("nodes", 50, 2)
        with Target.open(target.pid) as process, Inspector.open(process) as inspector:
            look = inspector.look()
            assert look.runtime is not None
            assert inspector.program.layout is not None
            slots = read_slots(inspector.memory(), inspector.program.layout, look.runtime.spans) if known else None
        shown = memory_map(look, slots).spans
        assert bool(shown.slots_known.any()) == known
        octets = (shown.capacity[shown.slots_known != 0].astype(int) + 7) // 8
        assert len(shown.slots) == int(octets.sum())
