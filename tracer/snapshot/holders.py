"""Who and what holds the heap: its largest objects, and how its free pages lie. Pure."""

from __future__ import annotations

import numpy as np

from gomem.tracer.addresses.ranges import bytes_in
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.report import FreeRunRow, FreeRuns, InUse, LargeObject, LargeObjects
from gomem.tracer.runtime.large_spans import LargeSpan, large_spans
from gomem.tracer.runtime.pages import PAGE, PageState
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import IN_USE
from gomem.tracer.snapshot.join import AddressSpace


def large_objects(runtime: RuntimeSnapshot, residency: Residency) -> LargeObjects | None:
    """Return the objects of more than 32 KB; None of recordings from before they were read."""
    if runtime.largest is None:
        return None
    spans = runtime.spans
    mask = large_spans(spans)
    start, size = spans.start[mask], spans.pages[mask].astype(np.uint64) * np.uint64(PAGE)
    return LargeObjects(
        count=int(np.count_nonzero(mask)),
        size=int(size.sum()),
        resident=int(residency.rss_in(start, start + size).sum()),
        types_recorded=runtime.types_recorded,
        largest=[_row(one, residency) for one in runtime.largest],
    )


def _row(span: LargeSpan, residency: Residency) -> LargeObject:
    start, end = [span.start], [span.start + span.size]
    return LargeObject(
        address=span.start,
        size=span.size,
        resident=int(residency.rss_in(start, end)[0]),
        swap=int(residency.swap_in(start, end)[0]),
        noscan=span.noscan,
        type=span.type_name,
        count=span.size // span.type_size if span.type_size else None,
        function=span.function,
        file=span.file or None,
        line=span.line or None,
        huge=_huge(span, residency),
        zero_share=span.zeros / span.sampled if span.sampled else None,
    )


def _huge(span: LargeSpan, residency: Residency) -> int | None:
    if not residency.tells_huge_pages:
        return None
    return int(bytes_in(residency.huge(), [span.start], [span.start + span.size])[0])


def in_use(runtime: RuntimeSnapshot, space: AddressSpace, residency: Residency) -> InUse:
    """Return what of the pages in use costs RAM."""
    mask = space.page == PageState.IN_USE
    size, resident, swap = (int(column[mask].sum()) for column in (space.size, space.resident, space.swap))
    huge = zeros = None
    if residency.tells_huge_pages:
        huge = int(bytes_in(residency.huge(), space.start[mask], space.end[mask]).sum())
        sampled = [(one, _huge(one, residency)) for one in runtime.largest or () if one.sampled]
        zeros = round(sum((held or 0) * one.zeros / one.sampled for one, held in sampled))
    return InUse(size, resident, swap, max(size - resident - swap, 0), huge, zeros)


def free_runs(runtime: RuntimeSnapshot) -> FreeRuns | None:
    """Return how the free pages lie, and what is in use that fits into no run; None of older recordings."""
    found = runtime.free_runs
    if found is None:
        return None
    spans = runtime.spans
    pages = spans.pages[spans.with_state(IN_USE) & (spans.pages > found.longest)].astype(np.int64)
    runs, sizes = found.runs.tolist(), (found.pages * PAGE).tolist()
    return FreeRuns(
        size=sum(sizes),
        runs=sum(runs),
        longest=found.longest * PAGE,
        page_caches=found.cached * PAGE,
        padding=found.padding * PAGE,
        too_large=len(pages),
        too_large_size=int(pages.sum()) * PAGE,
        smallest_too_large=int(pages.min()) * PAGE if len(pages) else None,
        by_length=[
            FreeRunRow(PAGE << power, count, size, sum(sizes[:power]))
            for power, (count, size) in enumerate(zip(runs, sizes, strict=True))
            if count
        ],
    )
