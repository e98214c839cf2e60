"""Recognising a Go runtime's requests by their sizes, order and places, and saying by which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.events.strace.log import StraceLog
from gomem.tracer.model.go_hints import GoHints, hint_at
from tests.support.recordings import Row, events

FIXTURES = Path(__file__).parent.parent / "events" / "fixtures"
MB = 1 << 20
ANONYMOUS, FIXED, NO_FILE = 0x22, 0x10, (1 << 64) - 1
NONE, RW = 0, 3
LEVELS = [128 << 10, MB, 8 * MB, 64 * MB, 512 * MB]


def mmap(size: int, prot: int, result: int, wanted: int = 0, flags: int = ANONYMOUS) -> Row:
    return 0, EventKind.MMAP, (wanted, size, prot, flags, NO_FILE, 0), result


def hints(*rows: Row) -> GoHints:
    found = GoHints()
    for row in rows:
        found.feed(events(row))
    return found


def looks_like_go(found: GoHints) -> bool:
    """Tell whether there are all page summaries in their order, or an arena and its index."""
    return found.summaries_complete or any(hint.what == "index of the heap's arenas" for hint in found.found)


def summaries(at: int = 0x7F0000000000) -> list[Row]:
    return [mmap(size, NONE, at + sum(LEVELS[:level])) for level, size in enumerate(LEVELS)]


def log(name: str) -> EventBatch:
    reader = StraceLog()
    return np.concatenate([reader.feed((FIXTURES / name).read_bytes()), reader.finish()])


@pytest.mark.parametrize(
    ("name", "scavenge_index", "by"),
    [("go1.19.8-file.txt", 8 * MB, "size and address"), ("go1.21.13-file.txt", 512 * MB, "size and address"),
     ("go1.27.3-file.txt", 512 * MB, "size and alignment")],
)  # fmt: skip
def test_the_start_of_a_real_go_program_is_recognised(name: str, scavenge_index: int, by: str) -> None:
    found = GoHints()
    found.feed(log(name))
    assert looks_like_go(found)
    seen = {hint.what: hint for hint in found.found}
    assert [seen[f"page summaries, level {level}"].size for level in range(5)] == LEVELS
    assert seen["scavenge index"].size == scavenge_index
    # From Go 1.26 on the heap's base is random: no address tells it.
    assert (seen["heap arena"].size, seen["heap arena"].by) == (64 * MB, by)
    assert seen["index of the heap's arenas"].size == 32 * MB


def test_c_programs_are_not_taken_for_go() -> None:
    found = GoHints()
    found.feed(log("threads-fork-exec.txt"))
    found.feed(log("descriptors.txt"))
    assert not looks_like_go(found)


def test_summaries_out_of_order_are_none() -> None:
    rows = summaries()
    assert hints(*rows).summaries_complete
    assert not hints(rows[0], rows[2], rows[1], *rows[3:]).summaries_complete
    assert not looks_like_go(hints(*rows[:4]))
    assert hints(rows[0], rows[1], *rows).summaries_complete, "they may begin anew"


@pytest.mark.parametrize(
    ("row", "what", "by"),
    [
        (mmap(64 * MB, NONE, 0xC000000000, 0xC000000000), "heap arena", "size and address"),
        (mmap(128 * MB, NONE, 0xC00C000000, 0xC00C000000), "heap arena", "size and address"),
        (mmap(64 * MB, NONE, 0x14000000000, 0x14000000000), "heap arena", "size and address"),  # darwin/arm64
        (mmap(64 * MB, NONE, 0x2DAB6C000000, 0x2DAB6C000000), "heap arena", "size and alignment"),
        (mmap(64 * MB, NONE, 0x7F0000000000, 0xC000000000), "heap arena", "size and alignment"),
        (mmap(64 * MB, NONE, 0x7F0000001000, 0xC000000000), None, None),
        (mmap(60 * MB, NONE, 0xC000000000, 0xC000000000), None, None),
        (mmap(64 * MB, RW, 0xC000000000, 0xC000000000), None, None),
        (mmap(64 * MB, NONE, 0xC000000000, 0xC000000000, ANONYMOUS | FIXED), None, None),
        (mmap(64 * MB, NONE, -12, 0xC000000000), None, None),
        (mmap(64 * MB, NONE, 0xC000000000, 0xC000000000, 0x21), None, None),
    ],
)
def test_arenas_are_recognised_by_size_and_place(row: Row, what: str | None, by: str | None) -> None:
    found = hints(row).found
    assert [(hint.what, hint.by) for hint in found] == ([(what, by)] if what else [])


def test_an_arena_that_was_given_back_is_forgotten() -> None:
    elsewhere = mmap(64 * MB, NONE, 0x14C000000, 0x4000000000)
    back: Row = (0, EventKind.MUNMAP, (0x14C000000, 64 * MB), 0)
    again = mmap(64 * MB, NONE, 0x14000000000, 0x14000000000)
    assert [hint.start for hint in hints(elsewhere, back, again).found] == [0x14000000000]


def test_an_index_needs_an_arena_before_it() -> None:
    index = mmap(32 * MB, RW, 0x7F0000000000)
    assert hints(index).found == []
    assert looks_like_go(hints(mmap(64 * MB, NONE, 0xC000000000, 0xC000000000), index))


def test_addresses_find_the_range_that_holds_them() -> None:
    found = hints(mmap(64 * MB, NONE, 0xC000000000, 0xC000000000)).found
    points = np.array([0xC000000000 - 1, 0xC000000000, 0xC000000000 + 64 * MB - 1, 0xC000000000 + 64 * MB], np.uint64)
    assert [hint is not None for hint in hint_at(found, points)] == [False, True, True, False]
    assert hint_at([], points) == [None] * 4
