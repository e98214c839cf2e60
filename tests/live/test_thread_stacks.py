"""What is called a thread's stack, against what the thread library itself says of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gomem.exporters.text.report import render_text
from gomem.exporters.verdict import verdict
from gomem.tracer.addresses.ranges import Ranges, bytes_in, normalise
from gomem.tracer.program.go_program import load_program
from gomem.tracer.report import KINDS
from gomem.tracer.snapshot.inspection import Snapshot
from tests.support.builds import build
from tests.support.c_programs import compiled
from tests.support.glibcs import linked_with_glibc
from tests.support.seen import findings, look_at, told

KB, MB = 1 << 10, 1 << 20
PAGE = 4096
DEFAULT = -1


def of_kind(look: Snapshot, kind: str) -> Ranges:
    mine = look.space.kind == KINDS.index(kind)
    return normalise(look.space.start[mine], look.space.end[mine])


def main_stack(look: Snapshot) -> tuple[int, int]:
    at = look.kernel.mappings.name.index("[stack]")
    return int(look.kernel.mappings.start[at]), int(look.kernel.mappings.end[at])


SHAPES = {
    "default": (4, 0, DEFAULT, []),
    "without guards, in one mapping": (5, 256 * KB, 0, []),
    "with large guards": (3, 128 * KB, 2 * MB, []),
    "the program's own memory, with other memory above": (3, 128 * KB, DEFAULT, ["own"]),
}


# How the program is linked, and the shapes: musl's block has no word on memory that it has not mapped itself.
CASES = [(linked, shape) for linked in ("dynamic", "static") for shape in SHAPES]
CASES += [("musl", "default"), ("musl", "with large guards")]


@pytest.mark.parametrize(("linked", "shape"), CASES)
def test_exactly_the_stacks_that_pthread_getattr_np_tells_are_called_so(linked: str, shape: str) -> None:
    count, size, guard, more = SHAPES[shape]
    flags = ["-pthread"] if linked == "dynamic" else ["-static", "-pthread"]
    compiler = {"compiler": "musl-gcc", "package": "musl-tools"} if linked == "musl" else {}
    binary = compiled("threads/threads.c", *flags, **compiler)
    with told(binary, count, size, 64 * KB, guard, 16 * MB, *more) as (process, said):
        look, report = look_at(process)
    # musl keeps its block and thread-specific data above what it calls the stack, within the same pages.
    block = max(0, *(thread["struct"] + 200 - thread["low"] - thread["size"] for thread in said["threads"]))
    known = normalise(
        [thread["low"] - thread["guard"] for thread in said["threads"]],
        [-(-(thread["low"] + thread["size"] + block) // PAGE) * PAGE for thread in said["threads"]],
    )
    found = of_kind(look, "thread_stack")
    low, high = main_stack(look)
    others = found.end <= np.uint64(low)
    assert (found.start[~others].tolist(), found.end[~others].tolist()) == ([low], [high])
    assert (found.start[others].tolist(), found.end[others].tolist()) == (known.start.tolist(), known.end.tolist())
    stacks = report.thread_stacks
    assert stacks is not None
    assert (stacks.stacks, stacks.threads) == (count + 1, count + 1)
    assert stacks.virtual == known.bytes + high - low
    each = look.kernel.residency.rss_in(
        [t["low"] for t in said["threads"]], [t["low"] + t["size"] for t in said["threads"]]
    )
    assert stacks.largest >= int(each.max()) >= 64 * KB
    assert stacks.resident >= int(each.sum())


@pytest.mark.parametrize("linked", ["dynamic", "static", "musl", "2.31"])
def test_the_stacks_that_hold_most_are_those_of_the_threads_that_used_most(linked: str) -> None:
    flags = ["-pthread"] if linked == "dynamic" else ["-static", "-pthread"]
    compiler = {"compiler": "musl-gcc", "package": "musl-tools"} if linked == "musl" else {}
    source = "threads/threads.c"
    binary = linked_with_glibc(linked, source) if linked == "2.31" else compiled(source, *flags, **compiler)
    with told(binary, 30, 2 * MB, MB, DEFAULT, 0) as (process, said):
        _, report = look_at(process)
        threads = {int(task.name): (task / "comm").read_text().rstrip() for task in
                   Path(f"/proc/{process.pid}/task").iterdir()}  # fmt: skip
    stacks = report.thread_stacks
    assert stacks is not None
    assert stacks.rows is not None
    assert len(stacks.rows) == 20
    assert stacks.rows[0].resident == stacks.largest
    known = {thread["low"]: thread["tid"] for thread in said["threads"]}
    for row in stacks.rows:
        assert row.deepest is not None
        assert row.tid is not None
        assert row.tid == known[row.start]
        assert row.name == threads[row.tid]
        # It used one MiB, and what its first frames and its control block took.
        assert MB <= row.deepest < MB + 64 * KB
        assert MB <= row.resident <= row.deepest


def test_a_go_heap_below_a_waiting_thread_is_no_thread_stack() -> None:
    library = build("embedded", "1.25.5", mode="cgo", extra_flags=["-buildmode=c-shared"])
    host = compiled("embedded/host/host.c", "-ldl")
    with told(host, library, 100) as (process, address):
        # What is told of the C program alone, as where the library cannot be read.
        look, report = look_at(process, load_program)
    assert report.heap is None
    found = of_kind(look, "thread_stack")
    heap = int(look.kernel.mappings.find(np.array([address], np.uint64))[0])
    start, end = look.kernel.mappings.start[heap : heap + 1], look.kernel.mappings.end[heap : heap + 1]
    assert look.kernel.residency.rss_in(start, end)[0] >= 60 * MB
    assert bytes_in(found, start, end).tolist() == [0]
    assert report.kinds is not None
    assert next(row.resident or 0 for row in report.kinds if row.kind == "other") >= 100 * MB
    stacks = report.thread_stacks
    assert stacks is not None
    assert stacks.resident < 4 * MB
    # Those are pthreads, proven as such: as many as there are threads.
    assert stacks.stacks == stacks.threads
    assert stacks.stacks > 1


def test_threads_in_c_are_a_part_of_the_headline_with_what_each_stack_holds() -> None:
    with told(build("cthreads", "1.25.5", mode="cgo"), 100, MB, 0) as (process, _):
        _, report = look_at(process)
    stacks = report.thread_stacks
    assert stacks is not None
    assert stacks.threads is not None
    assert stacks.stacks == stacks.threads >= 101
    assert MB <= stacks.median <= stacks.largest < MB + 256 * KB
    assert f"MiB is {stacks.stacks} stacks of OS threads" in verdict(report)
    assert f"Stacks of OS threads: {stacks.stacks} stacks" in render_text(report)
    assert "C malloc" not in verdict(report)
    assert "thread-stacks" in findings(report)
    assert "outside-the-go-heap" not in findings(report)


def test_as_much_heap_of_c_is_not_called_stacks() -> None:
    with told(build("cthreads", "1.25.5", mode="cgo"), 1, 4 * KB, 100 * MB) as (process, _):
        _, report = look_at(process)
    assert "stacks of OS threads" not in verdict(report)
    assert "C malloc" in verdict(report)
    assert "thread-stacks" not in findings(report)
    assert "outside-the-go-heap" in findings(report)


def test_threads_of_a_c_program_are_told_without_a_word_on_go() -> None:
    binary = compiled("threads/threads.c", "-pthread")
    with told(binary, 100, 0, MB, DEFAULT, 0) as (process, _):
        _, report = look_at(process)
    assert "MiB is 101 stacks of OS threads" in verdict(report)
    finding = findings(report)["thread-stacks"]
    assert "Go" not in finding.explanation + finding.action
    assert Path(report.process.exe) == binary
