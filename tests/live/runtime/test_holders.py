"""Who and what holds the heap, against what the program says of its own objects, MemStats and smaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gomem.tracer.process.memory import read_words
from gomem.tracer.process.target import Target
from gomem.tracer.runtime.pages import CHUNK_BYTES, PAGE
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import DEAD, FREE
from gomem.tracer.runtime.structs import read_record
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import build
from tests.support.holds import Holds, holds
from tests.support.parked import parked
from tests.support.requirements import absent
from tests.support.rules import broken_rules
from tests.support.toolchains import ALL_RELEASES, RELEASES

MB = 1 << 20
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
COUNTS = {"*main.node": 20 * MB // 8, "main.node": 10 * MB // 32, "main.whole": 1}
OLD = ("1.19", "1.21.13")  # releases that keep no types


def report_on(pid: int) -> dict[str, Any]:
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        report: dict[str, Any] = snapshot_target(inspector).to_dict()
    assert broken_rules(report) == []
    return report


def findings(report: dict[str, Any]) -> dict[str, Any]:
    return {finding["id"]: finding for finding in report["findings"]}


@pytest.mark.parametrize("release", RELEASES)
def test_large_objects_are_those_of_the_program_with_their_types_and_who_made_them(release: str) -> None:
    with holds(release) as target:
        for line in (("bytes", 2, 40 << 10), ("pointers", 1, 20 << 10), ("nodes", 1, 10 << 10)):
            target.say(*line)
        told = target.say("one")["objects"]
        found = report_on(target.pid)["heap"]["large_objects"]
    by_address = {one["address"]: one for one in found["largest"]}
    assert set(by_address) >= {one["address"] for one in told}
    typed = release not in OLD
    assert found["types_recorded"] is typed
    for one in told:
        row = by_address[one["address"]]
        assert row["size"] == one["bytes"]
        assert row["function"] == ("main.touched" if one["type"] == "uint8" else "main.keep")
        assert Path(row["file"]).name == "main.go"
        pointers = one["type"] != "uint8"
        assert row["noscan"] is not pointers
        assert row["type"] == (one["type"] if typed and pointers else None)
        if row["type"]:
            assert row["count"] == COUNTS[row["type"]]
        if not pointers:  # each page of them was written
            assert row["resident"] == one["bytes"]


def test_few_large_objects_are_said_to_hold_the_heap_and_many_small_ones_are_not() -> None:
    with holds("1.27.3") as target:
        target.say("bytes", 2000, 50)
        assert "large-objects" not in findings(report_on(target.pid))
        target.say("drop", 2000, 1)
        target.say("free")
        target.say("bytes", 2, 60 << 10)
        said = findings(report_on(target.pid))["large-objects"]
    assert said["title"].startswith("2 objects hold 120 MiB of the 1")
    assert "60 MiB without pointers, allocated by main.touched" in said["explanation"]


def longest_by_spans(runtime: RuntimeSnapshot) -> int:
    """Return the longest run of pages between spans, within what the heap has grown into; no page cache in it."""
    taken = (runtime.spans.state != DEAD) & (runtime.spans.state != FREE)
    edges = list(zip(runtime.spans.start[taken].tolist(), runtime.spans.pages[taken].tolist(), strict=True))
    for cache in runtime.caches.page_caches:
        edges += [(cache.base + at * PAGE, 1) for at in range(64) if cache.free >> at & 1]
    free: set[int] = set()
    for base in runtime.pages.chunk_base.tolist():
        free.update(range(base, base + CHUNK_BYTES, PAGE))
    for start, pages in edges:
        free.difference_update(range(start, start + pages * PAGE, PAGE))
    if runtime.free_runs is not None and runtime.free_runs.padding:  # it is where the heap begins
        first = int(runtime.pages.chunk_base[0])
        free.difference_update(range(first, first + runtime.free_runs.padding * PAGE, PAGE))
    longest = length = last = 0
    for address in sorted(free):
        length = length + 1 if address == last + PAGE else 1
        longest, last = max(longest, length), address
    return longest


def longest_by_summaries(inspector: Inspector, bias: int) -> int:
    """Return the longest free run by the runtime's own summaries, by which it allocates (pallocSum, mpagealloc.go)."""
    layout, memory = inspector.program.layout, inspector.memory()
    assert layout is not None
    mheap = read_record(memory, layout, "mheap", inspector.program.globals["mheap_"] + bias)
    spot = layout.field("mheap", "pages.summary")
    address, length = (int.from_bytes(mheap.bytes_at(spot.offset + step, 8), "little") for step in (0, 8))
    words = read_words(memory, address, length)
    mask = (1 << 21) - 1
    longest = before = 0
    for word in words[words != 0].tolist():
        start, most, end = (word >> shift & mask for shift in (0, 21, 42))
        longest, before = max(longest, most, before + start), end
    return longest


@pytest.mark.parametrize("release", ALL_RELEASES)
def test_free_runs_are_what_lies_between_spans_and_what_the_allocator_knows(release: str) -> None:
    shape = {"live": 24, "garbage": 0.6, "big": 12, "bigdrop": 7, "goroutines": 40, "ended": 50}
    with (
        parked(build("parked", release, stripped=True), shape, env={"GOMAXPROCS": "3"}) as target,
        Target.open(target.pid) as process,
        Inspector.open(process) as inspector,
    ):
        runtime = inspector.look().runtime
        assert runtime is not None
        assert runtime.free_runs is not None
        assert inspector.bias is not None
        by_summaries = longest_by_summaries(inspector, inspector.bias)
        report = snapshot_target(inspector).to_dict()
        truth = target.memstats()
    runs = runtime.free_runs
    assert runs.longest == longest_by_spans(runtime) == by_summaries
    assert (int(runs.pages.sum()) + runs.cached + runs.padding) * PAGE == truth["HeapIdle"]
    assert bool(runs.padding) <= (release >= "1.26")
    heap: Any = report["heap"]
    assert heap["free_runs"]["longest"] == runs.longest * PAGE
    assert np.all(runs.runs >= 0)


def pieces(target: Holds, which: tuple[int, int]) -> None:
    """Let the heap have 150 MB free and then grow for 40 objects of 4 MB: free are every second one, or neighbours."""
    target.say("bytes", 100, 3 << 10)
    target.say("drop", *which)
    target.say("gc")


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_a_heap_that_grows_although_much_is_free_is_said_to_and_one_with_room_is_not(release: str) -> None:
    with holds(release) as target:
        pieces(target, (100, 2))
        before = target.say("bytes", 0, 0)["MemStats"]["HeapSys"]
        after = target.say("bytes", 10, 4 << 10)["MemStats"]["HeapSys"]
        assert after - before >= 32 * MB  # it grew, though more than that was free
        report = report_on(target.pid)
        runs, said = report["heap"]["free_runs"], findings(report)["fragmented-free-heap"]
        assert said["severity"] == "warning"
        assert said["evidence"]["smallest_too_large"] == 4 * MB
        assert 3 * MB <= runs["longest"] < 4 * MB
        assert runs["size"] >= 150 * MB
        assert runs["too_large"] == 10
    with holds(release) as target:
        pieces(target, (50, 1))
        before = target.say("bytes", 0, 0)["MemStats"]["HeapSys"]
        after = target.say("bytes", 10, 4 << 10)["MemStats"]["HeapSys"]
        assert after - before < 8 * MB  # the same, with the free pages in one run
        report = report_on(target.pid)
        assert report["heap"]["free_runs"]["longest"] >= 40 * MB  # a small span may lie within
        assert "fragmented-free-heap" not in findings(report)


def test_gaps_that_fit_what_the_program_allocates_are_not_told_of() -> None:
    with holds("1.27.3") as target:
        pieces(target, (100, 2))
        target.say("bytes", 10, 3 << 10)
        assert "fragmented-free-heap" not in findings(report_on(target.pid))


def huge_pages(pid: int) -> int:
    """Return the bytes of a process in huge pages, as smaps_rollup has them."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("AnonHugePages:")[2].split()[0]) << 10


def test_huge_pages_of_which_little_is_used_are_told_of_and_full_ones_are_not() -> None:
    if not THP.exists() or "[never]" in THP.read_text():
        absent("transparent huge pages are off")
    with holds("1.27.3") as target:
        target.say("wholly", 1, 128 << 10)
        full = report_on(target.pid)
        if not huge_pages(target.pid):
            absent("the kernel has no huge page left")
        assert full["heap"]["large_objects"]["largest"][0]["zero_share"] == 0
        assert "barely-used-huge-pages" not in findings(full)
        target.say("drop", 1, 1)
        target.say("free")
        target.say("hugely", 1, 160 << 10)
        report = report_on(target.pid)
        held = huge_pages(target.pid)
    if held < 100 * MB:
        absent("the kernel had too few huge pages left")
    use, largest = report["heap"]["in_use"], report["heap"]["large_objects"]["largest"][0]
    assert use["huge"] == largest["huge"] == held
    assert largest["zero_share"] > 0.9  # one OS page in 512 is not empty
    assert use["huge_zeros"] == pytest.approx(held, rel=0.1)
    said = findings(report)["barely-used-huge-pages"]
    assert said["severity"] == "warning"
    assert said["evidence"]["function"] == "main.touched"


def test_what_was_never_touched_is_in_use_and_not_resident() -> None:
    with holds("1.27.3") as target:
        told = target.say("barely", 1, 64 << 10)["objects"]
        report = report_on(target.pid)
    use, largest = report["heap"]["in_use"], report["heap"]["large_objects"]["largest"][0]
    assert (largest["address"], largest["size"]) == (told[0]["address"], 64 * MB)
    assert 32 * 4096 <= largest["resident"] <= 40 * 4096  # a byte in each 2 MB
    assert use["not_resident"] >= 63 * MB
    assert "barely-used-huge-pages" not in findings(report)
