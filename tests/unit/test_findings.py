from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.exporters.samples import (
    GB,
    KB,
    MB,
    NO_MEMORY_LIMIT,
    SAMPLES,
    grown_and_scavenged,
    kernel_only,
    launched,
    lazily_freed,
    span_class,
)
from tracer.findings import RULES, find
from tracer.report import Accounting, Cgroup, Consistency, EventLoss, Finding, RebuiltRange, Report

Change = Callable[[Report], Report]


def part(report: Report, name: str, **figures: Any) -> Report:
    """The report with figures of one part replaced."""
    return replace(report, **{name: replace(getattr(report, name), **figures)})


def heap(report: Report, pages: dict[str, int] | None = None, resident: dict[str, int] | None = None,
         **figures: Any) -> Report:
    assert report.heap is not None
    changed = replace(report.heap, pages=replace(report.heap.pages, **pages or {}),
                      resident=replace(report.heap.resident, **resident or {}), **figures)
    return replace(report, heap=changed)


def kind(report: Report, name: str, **figures: Any) -> Report:
    assert report.kinds is not None
    return replace(report, kinds=[replace(row, **figures) if row.kind == name else row for row in report.kinds])


def cgroup(report: Report, current: int | None, most: int | None, high: int | None = None, kills: int = 0) -> Report:
    return part(report, "process", cgroup=Cgroup("/a", current, most, high, kills))


def stats(report: Report, **figures: int) -> Report:
    return replace(report, memstats={**(report.memstats or {}), **figures})


def ids(report: Report) -> dict[str, str]:
    return {finding.id: finding.severity for finding in find(report)}


def finding(report: Report, name: str) -> Finding:
    found = [one for one in find(report) if one.id == name]
    assert found, f"{name} is not among {ids(report)}"
    return found[0]


def near_limit(live: int) -> Change:
    def change(report: Report) -> Report:
        return stats(heap(report, memory_limit=100 * MB, live=live), Sys=300 * MB, HeapReleased=201 * MB)

    return change


def anonymous(amount: int) -> Change:
    return lambda report: part(cgroup(report, 98 * MB, 100 * MB), "resident", anonymous=amount, lazy_free=0)


# What makes each finding appear, in a report that does not have it, and its severity there.
CASES: list[tuple[str, str, Change]] = [
    ("lazily-freed", "info", lambda report: part(report, "resident", lazy_free=20 * MB)),
    ("scavenged-but-resident", "warning", lambda report: heap(report, resident={"scavenged": 40 * MB})),
    ("retained-idle-heap", "info", lambda report: heap(report, resident={"free": 70 * MB})),
    ("outside-the-go-heap", "warning", lambda report: part(
        kind(report, "runtime_other", kind="c_heap", resident=900 * MB), "resident", total=960 * MB)),
    ("goroutine-stacks", "warning", lambda report: heap(report, resident={"stacks": 80 * MB})),
    ("runtime-metadata", "warning", lambda report: kind(report, "heap_metadata", resident=80 * MB)),
    ("file-pages", "info", lambda report: part(report, "resident", file=80 * MB)),
    ("huge-pages", "info", lambda report: part(
        heap(report, resident={"free": 65 * MB}), "resident", huge_pages=70 * MB)),
    ("ready-not-resident", "info", lambda report: kind(report, "runtime_other", ready=900 * MB)),
    ("near-cgroup-limit", "warning", anonymous(40 * MB)),
    ("near-cgroup-limit", "critical", anonymous(98 * MB)),
    ("over-memory-high", "warning", lambda report: cgroup(report, 98 * MB, None, 98 * MB)),
    ("oom-kills", "warning", lambda report: cgroup(report, 1 * MB, 100 * MB, kills=3)),
    ("gomemlimit-unset", "info", lambda report: heap(cgroup(report, 1 * MB, GB), memory_limit=None)),
    ("gomemlimit-unset", "info", lambda report: heap(cgroup(report, 1 * MB, GB), memory_limit=NO_MEMORY_LIMIT)),
    ("gomemlimit-above-cgroup", "warning", lambda report: heap(cgroup(report, 1 * MB, GB), memory_limit=2 * GB)),
    ("gomemlimit-without-headroom", "info", lambda report: heap(cgroup(report, 1, GB), memory_limit=GB - MB)),
    ("near-gomemlimit", "info", near_limit(40 * MB)),
    ("near-gomemlimit", "warning", near_limit(80 * MB)),
    ("near-gomemlimit", "critical", near_limit(95 * MB)),
    ("goal-far-above-live", "info", lambda report: heap(report, goal=GB, live=100 * MB, gc_percent=900)),
    ("collector-off", "warning", lambda report: heap(report, gc_percent=-1, memory_limit=NO_MEMORY_LIMIT)),
    ("swapped", "warning", lambda report: part(report, "resident", swap=20 * MB)),
    ("fragmentation", "warning", lambda report: replace(report, spans=[span_class(21, 144, 1, 9_000, 900)])),
    ("inexact-snapshot", "info", lambda report: replace(report, consistency=Consistency(False, 8, 64 * KB))),
    ("inexact-snapshot", "warning", lambda report: replace(report, consistency=Consistency(False, 8, 64 * MB))),
    ("lost-events", "warning", lambda report: replace(report, event_loss=EventLoss(1, 1, 0))),
    ("drift", "warning", lambda report: replace(report, event_loss=EventLoss(0, 1, -4 * MB))),
    ("looks-like-go", "info", lambda report: replace(
        report, rebuilt=[RebuiltRange(GB, 32 * MB, "rw-p", False, "index of the heap's arenas", "size and order")])),
    ("unexplained-ready", "warning", lambda report: replace(
        report, accounting=Accounting(40 * MB, 32 * MB, 0, -2 * MB))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "severity", "change"), CASES, ids=[f"{name}-{level}" for name, level, _ in CASES])
def test_finding_appears_when_its_figures_do(name: str, severity: str, change: Change) -> None:
    assert name not in ids(grown_and_scavenged())
    found = finding(change(grown_and_scavenged()), name)
    assert found.severity == severity
    assert found.title
    assert found.explanation.endswith(".")
    assert found.action.endswith((".", ")"))
    assert found.evidence
    assert any(value for value in found.evidence.values())


def test_every_finding_has_a_case() -> None:
    tried = {name for name, _, _ in CASES} | {"reserved-address-space"}
    seen = {finding.id for change in (case[2] for case in CASES) for finding in find(change(grown_and_scavenged()))}
    assert seen == tried
    silent = [name for name, rule in RULES.items()
              if not any(rule(change(grown_and_scavenged())) for _, _, change in CASES)]  # fmt: skip
    assert silent == []


@pytest.mark.parametrize("sample", [launched, grown_and_scavenged, lazily_freed, kernel_only])
def test_a_healthy_process_has_info_findings_only(sample: Callable[[], Report]) -> None:
    assert set(ids(sample()).values()) <= {"info"}


def test_reserved_address_space_is_explained() -> None:
    found = finding(launched(), "reserved-address-space")
    assert found.evidence["reserved"] == 649 * MB - 4 * MB - 256 * KB
    assert "no RAM" in found.explanation


def test_lazily_freed_pages_are_not_also_called_scavenged_but_resident() -> None:
    assert "lazily-freed" in ids(lazily_freed())
    assert "scavenged-but-resident" not in ids(lazily_freed())


def test_scavenged_but_resident_names_huge_pages_only_if_there_are_any() -> None:
    report = heap(grown_and_scavenged(), resident={"scavenged": 40 * MB})
    assert "VmLck" in finding(part(report, "resident", huge_pages=0), "scavenged-but-resident").action
    assert "khugepaged" in finding(part(report, "resident", huge_pages=64 * MB), "scavenged-but-resident").action


def test_retained_heap_is_compared_with_rss_that_is_not_lazily_freed() -> None:
    assert "retained-idle-heap" in ids(lazily_freed())
    assert "retained-idle-heap" not in ids(part(lazily_freed(), "resident", lazy_free=0))


def test_page_cache_in_a_full_cgroup_is_not_critical() -> None:
    report = cgroup(part(lazily_freed(), "resident", anonymous=728 * MB), 740 * MB, 745 * MB)
    assert finding(report, "near-cgroup-limit").severity == "warning"
    assert finding(report, "near-cgroup-limit").evidence["not_reclaimable"] == (728 - 512) * MB


def test_gomemlimit_is_held_against_sys_minus_released() -> None:
    report = stats(heap(grown_and_scavenged(), memory_limit=100 * MB), Sys=500 * MB, HeapReleased=450 * MB)
    assert "near-gomemlimit" not in ids(report)
    assert finding(stats(report, HeapReleased=405 * MB), "near-gomemlimit").evidence["sys_minus_released"] == 95 * MB


def test_gogc_off_with_a_limit_is_a_choice() -> None:
    report = heap(grown_and_scavenged(), gc_percent=-1, memory_limit=450 * MB)
    assert "collector-off" not in ids(report)


def test_no_heap_goal_is_not_a_goal_far_above_live() -> None:
    assert "goal-far-above-live" not in ids(heap(grown_and_scavenged(), goal=(1 << 64) - 1))


def test_drift_within_the_skew_or_after_losses_is_not_our_error() -> None:
    report = replace(grown_and_scavenged(), event_loss=EventLoss(0, 0, 4 * MB))
    assert "drift" in ids(report)
    assert "drift" not in ids(replace(report, consistency=Consistency(False, 3, 5 * MB)))
    assert "drift" not in ids(replace(report, event_loss=EventLoss(7, 1, 4 * MB)))
    assert "drift" not in ids(replace(report, event_loss=EventLoss(0, 0, None)))


def test_worst_findings_come_first() -> None:
    report = near_limit(95 * MB)(replace(grown_and_scavenged(), event_loss=EventLoss(9, 1, 0)))
    levels = [finding.severity for finding in find(report)]
    assert levels == sorted(levels, key=["critical", "warning", "info"].index)
    assert levels[0] == "critical"


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
def test_ids_are_stable_words_and_never_stand_twice(sample: Callable[[], Report]) -> None:
    found = [finding.id for finding in find(sample())]
    assert len(found) == len(set(found))


figures = st.one_of(st.none(), st.integers(0, 1 << 64))


@settings(deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.lists(figures, min_size=12, max_size=12), st.integers(-1, 1 << 31))
def test_no_figures_break_a_rule(name: str, amounts: list[int | None], gc_percent: int) -> None:
    report = SAMPLES[name]()
    assert report.resident is not None
    current, most, high, lazy, huge, swap, anon, file, live, goal, limit, sys = amounts
    report = cgroup(report, current, most, high)
    report = part(report, "resident", lazy_free=lazy, huge_pages=huge, swap=swap, anonymous=anon, file=file, total=0)
    if report.heap is not None:
        report = heap(report, live=live, goal=goal, memory_limit=limit, gc_percent=gc_percent)
    for found in find(replace(report, memstats={"Sys": sys, "HeapReleased": live})):
        assert found.title.isprintable()
