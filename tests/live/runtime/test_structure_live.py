"""The structure of a runtime against what the target counts of itself and what the kernel counts of the target."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import build
from tests.support.processes import running
from tests.support.toolchains import RELEASES


@dataclass(frozen=True, slots=True)
class Seen:
    """What a target said of itself, and what was seen of it."""

    told: dict[str, Any]
    look: Snapshot
    report: dict[str, Any]
    threads: int

    @property
    def scheduler(self) -> dict[str, Any]:
        found: dict[str, Any] = self.report["structure"]["scheduler"]
        return found


@pytest.fixture(scope="module", params=[(release, stripped) for release in RELEASES for stripped in (False, True)],
                ids=lambda param: f"{param[0]}{'-stripped' if param[1] else ''}")  # fmt: skip
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    release, stripped = request.param
    with running(build("census", release, stripped=stripped)) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        time.sleep(0.1)
        with Target.open(process.pid) as target, Inspector.open(target) as inspector:
            look = inspector.look()
            report = snapshot_target(inspector).to_dict()
            status = Path(f"/proc/{process.pid}/status").read_text()
            yield Seen(told, look, report, int(status.partition("Threads:")[2].split()[0]))


def test_goroutines_are_as_many_as_the_runtime_says(seen: Seen) -> None:
    assert seen.scheduler["goroutines"] == seen.told["goroutines"]
    assert seen.scheduler["ps"] == seen.told["procs"]


def test_goroutines_are_in_the_states_that_they_were_brought_to(seen: Seen) -> None:
    states, metrics = seen.scheduler["goroutine_states"], seen.told["metrics"]
    assert sum(states.values()) == seen.scheduler["goroutines"] + seen.scheduler["system_goroutines"]
    assert states["syscall"] == 5
    assert states["running"] == 1
    assert states["waiting"] >= 100
    if "/sched/goroutines/not-in-go:goroutines" in metrics:
        assert states["syscall"] == metrics["/sched/goroutines/not-in-go:goroutines"]


def test_threads_are_as_many_as_the_kernel_says(seen: Seen) -> None:
    assert seen.scheduler["ms"] == seen.report["structure"]["threads"] == seen.threads
    if "/sched/threads/total:threads" in seen.told["metrics"]:
        assert seen.threads >= seen.told["metrics"]["/sched/threads/total:threads"] > 5


def test_every_span_in_use_is_in_a_central_list_or_in_an_mcache(seen: Seen) -> None:
    runtime = seen.look.runtime
    assert runtime is not None
    held = dict(enumerate(runtime.caches.cached_spans.tolist()))
    for row in seen.report["caches"]["mcentral"]:
        held[row["span_class"]] += row["partial"] + row["full"]
        assert (row["partial_unswept"], row["full_unswept"]) == (0, 0)
    spans = {row["span_class"]: row["spans"] for row in seen.report["spans"]}
    assert {span_class: count for span_class, count in held.items() if count} == spans


def test_full_sets_hold_full_spans_and_partial_sets_the_others(seen: Seen) -> None:
    runtime = seen.look.runtime
    assert runtime is not None
    spans = runtime.spans
    cached = runtime.caches.cached_spans.tolist()
    for row in seen.report["caches"]["mcentral"]:
        if row["span_class"] < 2 or cached[row["span_class"]]:
            continue
        mine = (spans.state == 1) & (spans.span_class == row["span_class"])
        assert row["full"] == int((spans.objects[mine] == spans.capacity[mine]).sum())


def test_fixed_size_allocators_hold_what_the_runtime_says(seen: Seen) -> None:
    in_use = {row["name"]: row["in_use"] for row in seen.report["structure"]["fixed_allocs"]}
    sizes = {row["name"]: row["object_size"] for row in seen.report["structure"]["fixed_allocs"]}
    metrics = seen.told["metrics"]
    # A P takes mspans in batches of 64 (mspancache in runtime/runtime2.go), and may do so after the target has told.
    told = metrics["/memory/classes/metadata/mspan/inuse:bytes"]
    assert in_use["spanalloc"] in (told, told + 64 * sizes["spanalloc"])
    assert in_use["cachealloc"] == metrics["/memory/classes/metadata/mcache/inuse:bytes"]
    whole = [row["in_use"] % row["object_size"] for row in seen.report["structure"]["fixed_allocs"] if row["in_use"]]
    assert set(whole) == {0}


def test_metadata_rows_sum_up_to_their_kinds(seen: Seen) -> None:
    kinds = {row["kind"]: row for row in seen.report["kinds"]}
    for kind in ("heap_metadata", "page_summary"):
        rows = [row for row in seen.report["structure"]["metadata"] if row["kind"] == kind]
        assert sum(row["virtual"] for row in rows) == kinds[kind]["virtual"]
        assert sum(row["resident"] for row in rows) == kinds[kind]["resident"]
    wanted = {"heapArena", "heap index", "page bitmaps", "persistentalloc chunk", "gc bits", "allspans array"}
    assert wanted <= {row["what"] for row in seen.report["structure"]["metadata"]}


def test_the_heap_grows_on_in_its_newest_arena_and_then_at_the_first_hint(seen: Seen) -> None:
    structure, arenas = seen.report["structure"], seen.report["heap"]["arenas"]
    current, hints = structure["current_arena"], structure["arena_hints"]
    newest = arenas[-1]
    assert current["end"] == newest["base"] + newest["size"]
    assert newest["base"] < current["base"] <= current["end"]
    assert hints[0] == {"address": current["end"], "down": False}
    assert len(hints) > 1


def test_page_caches_hold_pages_of_the_heap(seen: Seen) -> None:
    arenas = seen.report["heap"]["arenas"]
    for row in seen.report["caches"]["page_cache"]:
        assert 0 <= row["p"] < seen.told["procs"]
        assert row["scavenged_pages"] <= row["free_pages"] <= 64
        assert any(arena["base"] <= row["base"] < arena["base"] + arena["size"] for arena in arenas)
