"""client_golang's names."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gomem.exporters.prometheus import MetricOptions
from gomem.tracer.report import Report
from tests.support.prometheus import METRICS as OF_MEMSTATS
from tests.support.samples.fleet import names, series, whole
from tests.support.samples.reports import kernel_only, lazily_freed

GO_COLLECTOR = MetricOptions(go_collector=True)


def _compat(report: Report) -> dict[str, float]:
    return {key: value for key, value in series(report, GO_COLLECTOR).items() if not key.startswith("gomem_")}


def test_without_asking_there_are_none() -> None:
    assert all(key.startswith("gomem_") for key in series(whole()))


def test_every_memstats_metric_has_its_field() -> None:
    shown, stats = _compat(whole()), whole().memstats or {}
    assert {name: shown[name] for name in OF_MEMSTATS.values()} == {
        name: stats[field] for field, name in OF_MEMSTATS.items()
    }


def test_the_rest_of_the_default_set_is_there() -> None:
    shown = _compat(whole())
    report = whole()
    assert shown["go_goroutines"] == 31
    assert shown["go_threads"] == 12
    assert shown["go_sched_gomaxprocs_threads"] == 4
    assert shown['go_info{version="go1.27.3"}'] == 1
    assert shown["go_gc_duration_seconds_sum"] == pytest.approx(0.001202334)
    assert shown["go_memstats_last_gc_time_seconds"] == 1_763_710_000
    assert report.virtual is not None
    assert shown["process_virtual_memory_bytes"] == report.virtual.total
    assert shown["process_start_time_seconds"] > 1e9
    assert names(shown) - set(OF_MEMSTATS.values()) == {
        "go_goroutines", "go_threads", "go_sched_gomaxprocs_threads", "go_info", "go_gc_duration_seconds_sum",
        "go_memstats_last_gc_time_seconds", "go_gc_gogc_percent", "go_gc_gomemlimit_bytes",
        "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds",
    }  # fmt: skip


def test_what_is_off_is_what_runtime_metrics_shows_for_it() -> None:
    report = whole()
    assert report.heap is not None
    shown = _compat(replace(report, heap=replace(report.heap, gc_percent=-1, memory_limit=None)))
    # Prometheus has floats only: 1.8446744073709552e+19 and 9.223372036854776e+18.
    assert shown["go_gc_gogc_percent"] == (1 << 64) - 1
    assert shown["go_gc_gomemlimit_bytes"] == (1 << 63) - 1
    limited = _compat(replace(report, heap=replace(report.heap, gc_percent=50, memory_limit=1 << 30)))
    assert limited["go_gc_gogc_percent"] == 50
    assert limited["go_gc_gomemlimit_bytes"] == 1 << 30


def test_a_release_without_memory_limits_has_none() -> None:
    assert "go_gc_gomemlimit_bytes" not in _compat(replace(lazily_freed(), accounting=None))


def test_a_process_that_is_not_read_has_no_go_names() -> None:
    assert names(_compat(kernel_only())) == {
        "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds",
    }  # fmt: skip
