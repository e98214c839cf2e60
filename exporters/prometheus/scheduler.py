"""Goroutines, threads and processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gomem.exporters.prometheus.metric import ProcessMetric, Sample, Value, figure, of_report
from gomem.tracer.report import Report, Scheduler


def _scheduler(read: Callable[[Scheduler], Value]) -> Callable[[Report], Value | None]:
    def value(report: Report) -> Value | None:
        structure = report.structure
        return None if structure is None or structure.scheduler is None else read(structure.scheduler)

    return value


def _states(report: Report) -> Iterator[Sample]:
    scheduler = report.structure.scheduler if report.structure else None
    for state, count in (scheduler.goroutine_states or {}).items() if scheduler else ():
        yield (state,), count


def _waiting(report: Report) -> Value | None:
    queued = report.structure.queued if report.structure else None
    return None if queued is None else queued.finalizers + (queued.cleanups or 0)


METRICS: tuple[ProcessMetric, ...] = (
    figure(
        "gomem_goroutines",
        "Goroutines as runtime.NumGoroutine counts them; if this rises for hours, goroutines leak, each with a stack.",
        _scheduler(lambda scheduler: scheduler.goroutines),
    ),
    figure(
        "gomem_system_goroutines",
        "The runtime's own goroutines.",
        _scheduler(lambda scheduler: scheduler.system_goroutines),
    ),
    of_report(
        "gomem_goroutine_states",
        "Goroutines by state, the runtime's own included; many runnable ones mean that CPU is short.",
        _states,
        ("state",),
    ),
    figure(
        "gomem_timers",
        "Timers that have not fired (stopped ones that are not removed yet included); if this rises for hours, timers "
        "are not stopped.",
        lambda report: report.structure.timers.count if report.structure and report.structure.timers else None,
    ),
    figure(
        "gomem_waiting_finalizers",
        "Finalizers and cleanups of dead objects that wait to be called; if this stays high, one of them blocks.",
        _waiting,
    ),
    figure(
        "gomem_threads",
        "Threads of the process as the kernel counts them; each costs a stack outside the Go heap.",
        lambda report: None if report.structure is None else report.structure.threads,
    ),
    figure(
        "gomem_runtime_threads",
        "Threads (Ms) that the Go runtime has; far more than gomem_processors means many calls that block, in C or in "
        "the kernel.",
        _scheduler(lambda scheduler: scheduler.ms),
    ),
    figure(
        "gomem_processors",
        "Ps, which is GOMAXPROCS; with more of them than the cgroup's quota has CPUs, the kernel throttles it.",
        _scheduler(lambda scheduler: scheduler.ps),
    ),
)
