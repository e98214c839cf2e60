"""What the figures of a report become."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import get_args, get_type_hints

import pytest
from msgspec.structs import replace

from gomem.exporters.prometheus import MetricOptions, Scrapes
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import CgroupView, TargetState
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import Bound, EventCount, EventLoss, ProbeRow, Report, Transition
from tests.support.samples.fleet import (
    ALL,
    HEALTH,
    POD,
    names,
    scraped,
    series,
    target,
    told,
    values,
    view,
    whole,
)
from tests.support.samples.reports import SAMPLES, grown_and_scavenged, kernel_only


@pytest.fixture(scope="module")
def shown() -> dict[str, float]:
    return series(whole())


@pytest.mark.parametrize("sample", SAMPLES)
def test_virtual_bytes_add_up_to_vsz_and_resident_bytes_to_rss(sample: str) -> None:
    report = SAMPLES[sample]()
    shown = series(report)
    assert report.virtual is not None
    assert report.resident is not None
    assert sum(values(shown, "gomem_virtual_bytes")) == report.virtual.total == shown["gomem_process_virtual_bytes"]
    assert sum(values(shown, "gomem_resident_bytes")) == report.resident.total == shown["gomem_process_resident_bytes"]


def test_virtual_bytes_by_state_are_the_reports(shown: dict[str, float]) -> None:
    virtual = whole().virtual
    assert virtual is not None
    for state in ("reserved", "prepared", "ready", "unmanaged"):
        assert sum(values(shown, "gomem_virtual_bytes", state=state)) == getattr(virtual, state)


def test_a_process_whose_runtime_is_not_read_has_address_space_of_unknown_state() -> None:
    shown = series(kernel_only())
    assert {key.partition('state="')[2] for key in shown if key.startswith("gomem_virtual_bytes")} == {'unknown"}'}


def test_heap_pages_are_split_into_resident_and_not(shown: dict[str, float]) -> None:
    heap = whole().heap
    assert heap is not None
    for state in ("in_use", "stacks", "work_bufs", "free", "scavenged"):
        both = values(shown, "gomem_heap_page_bytes", state=state)
        assert sum(both) == getattr(heap.pages, state)
        assert both[0] == getattr(heap.resident, state)
    assert values(shown, "gomem_heap_page_bytes", state="outside") == []  # nothing is, and hardly ever anything is
    arena = values(shown, "gomem_resident_bytes", kind="heap_arena")
    assert sum(values(shown, "gomem_heap_page_bytes", residency="resident")) == arena[0]


def test_the_parts_of_sys_add_up_to_it(shown: dict[str, float]) -> None:
    assert sum(values(shown, "gomem_runtime_sys_bytes")) == (whole().memstats or {})["Sys"]


def test_what_could_not_be_had_has_no_sample() -> None:
    empty = {
        field: None for field in ("virtual", "resident", "kinds", "heap", "memstats", "spans", "span_states", "events",
                                  "madvise", "transitions", "event_loss", "accounting", "structure", "drift",
                                  "scavenged_by", "consistency")
    }  # fmt: skip
    report = replace(whole(), findings=[], **empty)
    report = replace(report, process=replace(report.process, cgroup=None),
                     overhead=replace(report.overhead, probes=[], target_slowdown_estimate=None))  # fmt: skip
    assert names(series(report)) == {
        "gomem_process_info", "gomem_process_state", "gomem_process_start_time_seconds",
        "gomem_followed_since_timestamp_seconds", "gomem_report_timestamp_seconds", "gomem_spans_timestamp_seconds",
        "gomem_look_duration_seconds", "gomem_looks_total", "gomem_failed_looks_total", "gomem_follows_events",
    }  # fmt: skip


OPTIONAL = [name for name, kind in get_type_hints(Report).items() if type(None) in get_args(kind)]


@pytest.mark.parametrize("part", OPTIONAL)
def test_any_part_of_a_report_may_be_missing_without_a_figure_made_up(part: str) -> None:
    there = series(whole(), ALL)
    left = series(replace(whole(), **{part: None}), ALL)
    made_up = dict(left.items() - there.items())
    if part == "virtual":
        assert {key.partition('state="')[2] for key in made_up} == {'unknown"}'}
    elif part == "madvise":
        assert {key.partition("{")[2] for key in made_up} == {'syscall="madvise"}'}
    else:
        assert not made_up


def test_a_process_that_was_never_read_still_says_who_and_in_what_state_it_is() -> None:
    shown = series(None, state=TargetState.UNREADABLE, looks=0, look_seconds=None, looked_at=None, spans_at=None)
    assert shown['gomem_process_state{state="unreadable"}'] == 1
    assert values(shown, "gomem_process_info", pod="orders-7c9f", node="node-1") == [1]
    assert "gomem_report_timestamp_seconds" not in shown


@pytest.mark.parametrize("none", [None, (1 << 63) - 1])
def test_no_memory_limit_is_no_sample(none: int | None) -> None:
    report = whole()
    assert report.heap is not None
    unlimited = replace(report, heap=replace(report.heap, memory_limit=none, goal=(1 << 64) - 1))
    limited = replace(report, heap=replace(report.heap, memory_limit=1 << 30))
    assert "gomem_memory_limit_bytes" not in series(unlimited)
    assert "gomem_heap_goal_bytes" not in series(unlimited)
    assert series(limited)["gomem_memory_limit_bytes"] == 1 << 30


def test_limits_that_hold_for_the_process_are_told_as_shares_and_those_of_the_machine_are_not() -> None:
    bounds = [
        Bound("pids.max", "count", 40, 30, 10, "/pod"), Bound("RLIMIT_AS", "bytes", None, 1 << 30, None),
        Bound("kernel.threads-max", "count", 100, 99, 1), Bound("RLIMIT_NPROC", "count", 50, None, None),
    ]  # fmt: skip
    shown = series(replace(whole(), bounds=bounds))
    assert {key: value for key, value in shown.items() if "limit_used" in key} == {
        'gomem_process_limit_used_ratio{limit="pids.max"}': 0.75
    }


def test_cgroups_have_no_pid_and_no_samples_for_what_is_not_known() -> None:
    bare = CgroupView("/x", Workload(), CgroupMemory(5, None, None), 0)
    gone = CgroupView("/kubepods/pod1", dataclasses.replace(POD, owner="orders"), None, 3)
    shown = dataclasses.replace(view(target(whole(), 7), target(whole(), 8)), cgroups=(bare, gone))
    pod = 'cgroup="/kubepods/pod1",namespace="shop",workload="orders",pod="orders-7c9f",container="app",node="node-1"'
    assert {key: value for key, value in told(shown).items() if "cgroup_" in key} == {
        'gomem_cgroup_memory_bytes{cgroup="/x"}': 5,
        'gomem_cgroup_oom_kills_total{cgroup="/x"}': 0,
        f"gomem_cgroup_oom_kills_total{{{pod}}}": 3,
    }
    text = Scrapes(lambda: shown).answer()[0].decode()
    assert f"\ngomem_cgroup_oom_kills_total{{{pod}}} 3\n" in text
    assert text.count("\ngomem_cgroup_memory_bytes{") == 1


def test_counters_of_events_are_seen_at_zero() -> None:
    probed = [ProbeRow(role, f"runtime.{role}", 0) for role in ("reserve", "used", "unused", "fault", "grow")]
    quiet = replace(whole(), events={}, madvise={}, transitions=[], scavenged_by={},
                    overhead=replace(whole().overhead, probes=probed))  # fmt: skip
    for cgo, calls in ((True, 6), (None, 6), (False, 4)):  # mremap and brk are C's
        shown = series(replace(quiet, process=replace(quiet.process, cgo=cgo)))
        for name, count in (("gomem_memory_syscalls_total", calls), ("gomem_memory_syscall_failures_total", calls),
                            ("gomem_transition_bytes_total", 3), ("gomem_scavenged_bytes_total", 3),
                            ("gomem_heap_growths_total", 1)):  # fmt: skip
            assert values(shown, name) == [0] * count, name


def test_what_no_probe_can_see_is_not_told_to_be_0_and_what_happens_is_always_told() -> None:
    nothing = replace(whole(), overhead=replace(whole().overhead, probes=[]))
    assert not values(series(replace(nothing, events={}, transitions=[])), "gomem_transitions_total")
    rows = [Transition("Ready", "Reserved", "fault", None, 2, 100)]
    happened = replace(nothing, transitions=rows, events={"brk": EventCount(1, 4096), "arena": EventCount(1, 64)},
                       process=replace(nothing.process, cgo=False), madvise={"free": EventCount(3, 300)})  # fmt: skip
    shown = series(happened)
    assert shown['gomem_transitions_total{from="ready",to="reserved",event="fault"}'] == 2
    assert shown['gomem_memory_syscalls_total{syscall="brk"}'] == 1
    assert shown['gomem_memory_syscalls_total{syscall="madvise",advice="free"}'] == 3
    assert shown['gomem_heap_growths_total{event="arena"}'] == 1


SPARSE = ("gomem_process_swap_bytes", "gomem_process_shmem_bytes", "gomem_process_lazily_freed_bytes",
          "gomem_process_huge_page_bytes")  # fmt: skip


def test_a_gauge_that_is_0_for_most_is_told_from_its_first_other_value_on() -> None:
    report = whole()
    assert report.resident is not None
    none = replace(report, resident=replace(report.resident, swap=0, shmem=0, lazy_free=0, huge_pages=0))
    some = replace(report, resident=replace(report.resident, swap=1, shmem=2, lazy_free=3, huge_pages=4))
    now = none
    scrapes = Scrapes(lambda: view(target(now)))

    def shown() -> dict[str, float]:
        return {sample.name: sample.value for sample in scraped(scrapes) if sample.name in SPARSE}

    assert shown() == {}
    now = some
    assert shown() == dict(zip(SPARSE, (1, 2, 3, 4), strict=True))
    now = none
    assert shown() == dict.fromkeys(SPARSE, 0)


NAMED = ("state", "from", "to", "event", "phase", "kind", "residency", "source", "syscall", "advice", "part", "role",
         "severity")  # fmt: skip


@pytest.mark.parametrize("sample", [*SAMPLES.values(), whole])
def test_states_and_all_other_names_are_spelt_in_one_way(sample: Callable[[], Report]) -> None:
    rows = [Transition("None", "Ready", "alloc", None, 1, 1), Transition("any", "None", "free", None, 1, 1)]
    freed = {"FreeOSMemory": EventCount(1, 1), "background": EventCount(1, 1)}
    shown = view(target(replace(sample(), transitions=rows, scavenged_by=freed)))
    found = {(name, value) for one in scraped(Scrapes(lambda: shown)) for name, value in one.labels.items()
             if name in NAMED}  # fmt: skip
    assert {("from", "none"), ("to", "ready"), ("source", "free_os_memory")} <= found
    assert not [value for _, value in found if not re.fullmatch(r"[a-z][a-z0-9_]*|", value)]


def test_transitions_of_one_kind_are_added_up_over_functions() -> None:
    rows = [Transition("Ready", "Prepared", "unused", f"runtime.f{at}", 2, 100) for at in range(50)]
    shown = series(replace(whole(), transitions=rows))
    assert shown['gomem_transition_bytes_total{from="ready",to="prepared",event="unused"}'] == 5_000
    assert shown['gomem_transitions_total{from="ready",to="prepared",event="unused"}'] == 100


def test_madvise_is_split_by_advice_and_not_counted_twice() -> None:
    report = replace(whole(), events={"madvise": EventCount(5, 500, 1), "mmap": EventCount(1, 10)},
                     madvise={"dontneed": EventCount(4, 400), "collapse": EventCount(1, 100, 1)})  # fmt: skip
    shown = series(report)
    assert sum(values(shown, "gomem_memory_syscall_bytes_total")) == 510
    assert shown['gomem_memory_syscall_failures_total{syscall="madvise",advice="collapse"}'] == 1


def test_a_hostile_program_cannot_make_up_labels() -> None:
    advices = {f"advice_{number}": EventCount(1, 1) for number in range(1_000)}
    shown = series(replace(whole(), madvise=advices))
    assert values(shown, "gomem_memory_syscalls_total", syscall="madvise", advice="other") == [1_000]
    assert len(values(shown, "gomem_memory_syscalls_total", syscall="madvise")) == 2


def test_size_classes_are_switched_on_and_add_up() -> None:
    report = grown_and_scavenged()
    assert report.spans is not None
    assert not values(series(report), "gomem_size_class_spans")
    shown = series(report, MetricOptions(size_classes=True))
    assert sum(values(shown, "gomem_size_class_page_bytes")) == sum(row.pages for row in report.spans) * 8192
    assert sum(values(shown, "gomem_size_class_objects")) == sum(row.objects for row in report.spans)
    assert len(values(shown, "gomem_size_class_spans")) == len({row.size_class for row in report.spans})


def test_loss_and_drift_are_counters() -> None:
    shown = series(replace(whole(), event_loss=EventLoss(7, 2, 8_192)))
    assert shown["gomem_drift_bytes_total"] == 8_192
    assert shown["gomem_lost_events_total"] == 7
    assert shown["gomem_resyncs_total"] == 2
    assert shown["gomem_illegal_transitions_total"] == 1


def test_findings_are_active_by_id_and_severity() -> None:
    report = grown_and_scavenged()
    shown = series(report)
    assert values(shown, "gomem_finding_active") == [1] * len(report.findings)
    for finding in report.findings:
        assert shown[f'gomem_finding_active{{id="{finding.id}",severity="{finding.severity}"}}'] == 1


def test_figures_that_are_no_numbers_are_left_out() -> None:
    report = whole()
    stats = {**(report.memstats or {}), "HeapAlloc": "many", "Mallocs": float("nan")}
    overhead = replace(report.overhead, target_slowdown_estimate=float("inf"))
    shown = series(replace(report, memstats=stats, overhead=overhead))
    assert not {"gomem_heap_allocated_bytes", "gomem_allocations_total", "gomem_target_slowdown_ratio"} & shown.keys()


def test_the_tracer_tells_of_itself() -> None:
    shown = told(view(target(whole()), target(None, 101, "x", state=TargetState.UNREADABLE)))
    assert shown['gomem_targets{state="followed"}'] == 1
    assert shown['gomem_targets{state="unreadable"}'] == 1
    assert shown['gomem_targets{state="waiting"}'] == 0
    assert shown["gomem_tracer_cpu_seconds_total"] == HEALTH.cpu_seconds
    assert shown["gomem_tracer_lost_events_total"] == HEALTH.lost_events
    assert values(shown, "gomem_tracer_info", backend="bpf", discovery="process connector") == [1]


def test_before_the_first_view_there_is_the_version() -> None:
    assert names(told(None)) == {"gomem_build_info", "gomem_metric_errors_total"}


def test_pod_labels_get_names_that_prometheus_allows() -> None:
    labels = {"app.kubernetes.io/name": "a", "app_kubernetes_io_name": "b", "été": "c", "": "d"}
    shown = series(whole(), workload=Workload(labels=labels))
    assert values(shown, "gomem_process_info", label_app_kubernetes_io_name="a", label__t_="c", label_="d") == [1]


def _counting(report: Report, mallocs: int) -> Report:
    return replace(report, memstats={**(report.memstats or {}), "Mallocs": mallocs})


def test_counters_of_one_process_never_fall() -> None:
    report, seen = whole(), []
    views = iter(
        [view(target(_counting(report, count))) for count in (1_000, 990, 1_010)]
        + [view(target(_counting(report, 5), found=9.0)), view(), view(target(_counting(report, 4)))]
    )
    scrapes = Scrapes(lambda: next(views))
    for _ in range(6):
        seen += [sample.value for sample in scraped(scrapes) if sample.name == "gomem_allocations_total"]
    # Torn by a moving heap; followed anew; gone, and a new process under its pid.
    assert seen == [1_000, 1_000, 1_010, 5, 4]


def test_the_same_pid_twice_is_shown_once() -> None:
    shown = scraped(Scrapes(lambda: view(target(whole()), target(whole()))))
    keys = [(sample.name, tuple(sample.labels.items())) for sample in shown]
    assert len(keys) == len(set(keys))
