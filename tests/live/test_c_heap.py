"""The heap of C, against what the C library says of it: mallinfo2, malloc_info, and what malloc_trim gives back."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.text.report import render_text
from gomem.exporters.verdict import verdict
from gomem.tracer.report import CHeap, Report
from tests.support.builds import build
from tests.support.c_programs import compiled
from tests.support.debian import PackageMissing, unpacked
from tests.support.glibcs import linked_with_glibc
from tests.support.processes import rss, running
from tests.support.requirements import absent
from tests.support.seen import findings, look_at, told

KB, MB = 1 << 10, 1 << 20
SOURCE = "malloc/malloc.c"
MALLINFO = {
    "system": "arena", "in_use": "uordblks", "free": "fordblks", "top": "keepcost", "mapped": "hblkhd",
    "mapped_chunks": "hblks",
}  # fmt: skip
# What is linked how: the machine's own glibc, and those of other suites.
HERE = {"dynamic": ["-pthread"], "static": ["-static", "-pthread", "-s"], "static-pie": ["-static-pie", "-pthread"]}


def program(linked: str) -> Path:
    return compiled(SOURCE, *HERE[linked]) if linked in HERE else linked_with_glibc(linked, SOURCE)


@contextmanager
def told_by_c(*command: object) -> Iterator[tuple[subprocess.Popen[bytes], ET.Element, dict[str, int]]]:
    """Run the target; with what malloc_info and mallinfo2 say in it."""
    with running(*command) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        while not lines or lines[-1].strip() != b"</malloc>":
            lines.append(process.stdout.readline())
            assert lines[-1]
        yield process, ET.fromstring(b"".join(lines)), json.loads(process.stdout.readline())


def opened(report: Report) -> CHeap:
    heap = report.c_heap
    assert heap is not None
    assert heap.arenas is not None
    return heap


def told_system(heap: ET.Element) -> int:
    return next(int(one.get("size", "")) for one in heap.findall("system") if one.get("type") == "current")


@pytest.mark.parametrize("mode", ["free", "hold"])
@pytest.mark.parametrize("linked", [*HERE, "2.31", "2.41", "2.43"])
def test_each_figure_is_that_of_mallinfo2_and_each_arena_that_of_malloc_info(linked: str, mode: str) -> None:
    with told_by_c(program(linked), 3, 400, 3000, mode) as (process, arenas, said):
        _, report = look_at(process)
    heap = opened(report)
    assert {name: getattr(heap, name) for name in MALLINFO} == {name: said[of] for name, of in MALLINFO.items()}
    assert heap.exact
    assert heap.allocators == ["glibc"]
    rows = heap.arenas or []
    assert sum(arena.free_chunks for arena in rows) == said["ordblks"] + said["smblks"]
    assert [arena.main for arena in rows] == [True, False, False, False]
    assert sorted(arena.system for arena in rows) == sorted(told_system(heap) for heap in arenas.findall("heap"))
    # Every thread has freed what it had, or nothing.
    assert all((arena.free > 1 * MB) == (mode == "free") for arena in rows)
    assert said["hblks"] >= 3


@pytest.mark.parametrize("linked", ["dynamic", "2.31"])
def test_malloc_trim_gives_back_what_it_was_said_to(linked: str) -> None:
    with told_by_c(program(linked), 3, 2000, 3000, "free") as (process, _, _):
        _, report = look_at(process)
        before = rss(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        given_back = before - rss(process.pid)
        _, later = look_at(process)
    heap = opened(report)
    assert heap.trimmable is not None
    assert heap.trimmable > 20 * MB
    # It joins fast chunks with their neighbours first, which may free some pages more.
    assert 0 <= given_back - heap.trimmable <= 64 * KB
    assert (opened(later).trimmable or 0) <= 64 * KB


def test_a_heap_that_threads_use_meanwhile_is_read_within_its_bounds() -> None:
    with told_by_c(program("dynamic"), 3, 400, 300, "busy") as (process, _, _):
        reports = [look_at(process)[1] for _ in range(5)]
    for report in reports:  # which obey the rules: see look_at
        heap = opened(report)
        assert len(heap.arenas or []) == 4
        why = [limit.why for limit in report.limits if limit.id == "c-heap-partly"]
        assert bool(why) != heap.exact


@pytest.mark.parametrize("release", ["1.21.13", "1.27.3"])
def test_c_memory_that_is_free_and_kept_is_found_and_the_same_in_use_is_not(release: str) -> None:
    binary = build("arenas", release, mode="cgo", stripped=True)
    with told(binary, 8, 700, "free") as (process, said):
        _, report = look_at(process)
    heap = opened(report)
    # Go may make threads meanwhile, which have arenas of their own.
    assert heap.system == pytest.approx(said["arena"], abs=1 * MB)
    assert heap.in_use == pytest.approx(said["uordblks"], abs=1 * MB)
    found = findings(report)["c-heap-free"]
    assert "MiB is free and kept by" in found.title
    assert "malloc_trim(0)" in found.action
    assert "MALLOC_ARENA_MAX" in found.action
    assert "is free and kept by malloc" in verdict(report)
    assert "outside-the-go-heap" not in findings(report)
    assert "C heap (glibc) in" in render_text(report)

    with told(binary, 8, 700, "hold") as (process, said):
        _, report = look_at(process)
    assert (opened(report).in_use or 0) > 100 * MB
    assert opened(report).free == pytest.approx(said["fordblks"], abs=1 * MB)
    assert "c-heap-free" not in findings(report)
    assert "kept by malloc" not in verdict(report)
    assert "C's malloc has 1" in findings(report)["outside-the-go-heap"].explanation


def test_go_without_c_has_no_heap_of_c() -> None:
    with told(build("parked", "1.27.3")) as (process, _):
        _, report = look_at(process)
    assert report.c_heap is None


def allocators(*command: object) -> tuple[Any, list[str]]:
    with told(*command) as (process, _):
        _, report = look_at(process)
    assert report.c_heap is not None
    assert report.c_heap.arenas is None
    return report.c_heap.allocators, [limit.why for limit in report.limits if limit.id == "c-heap-allocator"]


def test_the_malloc_of_musl_is_said_to_be_that() -> None:
    threads = compiled("threads/threads.c", "-pthread", compiler="musl-gcc", package="musl-tools")
    assert allocators(threads, 1, 0, 4 * KB, -1, 0) == (["musl"], ["malloc is musl, and only glibc's heap is opened"])


def test_a_malloc_that_is_preloaded_is_said_to_be_that() -> None:
    try:
        library = next(unpacked("libjemalloc2").glob("**/libjemalloc.so.2"))
    except PackageMissing as missing:
        absent(str(missing))
    threads = compiled("threads/threads.c", "-pthread")
    names, why = allocators("env", f"LD_PRELOAD={library}", threads, 1, 0, 4 * KB, -1, 0)
    assert names == ["jemalloc", "glibc"]
    assert why == ["malloc is jemalloc, and only glibc's heap is opened"]
