"""What becomes of the events of a ring buffer that many processes share, before somebody polls them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf.memory_calls import SeenBy
from gomem.bpf.program import Counter, TargetIds
from gomem.bpf.shared_program import ADDRESSED, MANY
from gomem.bpf.shared_source import divided
from gomem.bpf.shared_target import SharedTarget
from gomem.bpf.target_probes import TargetProbes
from gomem.bpf.target_table import target_dtype
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events

MAX_UPROBES = MANY.uprobes


def events(*told: tuple[int, EventKind]) -> EventBatch:
    """Return events of thread 7 at some times."""
    batch = np.zeros(len(told), EVENT)
    for event, (when, kind) in zip(batch, told, strict=True):
        event["time"], event["kind"], event["tid"] = when, kind, 7
    return batch


@dataclass
class Fake:
    """A target, the row that the kernel would write, and what it asked of its source."""

    rows: np.ndarray[tuple[int], np.dtype[np.void]] = field(
        default_factory=lambda: np.zeros(1, target_dtype(MAX_UPROBES))
    )
    gathered: list[float] = field(default_factory=list)
    removed: int = 0
    watched_closely: list[SharedTarget] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    seen_by: SeenBy = "all calls"

    def __post_init__(self) -> None:
        self.target = SharedTarget(7, -1, TargetIds(7), self, lambda: self.rows[0], TargetProbes(MAX_UPROBES))

    def gather(self, timeout: float) -> None:
        """Nothing comes."""
        self.gathered.append(timeout)

    def let_go(self, target: SharedTarget) -> None:
        """Count it."""
        assert target is self.target
        self.removed += 1

    def add_uprobes(self, pid: int, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Take them all."""
        return []

    def watch_closely(self, target: SharedTarget) -> None:
        """Note it."""
        self.watched_closely.append(target)


def told(target: SharedTarget) -> list[tuple[int, EventKind]]:
    return [(int(event["time"]), EventKind(event["kind"])) for event in target.events.take()]


def test_it_is_watched_closely_as_long_as_it_is_followed() -> None:
    fake = Fake()
    fake.target.watch_closely()
    fake.target.freeze()
    fake.target.watch_closely()
    assert fake.watched_closely == [fake.target]


def test_an_exit_waits_until_the_whole_process_is_gone() -> None:
    target = Fake().target
    target.events.accept(events((10, EventKind.MMAP), (20, EventKind.EXIT)))
    target.settle(100)
    target.events.accept(events((30, EventKind.MADVISE)))  # of another thread than the leader
    assert told(target) == [(10, EventKind.MMAP), (30, EventKind.MADVISE)]
    target.events.accept(events((40, EventKind.MADVISE)))
    target.gone = True
    target.settle(100)
    target.settle(100)
    assert told(target) == [(40, EventKind.MADVISE), (40, EventKind.EXIT)]


def test_an_exec_takes_back_the_exit_of_the_leader_that_it_ended() -> None:
    target = Fake().target
    target.events.accept(events((10, EventKind.EXIT), (11, EventKind.EXEC)))
    target.events.accept(events((12, EventKind.MMAP)))
    target.gone = True
    target.settle(100)
    assert told(target) == [(11, EventKind.EXEC), (12, EventKind.MMAP), (100, EventKind.EXIT)]


def test_an_exit_that_was_lost_is_made_up() -> None:
    target = Fake().target
    target.gone = True
    target.settle(100)
    (event,) = target.events.take()
    assert (event["time"], event["kind"], event["tid"]) == (100, EventKind.EXIT, 7)


def test_nothing_comes_after_the_exit() -> None:
    target = Fake().target
    target.gone = True
    target.settle(100)
    target.events.accept(events((110, EventKind.MMAP)))
    target.settle(120)
    assert told(target) == [(100, EventKind.EXIT)]
    assert not len(target.poll(1))


def test_batches_of_several_looks_at_the_ring_come_sorted() -> None:
    target = Fake().target
    target.events.accept(events((20, EventKind.MMAP), (30, EventKind.MMAP)))
    target.events.accept(events((25, EventKind.MUNMAP)))
    assert target.events.unread == 3
    assert [when for when, _ in told(target)] == [20, 25, 30]
    assert target.events.unread == 0
    assert target.events.take().dtype == EVENT


def test_its_poll_gathers_only_when_nothing_waits() -> None:
    fake = Fake()
    fake.target.events.accept(events((20, EventKind.MMAP)))
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
    target.events.dropped = 100
    assert (target.no_room, target.over_budget, target.lost) == (103, 40, 143)
    target.freeze()
    row["over_budget"] = 0
    row["id"], row["spent"], row["paused"] = 9, 5, 1
    assert target.lost == 143
    target.resume()
    assert (row["spent"], row["paused"]) == (5, 1)  # they are another's now


def test_a_paused_target_is_resumed_with_a_fresh_budget() -> None:
    fake = Fake()
    row = fake.rows[0]
    row["paused"], row["spent"], row["budget"] = 1, 11, 10
    assert fake.target.paused
    fake.target.resume()
    assert not fake.target.paused
    assert (row["spent"], row["budget"]) == (0, 10)


def test_probes_that_were_refused_are_not_shown() -> None:
    fake = Fake()
    specs = tuple(UprobeSpec(f"role{i}", EventKind.USED, f"f{i}", "x", i) for i in range(MAX_UPROBES))
    fake.target.uprobes.specs = specs
    fake.target.uprobes.skipped = [SkippedUprobe(specs[1], "why")]
    fake.rows[0]["counters"][Counter.HITS : Counter.HITS + MAX_UPROBES] = range(MAX_UPROBES)
    fake.rows[0]["counters"][Counter.SYSCALL_HITS + EventKind.BRK] = 77
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
    main = [UprobeSpec("used", EventKind.USED, f"runtime.f{n}", "/main", n) for n in range(MAX_UPROBES - 1)]
    target.uprobes.specs = tuple(main)
    target.uprobes.skipped = [SkippedUprobe(main[1], "no room")]
    wanted = [UprobeSpec("used", EventKind.USED, f"runtime.{name}", "/plugin", 0) for name in ("f0", "f1", "f2", "new")]
    cookies, skipped = target.uprobes.number(wanted)
    assert [cookies[spec] & 0xFF for spec in wanted[:3]] == [0, MAX_UPROBES - 1, 2]  # f1 has no counter of its own yet
    assert [one.spec for one in skipped] == wanted[3:]
    assert len(target.uprobes.specs) == MAX_UPROBES
    assert [row.symbol for row in target.probes()].count("runtime.f1") == 1


def test_where_each_file_has_counters_of_its_own_a_function_has_as_many_rows_as_files() -> None:
    probes = TargetProbes(3, by_file=True)
    program, one, two, three = (
        UprobeSpec("used", EventKind.USED, "runtime.f", path, 0) for path in ["/p", "/1", "/2", "/3"]
    )
    probes.begin([program], [])
    cookies, skipped = probes.number([one, two, three])
    assert [cookies[spec] & 0xFF for spec in (one, two)] == [1, 2]
    assert [refused.spec for refused in skipped] == [three]
    rows = [
        status
        for status in probes.statuses(np.arange(Counter.HITS + 3, dtype=np.uint64), "all calls")
        if status.role == "used"
    ]
    assert [row.hits for row in rows] == [Counter.HITS, Counter.HITS + 1, Counter.HITS + 2]
