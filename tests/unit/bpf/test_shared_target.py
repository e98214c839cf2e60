"""What becomes of the events of a ring buffer that many processes share, before somebody polls them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bpf.program import Counter, TargetIds
from bpf.shared_program import ADDRESSED, MAX_UPROBES, TARGET
from bpf.shared_source import divided
from bpf.shared_target import SharedTarget
from bpf.uprobes import SkippedUprobe, UprobeSpec
from tracer.events import EVENT, EventBatch, Kind, no_events


def events(*told: tuple[int, Kind]) -> EventBatch:
    """Return events of thread 7 at some times."""
    batch = np.zeros(len(told), EVENT)
    for event, (when, kind) in zip(batch, told, strict=True):
        event["time"], event["kind"], event["tid"] = when, kind, 7
    return batch


@dataclass
class Fake:
    """A target, the row that the kernel would write, and what it asked of its source."""

    rows: np.ndarray[tuple[int], np.dtype[np.void]] = field(default_factory=lambda: np.zeros(1, TARGET))
    gathered: list[float] = field(default_factory=list)
    removed: int = 0

    def __post_init__(self) -> None:
        def remove(target: SharedTarget) -> None:
            assert target is self.target
            self.removed += 1

        self.target = SharedTarget(
            7, -1, TargetIds(7), threading.RLock(), lambda: self.rows[0], self.gathered.append, remove
        )


def told(target: SharedTarget) -> list[tuple[int, Kind]]:
    return [(int(event["time"]), Kind(event["kind"])) for event in target.take()]


def test_an_exit_waits_until_the_whole_process_is_gone() -> None:
    target = Fake().target
    target.accept(events((10, Kind.MMAP), (20, Kind.EXIT)))
    target.settle(100)
    target.accept(events((30, Kind.MADVISE)))  # of another thread than the leader
    assert told(target) == [(10, Kind.MMAP), (30, Kind.MADVISE)]
    target.accept(events((40, Kind.MADVISE)))
    target.gone = True
    target.settle(100)
    target.settle(100)
    assert told(target) == [(40, Kind.MADVISE), (40, Kind.EXIT)]


def test_an_exec_takes_back_the_exit_of_the_leader_that_it_ended() -> None:
    target = Fake().target
    target.accept(events((10, Kind.EXIT), (11, Kind.EXEC)))
    target.accept(events((12, Kind.MMAP)))
    target.gone = True
    target.settle(100)
    assert told(target) == [(11, Kind.EXEC), (12, Kind.MMAP), (100, Kind.EXIT)]


def test_an_exit_that_was_lost_is_made_up() -> None:
    target = Fake().target
    target.gone = True
    target.settle(100)
    (event,) = target.take()
    assert (event["time"], event["kind"], event["tid"]) == (100, Kind.EXIT, 7)


def test_nothing_comes_after_the_exit() -> None:
    target = Fake().target
    target.gone = True
    target.settle(100)
    target.accept(events((110, Kind.MMAP)))
    target.settle(120)
    assert told(target) == [(100, Kind.EXIT)]
    assert not len(target.poll(1))


def test_batches_of_several_looks_at_the_ring_come_sorted() -> None:
    target = Fake().target
    target.accept(events((20, Kind.MMAP), (30, Kind.MMAP)))
    target.accept(events((25, Kind.MUNMAP)))
    assert target.unread == 3
    assert [when for when, _ in told(target)] == [20, 25, 30]
    assert target.unread == 0
    assert target.take().dtype == EVENT


def test_its_poll_gathers_only_when_nothing_waits() -> None:
    fake = Fake()
    fake.target.accept(events((20, Kind.MMAP)))
    assert len(fake.target.poll(0.5)) == 1
    assert fake.gathered == []
    assert not len(fake.target.poll(0.5))
    assert fake.gathered == [0.5]
    fake.target.stop()
    assert fake.removed == 1


def test_losses_of_all_kinds_are_counted_and_stay_when_the_row_is_given_away() -> None:
    fake = Fake()
    target, row = fake.target, fake.rows[0]
    row["counters"][Counter.LOST_RING], row["counters"][Counter.LOST_PENDING], row["over_budget"] = 1, 2, 40
    target.dropped = 100
    assert (target.no_room, target.over_budget, target.lost) == (103, 40, 143)
    target.freeze()
    row["over_budget"] = 0
    row["id"] = 9
    assert target.lost == 143
    target.resume()
    target.give(5)
    assert not row["budget"]


def test_a_paused_target_is_resumed_with_a_fresh_budget() -> None:
    fake = Fake()
    row = fake.rows[0]
    row["paused"], row["used"], row["budget"] = 1, 11, 10
    assert fake.target.paused
    fake.target.give(20)
    fake.target.resume()
    assert not fake.target.paused
    assert (row["used"], row["budget"]) == (0, 20)


def test_probes_that_were_refused_are_not_shown() -> None:
    fake = Fake()
    specs = tuple(UprobeSpec(f"role{i}", Kind.USED, f"f{i}", "x", i) for i in range(MAX_UPROBES))
    fake.target.specs = specs
    fake.target.skipped = [SkippedUprobe(specs[1], "why")]
    fake.rows[0]["counters"][Counter.HITS : Counter.HITS + MAX_UPROBES] = range(MAX_UPROBES)
    fake.rows[0]["counters"][Counter.SYSCALL_HITS + Kind.BRK] = 77
    hits = {status.role: status.hits for status in fake.target.probes()}
    assert hits["brk"] == 77
    assert hits["role2"] == 2
    assert hits[f"role{MAX_UPROBES - 1}"] == MAX_UPROBES - 1
    assert "role1" not in hits


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 50))))
def test_records_are_divided_by_target_and_sorted_by_time(pairs: list[tuple[int, int]]) -> None:
    records = np.zeros(len(pairs), ADDRESSED)
    for number, (record, (target, when)) in enumerate(zip(records, pairs, strict=True)):
        record["target"] = target
        record["event"]["time"], record["event"]["result"] = when, number
    parts = dict(divided(records))
    for target, batch in parts.items():
        wanted = [(when, number) for number, (one, when) in enumerate(pairs) if one == target]
        assert list(zip(batch["time"].tolist(), batch["result"].tolist(), strict=True)) == sorted(wanted)
        assert batch.dtype == no_events().dtype
    assert sorted(parts) == sorted({target for target, _ in pairs})


def test_uprobes_of_the_same_role_and_function_count_together_and_others_while_there_are_counters() -> None:
    target = Fake().target
    main = [UprobeSpec("used", Kind.USED, f"runtime.f{n}", "/main", n) for n in range(MAX_UPROBES - 1)]
    target.specs = tuple(main)
    target.skipped = [SkippedUprobe(main[1], "no room")]
    wanted = [UprobeSpec("used", Kind.USED, f"runtime.{name}", "/plugin", 0) for name in ("f0", "f1", "f2", "new")]
    cookies, skipped = target.number(wanted)
    assert [cookies[spec] & 0xFF for spec in wanted[:3]] == [0, MAX_UPROBES - 1, 2]  # f1 has no counter of its own yet
    assert [one.spec for one in skipped] == wanted[3:]
    assert len(target.specs) == MAX_UPROBES
    assert [row.symbol for row in target.probes()].count("runtime.f1") == 1
