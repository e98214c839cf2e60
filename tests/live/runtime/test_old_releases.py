"""Runtimes of Go 1.11 to 1.20 in stripped programs that others built: figures against each other, /proc and gctrace."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gomem.tracer.addresses.region_states import PREPARED, READY
from gomem.tracer.binary.buildinfo import read_build_info
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.layout.tables import table_for
from gomem.tracer.process.target import Target
from gomem.tracer.program.globals import find_globals, find_in_code
from gomem.tracer.runtime.earlier import optional_globals, required_globals
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import IN_USE
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.snapshot.join import accounting
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.dwarf import layout_from_dwarf
from tests.support.etcd import GO as GO_OF_ETCD
from tests.support.etcd import running_etcd
from tests.support.old_programs import PROGRAMS, UNSTRIPPED, OldProgram, Waiting, old_program, waiting
from tests.support.processes import rss, state, vm_size, wait_until
from tests.support.rules import broken_rules

READABLE = [program for program in PROGRAMS if program.go != "go1.10.2"]
_GC = re.compile(r"gc (\d+) @.* (\d+)->(\d+)->(\d+) MB, (\d+) MB goal")
_SCVG = re.compile(r"scvg: inuse: (\d+), idle: (\d+), sys: (\d+), released: (\d+)")
MEGABYTES = 24


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a program while it waited."""

    program: OldProgram
    look: Snapshot
    runtime: RuntimeSnapshot
    report: dict[str, Any]
    trace: list[str]
    rss: int
    vm_size: int

    def figure(self, name: str) -> int:
        """Return a field of MemStats."""
        value = self.runtime.memstats[name]
        assert isinstance(value, int)
        return value


def _see(program: OldProgram, target: Waiting) -> Seen:
    with Target.open(target.pid) as process, Inspector.open(process) as inspector:
        look = inspector.look()
        assert look.runtime is not None, look.limits
        report = snapshot_target(inspector).to_dict()
        return Seen(program, look, look.runtime, report, target.trace(), rss(target.pid), vm_size(target.pid))


def _stopped(program: OldProgram, target: Waiting) -> Seen:
    target.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state(target.pid) == "T", "the stop")
    return _see(program, target)


def _released(pid: int) -> int:
    with Target.open(pid) as process, Inspector.open(process) as inspector:
        runtime = inspector.look().runtime
        return 0 if runtime is None else cast(int, runtime.memstats["HeapReleased"])


@pytest.fixture(scope="module", params=READABLE, ids=lambda program: program.go)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    program: OldProgram = request.param
    executable = old_program(program)
    with waiting(program, executable, MEGABYTES, "gctrace=1", tmp_path_factory.mktemp("old")) as target:
        yield _see(program, target)


def test_the_release_and_its_own_table_are_found(seen: Seen) -> None:
    process = seen.report["process"]
    assert (process["go_version"], process["layout"], process["stripped"]) == (seen.program.go, "table", True)


def test_counters_pages_and_spans_agree_to_the_byte(seen: Seen) -> None:
    assert seen.runtime.consistency.exact
    assert seen.runtime.consistency.skew_bytes == 0


def test_the_rules_of_the_report_hold(seen: Seen) -> None:
    assert broken_rules(seen.report, smaps_rollup_rss=seen.rss, vm_size=seen.vm_size) == []


def test_objects_of_each_size_class_are_those_in_its_spans(seen: Seen) -> None:
    spans = seen.runtime.spans
    used = spans.with_state(IN_USE)
    in_spans = np.bincount(spans.span_class[used] >> 1, spans.objects[used], minlength=61).astype(np.int64).tolist()
    counted = [mallocs - frees for _, mallocs, frees in cast(list[list[int]], seen.runtime.memstats["BySize"])]
    assert counted[1:] == in_spans[1:61]
    large = seen.figure("HeapObjects") - sum(counted) - sum(in_spans[61:])
    assert large == in_spans[0]


def test_the_heap_in_bytes_is_that_of_the_objects_in_spans(seen: Seen) -> None:
    spans = seen.runtime.spans
    used = spans.with_state(IN_USE)
    small = used & (spans.span_class >> 1 != 0)
    large = used & ~small
    held = int((spans.objects[small] * spans.object_size[small]).sum())
    held += int((spans.objects[large] * spans.pages[large].astype(np.uint64) * np.uint64(8192)).sum())
    assert seen.figure("HeapAlloc") == held


def test_collections_and_the_live_heap_are_those_of_gctrace(seen: Seen) -> None:
    traced = [match for line in seen.trace if (match := _GC.search(line))]
    assert len(traced) > 2
    number, _, _, live, _ = map(int, traced[-1].groups())
    assert seen.figure("NumGC") == number
    assert seen.runtime.collector.live >> 20 == live
    assert seen.runtime.collector.gc_percent == 100
    assert seen.runtime.collector.phase == "off"


def test_sys_is_what_the_kernel_has_mapped_for_the_runtime(seen: Seen) -> None:
    regions, space = seen.runtime.regions, seen.look.space
    rounding = sum(region.end - region.start - region.size for region in regions if region.counted)
    index = sum(region.size for region in regions if region.what == "heap index")
    mapped = space.bytes_in(PREPARED) + space.bytes_in(READY) - index - rounding
    unnamed = seen.figure("Sys") - mapped
    layout = table_for(seen.program.go, "amd64")
    assert layout is not None
    if layout.has("mheap", "pages.scav.inUse"):
        # addrRanges.cloneInto of Go 1.15 to 1.18 takes 256 bytes out of other_sys that it adds nowhere (no sysStat).
        assert unnamed in (0, -256)
    else:
        assert unnamed == 0


def test_no_anonymous_memory_is_left_without_an_owner(seen: Seen) -> None:
    # Go 1.11 keeps no list of its persistentalloc chunks: that what is left over is what Sys lacks proves them its.
    assert [row["kind"] for row in seen.report["kinds"] if row["kind"] in ("other", "c_heap", "file")] == []


def test_ready_bytes_are_accounted_for_where_the_runtime_counts_them(seen: Seen) -> None:
    account = accounting(seen.look.space, seen.runtime)
    assert (account is None) == (not seen.runtime.collector.mapped_ready)
    assert account is None or account.unexplained == 0


def test_the_heap_is_as_the_scavenger_of_go_1_13_prints_it(seen: Seen) -> None:
    printed = [match for line in seen.trace if (match := _SCVG.search(line))]
    assert bool(printed) == (seen.program.go == "go1.13.4")
    for match in printed[-1:]:
        figures = [seen.figure(name) >> 20 for name in ("HeapInuse", "HeapIdle", "HeapSys", "HeapReleased")]
        # It was printed a moment before the last pages were scavenged.
        assert np.abs(np.subtract([int(text) for text in match.groups()], figures)).max() <= 2


def test_scavenging_before_the_page_allocator_is_counted_by_span(tmp_path: Path) -> None:
    program = next(program for program in PROGRAMS if program.go == "go1.11.2")
    # scavenge=1 returns what has been free for 20 ms, at once; only Go up to 1.12 has it.
    with waiting(program, old_program(program), MEGABYTES, "scavenge=1", tmp_path, rests=False) as target:
        wait_until(lambda: _released(target.pid) > 32 << 20, "scavenging")
        seen = _stopped(program, target)
        # It also collects all the time: what stands still in the middle of that is no heap at rest.
        for _ in range(20):
            if seen.runtime.consistency.exact:
                break
            target.process.send_signal(signal.SIGCONT)
            seen = _stopped(program, target)
    assert seen.runtime.consistency.exact
    assert seen.figure("HeapReleased") > 32 << 20
    assert seen.runtime.pages.bytes_of(PageState.SCAVENGED) == seen.figure("HeapReleased")


@pytest.mark.parametrize("program", UNSTRIPPED, ids=lambda program: program.go)
def test_code_symbols_and_dwarf_of_an_old_program_agree_with_the_table(program: OldProgram) -> None:
    with Executable.open(str(old_program(program))) as exe:
        build = read_build_info(exe)
        described, _ = layout_from_dwarf(exe)
        table = table_for(program.go, "amd64")
        assert build is not None
        assert table is not None
        assert (build.go_version, table.confirmed) == (program.go, True)
        functions = FunctionTable.find(exe)
        names = [name for name in (*required_globals(table), *optional_globals(table)) if name in table.globals]
        by_symbol = find_globals(exe, functions, described, names)
        by_code = find_in_code(exe, functions, table, names)
    assert {name: by_symbol[name] for name in by_code} == by_code
    wanted = {"mheap_", "memstats", "allp", "work", "gcphase", "gcpercent", "persistentChunks", "gcBitsArenas"}
    assert wanted <= set(by_code)
    assert {"mheap", "mspan", "mstats", "mcache", "mcentral", "p", "heapArena"} <= table.struct_names
    for struct in table.struct_names:
        assert table.size(struct) == described.size(struct)
        for name, field in table.fields(struct).items():
            assert described.offset(struct, name) == field.offset, f"{struct}.{name}"
    assert table.constants("class_to_size") == described.constants("class_to_size")
    both = (table.constant_names & described.constant_names) - {"class_to_size", "class_to_allocnpages"}
    assert {"arena_base_offset", "heap_arena_bytes", "persistent_chunk_size", "buck_hash_size"} <= both
    for name in both:
        assert described.constant(name) == table.constant(name), name


def test_a_runtime_with_one_contiguous_arena_is_named_and_its_figures_are_a_clear_limit(tmp_path: Path) -> None:
    program = next(program for program in PROGRAMS if program.go == "go1.10.2")
    with (
        waiting(program, old_program(program), 4, "", tmp_path) as target,
        Target.open(target.pid) as process,
        Inspector.open(process) as inspector,
    ):
        report: dict[str, Any] = snapshot_target(inspector).to_dict()
        mappings = read_mappings(process).mappings
    kinds = {row["kind"]: row for row in report["kinds"]}
    assert report["process"]["go_version"] == program.go
    assert report["memstats"] is None
    assert any("go1.10" in limit["why"] and "1.11" in limit["fix"] + limit["why"] for limit in report["limits"])
    arena = (mappings.start < np.uint64(0xC440000000)) & (mappings.end > np.uint64(0xC420000000))
    expected = int((mappings.end[arena] - np.uint64(0xC420000000)).sum())
    assert (arena.sum(), kinds["heap_arena"]["virtual"]) == (1, expected)
    assert kinds["heap_metadata"]["mappings"] == 2
    for place in (0xC000000000, 0xC420000000):
        assert np.any((mappings.start <= np.uint64(place)) & (np.uint64(place) < mappings.end)), hex(place)
    assert broken_rules(report, smaps_rollup_rss=None, vm_size=None) == []


def test_memstats_of_an_etcd_of_go_1_16_lie_between_two_of_its_own(tmp_path: Path) -> None:
    """It allocates for each answer; what only rises is bracketed, and equal where it stood still."""
    rising = ("Mallocs", "Frees", "TotalAlloc", "MSpanSys", "MCacheSys", "BuckHashSys", "NumGC", "NumForcedGC")
    compared, still = 0, set()
    with running_etcd(tmp_path) as etcd, Target.open(etcd.pid) as process, Inspector.open(process) as inspector:
        assert inspector.program.release == GO_OF_ETCD
        for _ in range(10):
            before, look, after = etcd.memstats(), inspector.look(), etcd.memstats()
            assert look.runtime is not None, look.limits
            if not look.runtime.consistency.exact:
                continue
            told = look.runtime.memstats
            bounds = {name: (before[name], told[name], after[name]) for name in rising}
            assert all(low <= cast(int, ours) <= high for low, ours, high in bounds.values()), bounds
            assert told["MCacheInuse"] == before["MCacheInuse"]
            if before["NumGC"] == after["NumGC"]:
                assert told["NextGC"] == before["NextGC"]
            still |= {name for name in rising if before[name] == after[name]}
            compared += 1
    assert compared > 0
    assert {"MSpanSys", "MCacheSys", "NumGC"} <= still
