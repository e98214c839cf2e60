"""What the runtime needs for itself: its regions summed up by what they are for, and how much of each is in RAM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gomem.tracer.kernel.residency import Residency
from gomem.tracer.report import MetadataRow
from gomem.tracer.runtime.regions import Region


def metadata_rows(regions: Sequence[Region], residency: Residency) -> list[MetadataRow]:
    """Return a row for each purpose but the heap itself, in whole OS pages, largest residency first."""
    others = [region for region in regions if region.kind != "heap_arena"]
    starts = np.array([region.start for region in others], np.uint64)
    ends = np.array([region.end for region in others], np.uint64)
    resident = residency.rss_in(starts, ends).tolist()
    sums: dict[tuple[str, str], tuple[int, int, int]] = {}
    for region, in_ram in zip(others, resident, strict=True):
        ranges, virtual, total = sums.get((region.what, region.kind), (0, 0, 0))
        sums[region.what, region.kind] = ranges + 1, virtual + region.end - region.start, total + in_ram
    rows = [MetadataRow(what, kind, *sum_) for (what, kind), sum_ in sums.items()]
    return sorted(rows, key=lambda row: (-row.resident, -row.virtual, row.what))
