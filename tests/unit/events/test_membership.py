"""Whose events pass: those of the target's threads, known by /proc or by the calls that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gomem.tracer.events.record import EVENT, EventBatch, EventKind
from gomem.tracer.events.strace.membership import MAX_HELD, Membership
from gomem.tracer.events.strace.parser import Birth

TARGET = 100


def events(*rows: tuple[int, EventKind]) -> EventBatch:
    batch = np.zeros(len(rows), dtype=EVENT)
    batch["tid"] = [tid for tid, _ in rows]
    batch["kind"] = [kind for _, kind in rows]
    batch["time"] = np.arange(len(rows)) + 1
    return batch


def living(proc: Path, tid: int, leader: int) -> None:
    (proc / str(tid)).mkdir()
    (proc / str(tid) / "status").write_text(f"Name:\tx y\nTgid:\t{leader}\nPid:\t{tid}\n")


def test_living_tasks_are_placed_by_their_thread_group(tmp_path: Path) -> None:
    living(tmp_path, 101, TARGET)
    living(tmp_path, 102, 102)
    passed = Membership(TARGET, tmp_path).filter(
        events((101, EventKind.MMAP), (102, EventKind.MMAP), (100, EventKind.BRK))
    )
    assert passed["tid"].tolist() == [101, 100]


def test_a_task_that_is_gone_waits_for_the_call_that_made_it(tmp_path: Path) -> None:
    members = Membership(TARGET, tmp_path)
    assert len(members.filter(events((101, EventKind.MMAP), (102, EventKind.MMAP), (101, EventKind.EXIT)))) == 0
    members.learn([Birth(TARGET, 101, True), Birth(TARGET, 102, False)])
    assert members.filter(events())["tid"].tolist() == [101]
    members.give_up()
    assert members.lost == 0


def test_threads_of_threads_are_ours_and_threads_of_children_are_not(tmp_path: Path) -> None:
    members = Membership(TARGET, tmp_path)
    members.learn([Birth(TARGET, 1, True), Birth(1, 2, True), Birth(1, 3, False), Birth(3, 4, True)])
    passed = members.filter(events((1, EventKind.MMAP), (2, EventKind.MMAP), (3, EventKind.MMAP), (4, EventKind.MMAP)))
    assert passed["tid"].tolist() == [1, 2]


def test_only_the_leaders_exit_passes(tmp_path: Path) -> None:
    members = Membership(TARGET, tmp_path)
    members.learn([Birth(TARGET, 101, True)])
    passed = members.filter(events((101, EventKind.EXIT), (TARGET, EventKind.EXIT)))
    assert passed["tid"].tolist() == [TARGET]


def test_a_thread_id_that_is_used_again_is_looked_at_again(tmp_path: Path) -> None:
    members = Membership(TARGET, tmp_path)
    members.learn([Birth(TARGET, 101, True)])
    assert len(members.filter(events((101, EventKind.MMAP), (101, EventKind.EXIT)))) == 1
    living(tmp_path, 101, 101)
    assert len(members.filter(events((101, EventKind.MMAP)))) == 0


def test_events_that_nobody_can_place_are_counted_as_lost_and_bounded(tmp_path: Path) -> None:
    members = Membership(TARGET, tmp_path)
    members.filter(events(*[(7, EventKind.MMAP)] * (MAX_HELD + 5), (7, EventKind.EXIT)))
    assert members.lost == 5
    members.give_up()
    assert members.lost == MAX_HELD + 5
