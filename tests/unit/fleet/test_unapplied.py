"""Events that wait for their model."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.events.record import EVENT, EventBatch, EventKind
from gomem.tracer.fleet.unapplied import MOST_UNAPPLIED, Unapplied


def batch(*kinds: EventKind) -> EventBatch:
    made = np.zeros(len(kinds), EVENT)
    made["kind"] = kinds
    return made


def test_what_is_put_is_taken_once_in_its_order() -> None:
    waiting = Unapplied(may_map_plugins=False)
    waiting.put(batch(EventKind.MMAP, EventKind.MUNMAP), 10)
    waiting.put(batch(EventKind.MADVISE), 20)
    assert waiting.until == 20
    assert waiting.taken()["kind"].tolist() == [EventKind.MMAP, EventKind.MUNMAP, EventKind.MADVISE]
    assert len(waiting.taken()) == 0


@pytest.mark.parametrize("end", [EventKind.EXEC, EventKind.EXIT])
def test_nothing_is_kept_of_what_comes_after_the_program(end: EventKind) -> None:
    waiting = Unapplied(may_map_plugins=False)
    waiting.put(batch(EventKind.MMAP, end, EventKind.MUNMAP, end), 10)
    assert waiting.ended
    assert waiting.taken()["kind"].tolist() == [EventKind.MMAP]


def test_many_are_as_many_as_were_put_since_they_were_taken() -> None:
    waiting = Unapplied(may_map_plugins=False)
    waiting.put(batch(*[EventKind.MMAP] * (MOST_UNAPPLIED - 1)), 1)
    assert not waiting.are_many
    waiting.put(batch(EventKind.MMAP), 2)
    assert waiting.are_many
    waiting.taken()
    assert not waiting.are_many
