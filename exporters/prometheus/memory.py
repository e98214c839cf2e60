"""A process's address space and what of it is in RAM: by kind, by the runtime's state, and in sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gomem.exporters.prometheus.metric import ProcessMetric, Sample, Value, every, figure, of_report
from gomem.tracer.report import KindRow, Report, Resident

# Only these hold memory that the runtime manages; for the others, three more series each would always be 0.
_MANAGED = frozenset({"heap_arena", "heap_metadata", "page_summary", "runtime_other"})


def _virtual(report: Report) -> Iterator[Sample]:
    known = report.virtual is not None and report.virtual.reserved is not None
    for row in report.kinds or ():
        if known:
            yield from _by_state(row)
        else:
            yield (row.kind, "unknown"), row.virtual


def _by_state(row: KindRow) -> Iterator[Sample]:
    managed = row.kind in _MANAGED
    for state, size in (("reserved", row.reserved), ("prepared", row.prepared), ("ready", row.ready)):
        if managed or size:
            yield (row.kind, state), size
    unmanaged = row.virtual - row.reserved - row.prepared - row.ready
    if unmanaged or not managed:
        yield (row.kind, "unmanaged"), unmanaged


def _resident(report: Report) -> Iterator[Sample]:
    for row in report.kinds or ():
        if row.resident is not None:
            yield (row.kind,), row.resident


def _swap(report: Report) -> Iterator[Sample]:
    for row in report.kinds or ():
        if row.swap is not None:
            yield (row.kind,), row.swap


def _c_heap(report: Report) -> Iterator[Sample]:
    heap = report.c_heap
    for state in ("in_use", "free", "mapped"):
        size = getattr(heap, state, None)
        if size is not None:
            yield (state,), size


def _not_the_heap(labels: tuple[str, ...]) -> bool:
    return labels[0] != "heap_arena"


def _mappings(report: Report) -> Iterator[Sample]:
    for row in report.kinds or ():
        yield (row.kind,), row.mappings


def _smaps(read: Callable[[Resident], Value | None]) -> Callable[[Report], Value | None]:
    return lambda report: None if report.resident is None else read(report.resident)


# Those of the whole machine are no property of a process.
_OF_PROCESS = frozenset({"RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_MEMLOCK", "vm.max_map_count", "RLIMIT_NPROC", "pids.max"})


def _limits(report: Report) -> Iterator[Sample]:
    for bound in report.bounds or ():
        if bound.name in _OF_PROCESS and bound.limit and bound.used is not None:
            yield (bound.name,), bound.used / bound.limit


METRICS: tuple[ProcessMetric, ...] = (
    of_report(
        "gomem_virtual_bytes",
        "Address space by kind of mapping and by the Go runtime's state of it; a high value of reserved or "
        "prepared is harmless, as hardly any of it is in RAM, unless RLIMIT_AS is set; the sum is VSZ.",
        _virtual,
        ("kind", "state"),
        _not_the_heap,
    ),
    of_report(
        "gomem_resident_bytes",
        "RAM by kind of mapping; the kind that is high is where to look; the sum is RSS.",
        _resident,
        ("kind",),
        _not_the_heap,
    ),
    of_report(
        "gomem_swap_bytes",
        "Swapped out memory by kind of mapping; heap in swap makes every collection slow.",
        _swap,
        ("kind",),
        every,
    ),
    of_report(
        "gomem_mappings",
        "Mappings by kind; the kernel refuses new ones when a process has vm.max_map_count of them (65530 by default).",
        _mappings,
        ("kind",),
    ),
    of_report(
        "gomem_c_heap_bytes",
        "What glibc's malloc has in use, has free, and has mapped alone, which is in use, too; free that "
        "stays high is memory that C code gave back and malloc keeps.",
        _c_heap,
        ("state",),
        every,
    ),
    figure(
        "gomem_c_heap_free_resident_bytes",
        "Memory in RAM that C code has freed and malloc keeps; malloc_trim(0) or fewer arenas (MALLOC_ARENA_MAX) bring "
        "it down.",
        lambda report: None if report.c_heap is None else report.c_heap.free_resident,
        every,
    ),
    of_report(
        "gomem_process_limit_used_ratio",
        "How much of a limit beside RAM is used, of those that hold for the process; near 1 calls for memory or for "
        "threads fail, which Go programs do not survive.",
        _limits,
        ("limit",),
        every,
    ),
    figure(
        "gomem_process_virtual_bytes",
        "Address space of the process (VSZ); high values are normal for Go, which reserves far more than it uses.",
        lambda report: None if report.virtual is None else report.virtual.total,
    ),
    figure(
        "gomem_process_resident_bytes",
        "RAM of the process (RSS), pages shared with others and lazily freed ones included.",
        _smaps(lambda resident: resident.total),
    ),
    figure(
        "gomem_process_anonymous_bytes",
        "Resident memory that no file backs (heap, stacks, C heap): it can only go to swap, so this is what fills RAM.",
        _smaps(lambda resident: resident.anonymous),
    ),
    figure(
        "gomem_process_file_bytes",
        "Resident pages of mapped files, such as the program itself; the kernel drops them when it needs RAM, changed "
        "ones after writing them.",
        _smaps(lambda resident: resident.file),
    ),
    figure(
        "gomem_process_shmem_bytes",
        "Resident shared memory; it stays until the last process lets go of it.",
        _smaps(lambda resident: resident.shmem),
        every,
    ),
    figure(
        "gomem_process_pss_bytes",
        "RAM with each shared page divided among the processes that share it; the one that may be added up over "
        "processes.",
        _smaps(lambda resident: resident.pss),
    ),
    figure(
        "gomem_process_swap_bytes",
        "Memory of the process in swap; anything but 0 makes garbage collections wait for the disk.",
        _smaps(lambda resident: resident.swap),
        every,
    ),
    figure(
        "gomem_process_lazily_freed_bytes",
        "Memory given back with MADV_FREE that RSS still counts; the kernel takes it as soon as it needs RAM, so a "
        "high value means that RSS overstates.",
        _smaps(lambda resident: resident.lazy_free),
        every,
    ),
    figure(
        "gomem_process_huge_page_bytes",
        "Resident memory in transparent huge pages; a high value with little heap in use means that huge pages hold "
        "what the runtime has given back.",
        _smaps(lambda resident: resident.huge_pages),
        every,
    ),
)
