"""Activity against figures counted by hand and against a plain event-by-event oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.events.record import EVENT, EventBatch, EventKind
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.callers import is_wrapper
from gomem.tracer.report import EventCount, Transition

NAMES = {
    1: "runtime.mallocinit",
    2: "runtime.sysReserve",
    3: "runtime.(*mheap).sysAlloc",
    4: "runtime.sysReserveAligned",
    5: "runtime.systemstack.abi0",
    6: "runtime.(*mheap).grow",
    7: "runtime.(*pageAlloc).scavengeOne",
    8: "runtime.bgscavenge",
    9: "runtime.(*mheap).scavengeAll",
    10: "runtime.(*mheap).allocSpan",
    11: "main.main",
    12: "internal/runtime/syscall/linux.Syscall6",
}
MB = 1 << 20


def symbolize(address: int) -> str | None:
    return NAMES.get((address + 1) // 0x1000)


def event(
    kind: EventKind, at: int, *args: int, result: int = 0, entered: int = 0, tid: int = 1, stack: Sequence[int] = ()
) -> np.void:
    row: np.void = np.zeros(1, dtype=EVENT)[0]
    row["kind"], row["time"], row["entered"], row["tid"], row["result"] = kind, at, entered, tid, result
    row["args"][: len(args)] = args
    row["depth"] = len(stack)
    row["stack"][: len(stack)] = [number * 0x1000 for number in stack]
    row["stack"][len(stack) :] = 0xDEAD000  # what lies beyond the depth means nothing
    return row


def batch(*events: np.void) -> EventBatch:
    return np.array(list(events), dtype=EVENT)


def fed(*batches: EventBatch) -> Activity:
    activity = Activity(symbolize)
    for one in batches:
        activity.feed(one)
    return activity


def test_nothing_fed_is_nothing_seen() -> None:
    activity = fed(batch())
    assert activity.events() == {}
    assert activity.madvise() == {}
    assert activity.transitions() == []
    assert activity.log() == ([], 0)


def test_bytes_of_calls_are_what_the_kernel_acts_on_and_failed_ones_count_apart() -> None:
    activity = fed(
        batch(
            event(EventKind.MMAP, 2, 0, 4097, entered=1, result=0x10000),
            event(EventKind.MMAP, 4, 0, 1 << 46, entered=3, result=-12),
            event(EventKind.MUNMAP, 6, 0x10000, 1, entered=5),
            event(EventKind.MPROTECT, 8, 0x10000, 8192, entered=7),
            event(EventKind.MREMAP, 10, 0x10000, 4096, 8193, 1, entered=9, result=0x20000),
            event(EventKind.PROCESS_MADVISE, 12, 3, 0, 2, 20, entered=11, result=5 * 4096),
        )
    )
    assert activity.events() == {
        "mmap": EventCount(1, 8192, 1),
        "munmap": EventCount(1, 4096),
        "mremap": EventCount(1, 12288),
        "mprotect": EventCount(1, 8192),
        "process_madvise": EventCount(1, 5 * 4096),
    }


def test_lengths_are_rounded_to_the_os_page_of_the_machine() -> None:
    activity = Activity(symbolize, os_page=65536)
    activity.feed(batch(event(EventKind.MMAP, 2, 0, 4097, entered=1, result=0x10000)))
    assert activity.events()["mmap"].bytes == 65536


def test_mremap_counts_the_new_sizes_of_those_that_succeeded() -> None:
    activity = fed(
        batch(
            event(EventKind.MREMAP, 2, 0x1000, 4096, 3 * 4096, 1, result=0x2000),
            event(EventKind.MREMAP, 3, 0x1000, 5 * 4096, 4096, 1, result=0x2000),
            event(EventKind.MREMAP, 4, 0x1000, 4096, 4096, 1 | 4, result=0x2000),
            event(EventKind.MREMAP, 5, 0x1000, 4096, 1 << 40, 1, result=-12),
        )
    )
    assert activity.events()["mremap"] == EventCount(3, 5 * 4096, failed=1)


def test_brk_counts_how_far_the_break_moved_across_batches() -> None:
    activity = fed(
        batch(event(EventKind.BRK, 1, 0, result=0x5000)),
        batch(
            event(EventKind.BRK, 2, 0x7800, result=0x7800),
            event(EventKind.BRK, 3, 0x7000, result=0x7000),
            event(EventKind.BRK, 4, 0x6000, result=0x6000),
            event(EventKind.BRK, 5, 1 << 46, result=0x6000),
        ),
    )
    assert activity.events() == {"brk": EventCount(4, 0x3000 + 0x1000 + 0x1000, 1)}
    assert [row.event for row in activity.log()[0]] == ["brk", "brk", "brk", "brk ENOMEM"]


def test_an_exec_starts_a_new_break() -> None:
    activity = fed(
        batch(
            event(EventKind.BRK, 1, 0, result=0x5000),
            event(EventKind.EXEC, 2),
            event(EventKind.BRK, 3, 0, result=0x7F000),
            event(EventKind.BRK, 4, 0x80000, result=0x80000),
        )
    )
    assert activity.events() == {"brk": EventCount(3, 0x1000)}


def test_madvise_is_split_by_advice_and_unknown_advice_is_named_by_number() -> None:
    activity = fed(
        batch(
            event(EventKind.MADVISE, 1, 0x1000, 4096, 4),
            event(EventKind.MADVISE, 2, 0x1000, 8192, 4),
            event(EventKind.MADVISE, 3, 0x1000, 4096, 8),
            event(EventKind.MADVISE, 4, 0x1000, 4096, 14, result=-22),
            event(EventKind.MADVISE, 5, 0x1000, 4096, 77),
        )
    )
    assert activity.madvise() == {
        "dontneed": EventCount(2, 12288),
        "free": EventCount(1, 4096),
        "hugepage": EventCount(0, 0, 1),
        "advice_77": EventCount(1, 4096),
    }


def test_transitions_name_the_runtime_function_behind_the_wrappers() -> None:
    activity = fed(
        batch(
            event(EventKind.RESERVE, 1, 0, 64 * MB, stack=[2, 4, 3, 6, 5]),
            event(EventKind.RESERVE, 2, 0, 64 * MB, stack=[4, 3]),
            event(EventKind.RESERVE, 3, 0, 1 * MB, stack=[1]),
            event(EventKind.MAP, 4, 0x1000, 4 * MB, stack=[6]),
            event(EventKind.USED, 5, 0x1000, 2 * MB, 1 * MB, stack=[10]),
            event(EventKind.USED, 6, 0x1000, 2 * MB, 0, stack=[10]),
            event(EventKind.UNUSED, 7, 0x1000, MB, stack=[7, 8]),
            event(EventKind.FREE, 8, 0x1000, MB),
            event(EventKind.ALLOC, 9, 0, 100, stack=[99]),
        )
    )
    assert activity.transitions() == [
        Transition("None", "Reserved", "reserve", "runtime.(*mheap).sysAlloc", 2, 128 * MB),
        Transition("None", "Reserved", "reserve", "runtime.mallocinit", 1, MB),
        Transition("Reserved", "Prepared", "map", "runtime.(*mheap).grow", 1, 4 * MB),
        Transition("Prepared", "Ready", "used", "runtime.(*mheap).allocSpan", 2, 3 * MB),
        Transition("Ready", "Prepared", "unused", "runtime.(*pageAlloc).scavengeOne", 1, MB),
        Transition("None", "Ready", "alloc", None, 1, 100),
        Transition("any", "None", "free", None, 1, MB),
    ]


def test_a_reservation_is_logged_where_the_kernel_put_it_not_where_it_was_asked_for() -> None:
    hint = 0xC000000000
    activity = fed(
        batch(
            event(EventKind.ARENA, 5, 0, 64 * MB, stack=[6]),
            event(EventKind.RESERVE, 10, hint, 64 * MB, stack=[3, 6]),
            event(EventKind.MMAP, 12, hint, 64 * MB, entered=11, result=0x7F0000000000, stack=[12, 2, 3]),
        )
    )
    log, dropped = activity.log()
    assert dropped == 0
    assert [(row.event, row.address, row.bytes, row.function) for row in log] == [
        ("arena", None, 64 * MB, "runtime.(*mheap).grow"),
        ("reserve", 0x7F0000000000, 64 * MB, "runtime.(*mheap).sysAlloc"),
    ]
    assert log[1].callers == ["runtime.(*mheap).sysAlloc", "runtime.(*mheap).grow"]


def test_growth_of_the_heap_is_logged_in_order() -> None:
    second = 10**9
    log, _ = fed(batch(*(event(EventKind.GROW, at * second, 0, at * MB, stack=[6]) for at in range(1, 5)))).log()
    assert [(row.event, row.bytes) for row in log] == [("grow", at * MB) for at in range(1, 5)]
    assert all(before.seconds < after.seconds for before, after in pairwise(log))
    assert {row.function for row in log} == {NAMES[6]}


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
def test_a_role_finds_its_call_among_other_threads_and_across_batches(cut: int) -> None:
    rows = [
        event(EventKind.ALLOC, 10, 0, 262144, tid=1, stack=[1]),
        event(EventKind.ALLOC, 11, 0, 262144, tid=2, stack=[1]),
        event(EventKind.MMAP, 14, 0, 262144, entered=12, tid=2, result=0x2000),
        event(EventKind.MMAP, 15, 0, 262144, entered=13, tid=1, result=0x1000),
    ]
    activity = fed(batch(*rows[:cut]), batch(*rows[cut:]))
    assert [(row.event, row.address) for row in activity.log()[0]] == [("alloc", 0x1000), ("alloc", 0x2000)]


def test_calls_that_no_role_made_are_logged_as_the_programs_own() -> None:
    activity = fed(
        batch(
            event(EventKind.MMAP, 2, 0, 4096, entered=1, result=0x1000, stack=[12, 11]),
            event(EventKind.ALLOC, 3, 0, 4096, stack=[1]),
            event(EventKind.MMAP, 5, 0, 8192, entered=4, result=0x3000, stack=[99]),  # another size: not that alloc's
            event(EventKind.MMAP, 7, 0, 4096, entered=2, tid=1, result=0x5000),  # entered before the alloc
            event(EventKind.MUNMAP, 9, 0x3000, 8192, entered=8),
        )
    )
    assert [(row.event, row.address, row.function) for row in activity.log()[0]] == [
        ("mmap", 0x1000, "main.main"),
        ("mmap", 0x5000, None),
        ("alloc", None, "runtime.mallocinit"),
        ("mmap", 0x3000, None),
        ("munmap", 0x3000, None),
    ]


def test_a_role_explains_one_call_only() -> None:
    rows = [event(EventKind.ALLOC, 1, 0, 4096)]
    rows += [event(EventKind.MMAP, 3 + i, 0, 4096, entered=2 + i, result=0x1000 * i) for i in range(1, 4)]
    assert [row.event for row in fed(batch(*rows)).log()[0]] == ["alloc", "mmap", "mmap"]
    assert [row.event for row in fed(*(batch(row) for row in rows)).log()[0]] == ["alloc", "mmap", "mmap"]


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_reservation_that_the_kernel_refused_is_no_transition(cut: int) -> None:
    rows = [
        event(EventKind.RESERVE, 1, 0x1000, MB, stack=[1]),
        event(EventKind.MMAP, 3, 0x1000, MB, entered=2, result=-12),
    ]
    activity = fed(batch(*rows[:cut]), batch(*rows[cut:]))
    assert activity.events() == {"mmap": EventCount(0, 0, 1), "reserve": EventCount(0, 0, 1)}
    assert activity.transitions() == []
    assert [(row.event, row.address) for row in activity.log()[0]] == [("reserve ENOMEM", None)]


def test_the_log_keeps_the_first_ones_and_counts_the_rest() -> None:
    activity = Activity(symbolize, log_limit=3)
    for start in (1, 5):
        activity.feed(batch(*(event(EventKind.GROW, start + i, 0, 4 * MB) for i in range(4))))
    log, dropped = activity.log()
    assert [row.seconds for row in log] == [0.0, 1e-9, 2e-9]
    assert dropped == 5


def test_the_log_may_keep_the_last_ones_instead() -> None:
    activity = Activity(symbolize, log_limit=3, log_latest=True)
    for start in (1, 5):
        activity.feed(batch(*(event(EventKind.GROW, start + i, 0, 4 * MB) for i in range(4))))
    log, dropped = activity.log()
    assert [row.seconds for row in log] == [5e-9, 6e-9, 7e-9]
    assert dropped == 5


def test_the_log_counts_seconds_from_the_marked_start() -> None:
    activity = Activity(symbolize)
    activity.mark_start(1_000_000_000)
    activity.feed(batch(event(EventKind.GROW, 3_500_000_000, 0, 4 * MB)))
    assert activity.log()[0][0].seconds == 2.5


def test_scavenging_is_attributed_to_who_asked_for_it() -> None:
    activity = fed(
        batch(
            event(EventKind.UNUSED, 1, 0, MB, stack=[7, 8]),
            event(EventKind.UNUSED, 2, 0, MB, stack=[7, 5, 9, 11]),
            event(EventKind.UNUSED, 3, 0, 3 * MB, stack=[7, 10, 11]),
            event(EventKind.UNUSED, 4, 0, MB, stack=[11]),
        )
    )
    assert activity.scavenged_by_source() == {
        "FreeOSMemory": EventCount(1, MB),
        "allocation": EventCount(1, 3 * MB),
        "background": EventCount(1, MB),
        "other": EventCount(1, MB),
    }


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [
        ("runtime.sysReserveOS", True),
        ("runtime.sysReserveAlignedSbrk", True),
        ("runtime.sysHugePageCollapse", True),
        ("runtime.mmap.func1", True),
        ("runtime.systemstack.abi0", True),
        ("runtime/internal/syscall.Syscall6", True),
        ("internal/runtime/syscall/linux.Syscall6", True),
        ("runtime.(*mheap).sysAlloc", False),
        ("runtime.(*linearAlloc).alloc", False),
        ("runtime.persistentalloc1", False),
        ("runtime.sysGrow", False),
        ("syscall.Mmap", False),
        ("main.runtime.sysMap", False),
    ],
)
def test_wrappers_are_told_from_the_functions_that_want_memory(name: str, wrapper: bool) -> None:
    assert is_wrapper(name) is wrapper


SIZES = st.one_of(st.integers(1, 1 << 20), st.integers(1 << 40, (1 << 47) - 1))
CALLS = st.sampled_from([EventKind.MMAP, EventKind.MUNMAP, EventKind.MPROTECT, EventKind.MADVISE])
ROLES = st.sampled_from(
    [EventKind.MAP, EventKind.USED, EventKind.UNUSED, EventKind.FAULT, EventKind.GROW, EventKind.MALLOCGC]
)
SOME = st.tuples(
    st.one_of(CALLS, ROLES), SIZES, st.booleans(), st.lists(st.integers(1, 12), max_size=5), st.sampled_from([4, 8, 14])
)


@given(st.lists(SOME, max_size=60), st.integers(1, 70))
def test_sums_equal_those_of_a_plain_loop(some: list[tuple[EventKind, int, bool, list[int], int]], cut: int) -> None:
    rows = []
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    by_function: Counter[tuple[str, str | None]] = Counter()
    for at, (kind, size, fails, stack, advice) in enumerate(some):
        call = kind < EventKind.EXEC
        # Addresses that differ from role to call keep the join out of this test.
        rows.append(event(kind, at + 1, 0x1000 if call else 0x5000, size, advice if call else 0, stack=stack,
                          result=-12 if call and fails else 0))  # fmt: skip
        name = kind.name.lower()
        if call and fails:
            failures[name] += 1
            continue
        counts[name] += 1
        sizes[name] += (size + 4095) // 4096 * 4096 if call else size
        if kind in (EventKind.MAP, EventKind.USED, EventKind.UNUSED, EventKind.FAULT):
            named = [NAMES[number] for number in stack]
            function = next((n for n in named if not is_wrapper(n)), named[0] if named else None)
            by_function[(name, function.removesuffix(".abi0") if function else None)] += size
    if counts["unused"]:
        counts["scavenge"], sizes["scavenge"] = counts["unused"], sizes["unused"]
    activity = fed(*(batch(*rows[start : start + cut]) for start in range(0, len(rows), cut)))
    assert activity.events() == {
        name: EventCount(counts[name], sizes[name], failures[name]) for name in {*counts, *failures}
    }
    assert {(row.event, row.function): row.bytes for row in activity.transitions()} == by_function


def test_sums_are_exact_beyond_what_a_double_or_64_bits_hold() -> None:
    rows = np.repeat(batch(event(EventKind.MMAP, 2, 0, (1 << 47) - 4096, entered=1, result=0x1000)), 200_000)
    assert fed(rows).events()["mmap"].bytes == 200_000 * ((1 << 47) - 4096) > 1 << 64


def test_garbage_in_the_records_is_survived() -> None:
    generator = np.random.default_rng(7)
    raw = generator.integers(0, 256, 2000 * EVENT.itemsize, dtype=np.uint8).tobytes()
    rows = np.frombuffer(raw, dtype=EVENT).copy()
    rows["kind"] = generator.integers(0, 120, len(rows))
    activity = fed(rows)
    activity.log()
    activity.transitions()
    assert sum(count.count + count.failed for count in activity.events().values()) <= len(rows)


def test_of_a_million_events_the_log_keeps_the_last() -> None:
    rows = np.resize(
        batch(
            event(EventKind.USED, 1, 0x1000, 8192, 8192, stack=[10, 11]),
            event(EventKind.UNUSED, 2, 0x1000, 8192, stack=[7, 8]),
            event(EventKind.MADVISE, 4, 0x1000, 8192, 4, entered=3, stack=[12, 7]),
            event(EventKind.MMAP, 6, 0x1000, 8192, entered=5, result=0x1000, stack=[12, 11]),
        ),
        1_000_000,
    )
    rows["time"] = np.arange(10, len(rows) + 10)
    rows["entered"][rows["entered"] > 0] = 5
    activity = Activity(symbolize)
    activity.feed(rows)
    assert activity.log()[1] == 250_000 - 1000


def test_scavenge_is_what_was_returned_whoever_asked() -> None:
    activity = fed(
        batch(
            event(EventKind.UNUSED, 1, 0x1000, 8192, stack=[7, 9]),
            event(EventKind.UNUSED, 2, 0x8000, 4 * 8192, stack=[7, 8]),
            event(EventKind.UNUSED, 3, 0x1000, 8192, stack=[7, 10]),
        )
    )
    assert activity.events()["scavenge"] == EventCount(3, 6 * 8192)
    assert sum(row.bytes for row in activity.scavenged_by_source().values()) == 6 * 8192


def test_recordings_with_calls_of_the_scavenger_count_what_was_returned() -> None:
    """As earlier versions made them: kind 73, with the bytes that were asked for."""
    asked = event(EventKind.UNUSED, 1, 0, 1 << 40)
    asked["kind"] = 73
    returned = event(EventKind.UNUSED, 2, 0x1000, 8192, stack=[7, 8])
    activity = fed(batch(asked, asked, returned))
    assert activity.events() == {"unused": EventCount(1, 8192), "scavenge": EventCount(1, 8192)}
