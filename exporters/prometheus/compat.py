"""The names of client_golang's collectors, for programs that export nothing themselves and dashboards that expect them.

Each means what client_golang (1.22 and later) means by it: its GoCollector as it is set up by default, and of its
ProcessCollector what a report has. Left out is what cannot be had from outside: the quantiles of
go_gc_duration_seconds, and CPU time, file descriptors and limits of the process.
Source: prometheus/go_collector.go, go_collector_latest.go and process_collector.go in client_golang, runtime/metrics.go
in Go for the two that are no plain numbers there.
"""

from __future__ import annotations

from collections.abc import Iterator

from gomem.exporters.prometheus.heap import memory_limit
from gomem.exporters.prometheus.identity import text
from gomem.exporters.prometheus.metric import Metric, MetricType, ProcessMetric, Sample, Value, figure
from gomem.exporters.prometheus.trust import started_at
from gomem.tracer.fleet.view import TargetView
from gomem.tracer.report import Report, stat

_NO_LIMIT = (1 << 63) - 1  # what runtime/metrics shows without GOMEMLIMIT
_GOGC_OFF = (1 << 64) - 1  # -1 as the uint64 that runtime/metrics makes of it

_MEMSTATS = (
    ("alloc_bytes", "Alloc", "Bytes of heap objects, dead ones that are not swept yet included (MemStats.Alloc)."),
    ("alloc_bytes_total", "TotalAlloc", "Bytes ever allocated for heap objects (MemStats.TotalAlloc)."),
    ("sys_bytes", "Sys", "Memory that the runtime got from the kernel (MemStats.Sys)."),
    ("mallocs_total", "Mallocs", "Heap objects ever allocated, tiny ones included (MemStats.Mallocs)."),
    ("frees_total", "Frees", "Heap objects ever freed, tiny ones included (MemStats.Frees)."),
    ("heap_alloc_bytes", "HeapAlloc", "Bytes of heap objects, the same as go_memstats_alloc_bytes."),
    ("heap_sys_bytes", "HeapSys", "Heap memory, in use, free or released (MemStats.HeapSys)."),
    ("heap_idle_bytes", "HeapIdle", "Heap pages without objects, free or released (MemStats.HeapIdle)."),
    ("heap_inuse_bytes", "HeapInuse", "Heap pages of spans that are in use (MemStats.HeapInuse)."),
    ("heap_released_bytes", "HeapReleased", "Heap pages given back to the kernel (MemStats.HeapReleased)."),
    ("heap_objects", "HeapObjects", "Objects in the heap (MemStats.HeapObjects)."),
    ("stack_inuse_bytes", "StackInuse", "Spans of goroutine stacks (MemStats.StackInuse)."),
    ("stack_sys_bytes", "StackSys", "Goroutine stacks and OS thread stacks of the runtime's (MemStats.StackSys)."),
    ("mspan_inuse_bytes", "MSpanInuse", "Span records in use (MemStats.MSpanInuse)."),
    ("mspan_sys_bytes", "MSpanSys", "Memory for span records (MemStats.MSpanSys)."),
    ("mcache_inuse_bytes", "MCacheInuse", "Per-P caches in use (MemStats.MCacheInuse)."),
    ("mcache_sys_bytes", "MCacheSys", "Memory for per-P caches (MemStats.MCacheSys)."),
    ("buck_hash_sys_bytes", "BuckHashSys", "Memory for profiling's hash table (MemStats.BuckHashSys)."),
    ("gc_sys_bytes", "GCSys", "Memory for the collector's records (MemStats.GCSys)."),
    ("other_sys_bytes", "OtherSys", "Memory of the runtime for all else (MemStats.OtherSys)."),
    ("next_gc_bytes", "NextGC", "Heap size at which the next collection should end (MemStats.NextGC)."),
)


def _memstats(suffix: str, field: str, help: str) -> ProcessMetric:
    return figure(f"go_memstats_{suffix}", help, lambda report: stat(report, field))


def _last_gc(report: Report) -> Value | None:
    value = stat(report, "LastGC")
    return None if value is None else value / 1e9


def _collections(target: TargetView) -> Iterator[Sample]:
    if target.report is None:
        return
    count, pause = stat(target.report, "NumGC"), stat(target.report, "PauseTotalNs")
    if count is not None and pause is not None:
        yield ("_sum",), pause / 1e9
        yield ("_count",), count


def _version(target: TargetView) -> Iterator[Sample]:
    version = target.report.process.go_version if target.report else None
    if version:
        yield (text(version),), 1


def _gogc(report: Report) -> Value | None:
    percent = report.heap.gc_percent if report.heap else None
    return _GOGC_OFF if percent is not None and percent < 0 else percent


def _gomemlimit(report: Report) -> Value | None:
    # gcController has a memory limit in the releases that have mappedReady, from Go 1.19 on.
    if report.heap is None or report.accounting is None:
        return None
    limit = memory_limit(report)
    return _NO_LIMIT if limit is None else limit


def _goroutines(report: Report) -> Value | None:
    return report.structure.scheduler.goroutines if report.structure and report.structure.scheduler else None


def _ms(report: Report) -> Value | None:
    return report.structure.scheduler.ms if report.structure and report.structure.scheduler else None


def _ps(report: Report) -> Value | None:
    return report.structure.scheduler.ps if report.structure and report.structure.scheduler else None


METRICS: tuple[ProcessMetric, ...] = (
    figure("go_goroutines", "Goroutines that exist (runtime.NumGoroutine).", _goroutines),
    figure("go_threads", "Threads (Ms) of the Go runtime.", _ms),
    Metric(
        "go_gc_duration_seconds",
        MetricType.SUMMARY,
        "seconds",
        "Time that collections stopped the whole program, and their number; quantiles cannot be had from outside.",
        (),
        _collections,
    ),
    figure(
        "go_memstats_last_gc_time_seconds",
        "When the last collection ended, in seconds since 1970; 0 before the first.",
        _last_gc,
    ),
    Metric("go_info", MetricType.GAUGE, "", "The Go release that built the program.", ("version",), _version),
    figure("go_gc_gogc_percent", "GOGC; 1.8446744073709552e+19 when it is off, as runtime/metrics has it.", _gogc),
    figure(
        "go_gc_gomemlimit_bytes",
        "GOMEMLIMIT; 9.223372036854776e+18 when there is none, as runtime/metrics has it.",
        _gomemlimit,
    ),
    figure("go_sched_gomaxprocs_threads", "GOMAXPROCS.", _ps),
    *(_memstats(*row) for row in _MEMSTATS),
    figure(
        "process_virtual_memory_bytes",
        "Address space of the process (VSZ).",
        lambda report: None if report.virtual is None else report.virtual.total,
    ),
    figure(
        "process_resident_memory_bytes",
        "RAM of the process (RSS).",
        lambda report: None if report.resident is None else report.resident.total,
    ),
    figure("process_start_time_seconds", "When the process started, in seconds since 1970.", started_at),
)
