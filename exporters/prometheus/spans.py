"""Spans: how well objects fill the pages that are in use, in sum and by size class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gomem.exporters.prometheus.metric import ProcessMetric, Sample, every, figure, of_report
from gomem.tracer.report import Report, SpanClassRow

_RUNTIME_PAGE = 8192
_STATES = ("in_use", "manual", "dead", "free")


def _spans(report: Report) -> Iterator[Sample]:
    for state in _STATES:
        row = (report.span_states or {}).get(state)
        if row is not None:
            yield (state,), row.count


def _sum(read: Callable[[SpanClassRow], int]) -> Callable[[Report], int | None]:
    return lambda report: None if report.spans is None else sum(map(read, report.spans))


def free_slot_bytes(row: SpanClassRow) -> int:
    """Return the bytes of slots that hold no object."""
    return row.free_slots * row.object_size


def _by_class(read: Callable[[SpanClassRow], int]) -> Callable[[Report], Iterable[Sample]]:
    """Sum scan and noscan spans: which of the two hardly ever matters here, and the JSON report tells it."""

    def samples(report: Report) -> Iterable[Sample]:
        sums: dict[tuple[str, ...], int] = {}
        for row in report.spans or ():
            key = (str(row.size_class), str(row.object_size) if row.object_size else "large")
            sums[key] = sums.get(key, 0) + read(row)
        return sums.items()

    return samples


METRICS: tuple[ProcessMetric, ...] = (
    of_report(
        "gomem_spans",
        "Spans by state: in use by objects, manual (goroutine stacks and the collector's buffers), dead records to be "
        "used again; each costs the runtime a record of some 160 bytes.",
        _spans,
        ("state",),
        lambda labels: labels[0] not in ("in_use", "manual"),
    ),
    figure(
        "gomem_span_free_slot_bytes",
        "Slots without an object in spans that are in use; high beside the heap in use means fragmentation: one live "
        "object keeps a whole span.",
        _sum(free_slot_bytes),
    ),
    figure(
        "gomem_span_tail_waste_bytes",
        "Bytes behind the last slot of each span, which no object can ever use.",
        _sum(lambda row: row.tail_waste),
    ),
)

_CLASS = ("size_class", "object_size")

SIZE_CLASS_METRICS: tuple[ProcessMetric, ...] = (
    of_report(
        "gomem_size_class_spans",
        "Spans in use by size class; object_size is in bytes, size class 0 holds the large objects, one to a span.",
        _by_class(lambda row: row.spans),
        _CLASS,
    ),
    of_report(
        "gomem_size_class_page_bytes",
        "Heap pages of the spans of a size class; the class that is high is the size of object that fills the heap.",
        _by_class(lambda row: row.pages * _RUNTIME_PAGE),
        _CLASS,
    ),
    of_report(
        "gomem_size_class_objects",
        "Objects by size class.",
        _by_class(lambda row: row.objects),
        _CLASS,
    ),
    of_report(
        "gomem_size_class_free_slots",
        "Slots without an object by size class; many beside few objects mean that this class is fragmented.",
        _by_class(lambda row: row.free_slots),
        _CLASS,
        every,
    ),
    of_report(
        "gomem_size_class_tail_waste_bytes",
        "Bytes behind the last slot of the spans of a size class.",
        _by_class(lambda row: row.tail_waste),
        _CLASS,
        every,
    ),
)
