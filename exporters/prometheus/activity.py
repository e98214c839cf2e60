"""What happened to a process's memory since it is followed: system calls, transitions, scavenging.

All are absent while nobody watches the events of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gomem.exporters.prometheus.metric import NOTHING, ProcessMetric, Sample, counted, of_report
from gomem.tracer.report import EventCount, Report

# The runtime makes these itself (runtime/mem_linux.go); the others come from C, or from a program's own hand.
_SYSCALLS = ("mmap", "munmap", "mprotect")
_SYSCALLS_OF_C = ("mremap", "brk")
_USUAL_ADVICE = ("dontneed",)
_ROLES = ("grow", "arena")
_SOURCES = ("background", "allocation", "FreeOSMemory")
_SPELT = {"FreeOSMemory": "free_os_memory"}

# runtime/mem.go: what each function does to a region.
_TRANSITIONS = {
    "reserve": ("none", "reserved"),
    "map": ("reserved", "prepared"),
    "used": ("prepared", "ready"),
    "unused": ("ready", "prepared"),
    "fault": ("ready", "reserved"),
    "alloc": ("none", "ready"),
    "free": ("any", "none"),
}
_RARE = ("fault",)  # only where the program frees arenas of its own, or debugs the allocator

Read = Callable[[EventCount], int]


def _count(row: EventCount) -> int:
    return row.count


def _bytes(row: EventCount) -> int:
    return row.bytes


def _failed(row: EventCount) -> int:
    return row.failed


def _syscalls(read: Read) -> Callable[[Report], Iterable[Sample]]:
    def samples(report: Report) -> Iterator[Sample]:
        if report.events is None:
            return
        always = _SYSCALLS if report.process.cgo is False else _SYSCALLS + _SYSCALLS_OF_C
        for name in (*_SYSCALLS, *_SYSCALLS_OF_C, "process_madvise"):
            if name in always or name in report.events:
                yield (name, ""), read(report.events.get(name, NOTHING))
        if report.madvise is None:
            yield ("madvise", ""), read(report.events.get("madvise", NOTHING))
        for advice, row in counted(report.madvise, _USUAL_ADVICE):
            yield ("madvise", advice), read(row)

    return samples


def _transitions(read: Read) -> Callable[[Report], Iterable[Sample]]:
    def samples(report: Report) -> Iterator[Sample]:
        if report.transitions is None:
            return
        sums = {event: 0 for event in _TRANSITIONS}
        for row in report.transitions:
            if row.event in sums:
                sums[row.event] += read(EventCount(row.count, row.bytes))
        seen = {probe.role for probe in report.overhead.probes}
        for event, value in sums.items():
            if value or (event in seen and event not in _RARE):
                yield (*_TRANSITIONS[event], event), value

    return samples


def _growth(read: Read) -> Callable[[Report], Iterable[Sample]]:
    def samples(report: Report) -> Iterator[Sample]:
        seen = {probe.role for probe in report.overhead.probes}
        events = report.events
        for role in _ROLES if events is not None else ():
            if events is not None and (role in events or role in seen):
                yield (role,), read(events.get(role, NOTHING))

    return samples


def _scavenged(read: Read) -> Callable[[Report], Iterable[Sample]]:
    def samples(report: Report) -> Iterator[Sample]:
        for source, row in counted(report.scavenged_by, _SOURCES):
            yield (_SPELT.get(source, source),), read(row)

    return samples


_CALL = ("syscall", "advice")
_TRANSITION = ("from", "to", "event")

METRICS: tuple[ProcessMetric, ...] = (
    of_report(
        "gomem_memory_syscalls_total",
        "Successful system calls that change the address space, madvise by its advice; a high rate costs CPU in the "
        "kernel and blocks other threads on the address space's lock.",
        _syscalls(_count),
        _CALL,
    ),
    of_report(
        "gomem_memory_syscall_bytes_total",
        "Bytes of address space that successful system calls acted on; high for dontneed and mmap together means that "
        "memory goes back and forth between the process and the kernel.",
        _syscalls(_bytes),
        _CALL,
    ),
    of_report(
        "gomem_memory_syscall_failures_total",
        "System calls on the address space that failed; ENOMEM from mmap ends a Go program.",
        _syscalls(_failed),
        _CALL,
    ),
    of_report(
        "gomem_transitions_total",
        "Changes of a region's state by the runtime's own functions (event: reserve, map, used, unused, fault, alloc, "
        "free); used is counted while its probe is within serve's --budget.",
        _transitions(_count),
        _TRANSITION,
    ),
    of_report(
        "gomem_transition_bytes_total",
        "Bytes that changed state; high for both unused and used means that the scavenger gives back what is soon "
        "needed again.",
        _transitions(_bytes),
        _TRANSITION,
    ),
    of_report(
        "gomem_heap_growths_total",
        "Times that the heap took more address space (grow) or a new arena; after warm-up a rising value means a heap "
        "that still grows.",
        _growth(_count),
        ("event",),
    ),
    of_report(
        "gomem_heap_growth_bytes_total",
        "Bytes by which the heap took more address space (grow) or new arenas.",
        _growth(_bytes),
        ("event",),
    ),
    of_report(
        "gomem_scavenges_total",
        "Returns of heap memory to the kernel, by who asked: the background scavenger, an allocation under the memory "
        "limit or the heap goal, or debug.FreeOSMemory.",
        _scavenged(_count),
        ("source",),
    ),
    of_report(
        "gomem_scavenged_bytes_total",
        "Heap memory returned to the kernel, by who asked; a high rate for allocation means that the program itself "
        "pays for it at its memory limit.",
        _scavenged(_bytes),
        ("source",),
    ),
)
