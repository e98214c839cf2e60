"""Tables of goroutines from outside against what the processes say of themselves: traces (debug=2) and MemStats."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from gomem.exporters.goroutines import goroutines_json, goroutines_text
from gomem.exporters.json.schema import GOROUTINES_FILE, validate
from gomem.exporters.text.console import Sheet
from gomem.tracer.errors import GomemError
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import Bytes, Memory, ProcessMemory
from gomem.tracer.process.target import Target
from gomem.tracer.profile.goroutine_looks import GoroutineLooks
from gomem.tracer.report.goroutines import By, GoroutineGroup, GoroutineReport, Place
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import Mode, build
from tests.support.crowd import Traced, by_creator, crowd, traced
from tests.support.goroutines import parked_goroutines
from tests.support.processes import rss

WRITER = "main.writer("
EACH: tuple[By, ...] = get_args(By)


def looked(pid: int, by: By = "creator", looks: int = 1, apart: float = 0.0) -> GoroutineReport:
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        watched = GoroutineLooks(inspector, by)
        for number in range(looks):
            time.sleep(apart if number else 0)
            watched.look()
        return watched.report()


def named(report: GoroutineReport, function: str) -> GoroutineGroup:
    """Return the group of the goroutines that began with a function, or that it created."""
    places = {group.start or group.creator: group for group in report.groups}
    (found,) = (group for place, group in places.items() if place is not None and place.function == function)
    return found


@pytest.mark.parametrize(
    ("release", "mode"), [("1.19", "cgo-pie"), ("1.23.9", "pie"), ("1.25.5", "exe"), ("1.27.3", "cgo")]
)
def test_creators_and_states_are_those_of_the_programs_own_trace(release: str, mode: Mode, tmp_path: Path) -> None:
    with parked_goroutines(build("goroutines", release, mode=mode, stripped=True), tmp_path) as process:
        reports = {by: looked(process.pid, by) for by in EACH}
        own = traced(process.stacks.read_text())
    assert len(own) > 100
    same_as_traced(reports, own, WRITER, "chan receive")
    # A collection went by before the trace, and saw most of them wait.
    assert reports["reason"].longest_wait is not None
    assert sum(one.waits_known for one in reports["reason"].groups) > 100


@pytest.mark.parametrize("release", ["1.21.13", "1.22.10", "1.24.11", "1.26.6"])
def test_so_they_are_in_the_other_releases(release: str) -> None:
    with crowd(release) as process:
        own = traced(process.obey("park 30", "sleep 20", "deep 10", "gc", "trace")["Trace"])
        reports = {by: looked(process.pid, by) for by in EACH}
    same_as_traced(reports, own, "main.main(", "syscall")
    assert named(reports["start"], "main.sleeps").reasons == {"sleep": 20}


def same_as_traced(reports: dict[By, GoroutineReport], own: list[Traced], writer: str, now: str) -> None:
    """Compare with a trace; what wrote it ran then, and is in the state `now` since."""
    states = Counter(now if writer in one.text else one.state for one in own)
    creators: Counter[tuple[str, str, int] | None] = Counter()
    for one in reports["creator"].groups:
        creators[as_told(one.creator)] += one.goroutines
    assert creators == by_creator(own)
    assert {one.reason: one.goroutines for one in reports["reason"].groups} == states
    for report in reports.values():
        assert report.limits == []
        assert report.goroutines == len(own)
        assert sum((Counter(one.reasons) for one in report.groups), Counter()) == states


def as_told(creator: Place | None) -> tuple[str, str, int] | None:
    """Return a creator as traces tell of it: not of the runtime's own functions, nor of type arguments."""
    assert creator is not None
    if not creator.function or re.match(r"runtime\.(\(|[a-z])", creator.function):
        return None
    return re.sub(r"\[.*\]", "[...]", creator.function), creator.file, creator.line


def test_stacks_add_up_to_what_the_runtime_counts_and_to_the_memory_that_they_have_brought() -> None:
    with crowd() as process:
        before = process.obey("park 10")["MemStats"]
        rss_before, none = rss(process.pid), looked(process.pid, "start")
        after = process.obey("park 20000", "deep 100", "hollow 100")["MemStats"]
        rss_after, all_of_them = rss(process.pid), looked(process.pid, "start")
    assert all_of_them.stack_inuse == after["StackInuse"]
    assert named(all_of_them, "main.parked").stack_bytes >= 20_010 * 2048
    assert named(all_of_them, "main.deep").stack_bytes == 100 * (128 << 10)
    assert named(all_of_them, "main.hollow").stack_bytes == 100 * (128 << 10)
    grown = sum(each(all_of_them) - each(none) for each in (of_program, of_ended))
    # What is left are free stacks that are kept at hand, and the stacks of a few more threads. Some that were free
    # before are in use now.
    free_before = before["StackInuse"] - of_program(none) - of_ended(none)
    assert -free_before <= after["StackInuse"] - before["StackInuse"] - grown < 1 << 20
    deep, hollow = named(all_of_them, "main.deep"), named(all_of_them, "main.hollow")
    assert deep.stack_resident is not None
    assert hollow.stack_resident is not None
    assert deep.stack_resident >= 100 * (64 << 10)
    assert hollow.stack_resident <= 100 * (16 << 10)
    assert all_of_them.stack_resident is not None
    assert none.stack_resident is not None
    # The process has got more than stacks: a g and a sudog for each goroutine.
    brought = all_of_them.stack_resident - none.stack_resident
    assert brought <= rss_after - rss_before <= brought + 20_200 * 1024 + (4 << 20)


def of_program(report: GoroutineReport) -> int:
    return report.stack_bytes


def of_ended(report: GoroutineReport) -> int:
    return report.ended.stack_bytes


def test_what_has_ended_is_counted_as_the_program_has_allocated_it() -> None:
    with crowd() as process:
        process.obey("end 20000")
        told, ended = process.obey("trace")["MemStats"], looked(process.pid)
        process.obey("gc")
        collected = looked(process.pid)
    with crowd() as process:
        process.obey("park 20000")
        others = looked(process.pid)
    assert 20_000 <= ended.ended.gs <= 20_100
    assert ended.goroutines < 100
    each = ended.ended.g_bytes // ended.ended.gs
    (of_size,) = (row for row in told["BySize"] if row["Size"] == each)
    assert ended.ended.gs <= of_size["Mallocs"] - of_size["Frees"] <= ended.ended.gs + 200
    assert ended.ended.stack_bytes >= 19_000 * 2048
    # A collection takes their stacks, never their gs.
    assert collected.ended.gs >= 19_990
    assert collected.ended.stack_bytes < 100 * 2048
    assert others.ended.gs < 100
    assert others.goroutines >= 20_000


def test_how_long_one_waits_is_told_as_the_runtime_notes_it() -> None:
    """That is since the collection before the one that first saw it wait."""
    with crowd() as process:
        process.obey("park 10")
        began = time.monotonic()
        process.obey("gc")
        done = time.monotonic()
        time.sleep(0.2)
        process.obey("park 5")
        unseen = named(looked(process.pid, "start"), "main.parked")
        process.obey("gc", "park 2")
        asked = time.monotonic()
        seen = named(looked(process.pid, "start"), "main.parked")
        ended = time.monotonic()
    assert (unseen.goroutines, unseen.waits_known, unseen.longest_wait) == (15, 0, None)
    assert (seen.goroutines, seen.waits_known) == (17, 15)
    assert seen.longest_wait is not None
    assert 0.2 <= asked - done <= seen.longest_wait <= ended - began


def test_what_stays_more_and_more_is_told_from_what_comes_and_goes() -> None:
    with crowd() as process:
        process.obey("gcs", "breathe 50", "turn", "leak 5000", "park 20")
        report = looked(process.pid, looks=6, apart=0.35)
    grows = {group.creator.function for group in report.groups if group.creator is not None and group.only_grows}
    assert grows == {"main.leak"}
    (leak,) = (group for group in report.groups if group.only_grows)
    assert leak.at_looks == leak.stayed
    assert leak.at_looks[-1] - leak.at_looks[0] > 100
    others = {group.creator.function: group for group in report.groups if group.creator is not None}
    # As many as at the last look, but others: each has an end.
    assert others["main.turn"].stayed[0] == 0
    assert max(others["main.breathe"].at_looks) > 5


def test_without_a_collection_nothing_is_called_a_leak() -> None:
    with crowd() as process:
        process.obey("leak 5000")
        report = looked(process.pid, looks=4, apart=0.1)
    leak = named(report, "main.leak")
    assert leak.at_looks == sorted(set(leak.at_looks))
    assert leak.only_grows is False


class Lying:
    """The memory of a process, of which each block that is read may have some words changed."""

    def __init__(self, memory: Memory, seed: int) -> None:
        self._memory = memory
        self._chance = random.Random(seed)
        self.honest = self._chance.choice((0.2, 0.9, 0.99))

    @property
    def room(self) -> Room:
        return self._memory.room

    def start_budget(self) -> None:
        assert isinstance(self._memory, ProcessMemory)
        self._memory.start_budget()

    def read(self, address: int, size: int) -> bytes:
        buffer = np.frombuffer(self._memory.read(address, size), np.uint8).copy()
        self._lie(buffer)
        return buffer.tobytes()

    def read_into(self, address: int, buffer: Bytes) -> None:
        self._memory.read_into(address, buffer)
        self._lie(buffer)

    def _lie(self, buffer: Bytes) -> None:
        words = buffer[: len(buffer) // 8 * 8].view(np.uint64)
        if len(words) and self._chance.random() > self.honest:
            for _ in range(self._chance.choice((1, 3, len(words) // 8))):
                words[self._chance.randrange(len(words))] = self._chance.choice(LIES) ^ self._chance.choice((0, 0, 1))


LIES = [
    0, 2, 7, 4, 0xFF, 0x1004, *(1 << bits for bits in (12, 20, 24, 31, 32, 40, 47, 48, 57, 63)), (1 << 64) - 1,
    (1 << 64) - 8, 0x5555555555555555, 0xC000000000, 0x401000,
]  # fmt: skip


def test_whatever_a_process_says_of_its_goroutines_it_is_a_page_or_an_error_soon(tmp_path: Path) -> None:
    told = 0
    with (
        parked_goroutines(build("goroutines", "1.27.3", mode="cgo", stripped=True), tmp_path) as process,
        Target.open(process.pid) as target,
        Inspector.open(target) as inspector,
    ):
        for seed in range(16):
            watched = GoroutineLooks(inspector, EACH[seed % len(EACH)])
            watched._reader.memory = Lying(watched._reader.memory, seed)  # type: ignore[assignment]
            began = time.process_time()
            try:
                watched.look()
                watched.look()
                report = watched.report()
            except GomemError:
                continue
            finally:
                assert time.process_time() - began < 10, seed
            told += 1
            validate(json.loads(goroutines_json(report)), GOROUTINES_FILE)
            assert all(line.isprintable() for line in goroutines_text(report, 1000, Sheet()).splitlines())
    assert told > 5
