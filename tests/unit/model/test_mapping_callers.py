from __future__ import annotations

import errno

import numpy as np
import pytest

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.callers import Chain
from gomem.tracer.model.mapping_callers import asker
from tests.support.samples.events import PAGE, batch, event, mmap, mremap, munmap

CACHE, STORE, RUNTIME, NAMELESS = 0x500100, 0x600100, 0x700100, 0x900100
NAMES = {0x500: "main.cache", 0x600: "main.store", 0x700: "runtime.(*mheap).sysAlloc"}
AT = 0x10_0000


def name(address: int) -> str | None:
    return NAMES.get(address >> 12)


def by(caller: int, *events: np.void) -> list[np.void]:
    """Return events as a caller's."""
    for one in events:
        one["depth"], one["stack"][0] = 1, caller
    return list(events)


def after(*batches: EventBatch) -> list[tuple[int, int, str | None]]:
    """Return the ranges that are somebody's: first page behind AT, how many pages, and whose."""
    activity = Activity(name)
    for one in batches:
        activity.feed(one)
    return [((low - AT) // PAGE, (high - low) // PAGE, chain.function)
            for low, high, chain in activity.mapping_callers.ranges()]  # fmt: skip


def test_a_mapping_is_its_callers_until_it_is_unmapped() -> None:
    made = by(CACHE, mmap(1, AT, 8))
    assert after(batch(*made)) == [(0, 8, "main.cache")]
    assert after(batch(*made, munmap(3, AT + 2 * PAGE, 2))) == [(0, 2, "main.cache"), (4, 4, "main.cache")]
    assert after(batch(*made), batch(munmap(3, AT, 8))) == []
    assert after(batch(*made, *by(STORE, mmap(3, AT + PAGE, 1)))) == [
        (0, 1, "main.cache"), (1, 1, "main.store"), (2, 6, "main.cache"),
    ]  # fmt: skip


def test_what_the_runtime_maps_is_nobodys_also_in_the_place_of_others() -> None:
    assert after(batch(*by(RUNTIME, mmap(1, AT, 8)))) == []
    assert after(batch(*by(CACHE, mmap(1, AT, 8)), *by(RUNTIME, mmap(3, AT, 6)))) == [(6, 2, "main.cache")]


def test_code_without_a_name_has_ranges_too_and_what_has_no_stack_has_none() -> None:
    assert after(batch(*by(NAMELESS, mmap(1, AT, 8)), mmap(3, AT + 8 * PAGE, 8))) == [(0, 8, None)]


def test_a_call_that_fails_changes_nothing() -> None:
    refused = by(STORE, event(EventKind.MMAP, 3, AT, 8 * PAGE, 3, 0x32, result=-errno.ENOMEM))
    unmapped = munmap(5, AT, 8, result=-errno.EINVAL)
    assert after(batch(*by(CACHE, mmap(1, AT, 8)), *refused, unmapped)) == [(0, 8, "main.cache")]


@pytest.mark.parametrize("apart", [False, True])
def test_an_unmapping_that_ends_late_spares_what_another_thread_got_there(apart: bool) -> None:
    made, got = by(CACHE, mmap(1, AT, 8)), by(STORE, mmap(6, AT, 4, tid=2))
    late = munmap(9, AT, 8, entered=4)
    batches = [batch(*made, *got), batch(late)] if apart else [batch(*made, *got, late)]
    assert after(*batches) == [(0, 4, "main.store")]


def test_a_mapping_that_moves_stays_its_callers_and_one_that_was_there_is_the_movers() -> None:
    moved = by(STORE, mremap(3, AT, 8, 16, AT + 64 * PAGE))
    assert after(batch(*by(CACHE, mmap(1, AT, 8)), *moved)) == [(64, 16, "main.cache")]
    assert after(batch(*moved)) == [(64, 16, "main.store")]
    shrunk = mremap(5, AT, 8, 2, AT)
    assert after(batch(*by(CACHE, mmap(1, AT, 8)), shrunk)) == [(0, 2, "main.cache")]


def test_another_program_has_none_of_them() -> None:
    assert after(batch(*by(CACHE, mmap(1, AT, 8)), event(EventKind.EXEC, 3))) == []


def test_who_asks_stands_behind_the_packages_that_only_make_system_calls() -> None:
    calls = ("syscall.RawSyscall6", "syscall.mmap", "syscall.(*mmapper).Mmap")
    for between in (calls, ("golang.org/x/sys/unix.mmap", "golang.org/x/sys/unix.Mmap"), ("0x7f01", "runtime.cgocall")):
        chain = Chain((*between, "go.etcd.io/bbolt.mmap", "go.etcd.io/bbolt.(*DB).mmap"), "syscall.mmap")
        assert asker(chain) == "go.etcd.io/bbolt.mmap"
    assert asker(Chain(("0x7f01", "0x7f02"), None)) is None
