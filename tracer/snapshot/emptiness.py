"""What a huge page brings along: how much of the largest objects is in RAM and has nothing in it.

A huge page of 2 MiB is in RAM as a whole as soon as one byte of it is written. Some OS pages of it, taken at random,
are looked at: what is all zeros was never written, or cleared. Nothing of what they hold is kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, intersect
from gomem.tracer.errors import SnapshotError
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.process.memory import OS_PAGE, Memory
from gomem.tracer.runtime.large_spans import LargeSpan

HUGE_PAGE = 2 << 20
# Off by 6 % of the object at the most, in two of three cases; some 2 microseconds each.
SAMPLES = 64
_LEAST = 8 * HUGE_PAGE  # in an object: less is not worth a look


def with_zeros(spans: Sequence[LargeSpan], residency: Residency, memory: Memory) -> list[LargeSpan]:
    """Return large objects with what samples of their OS pages in huge pages have in them. Raises TargetGone."""
    if not residency.tells_huge_pages:
        return list(spans)
    huge = residency.huge()
    return [_sampled(span, huge, memory) for span in spans]


def _sampled(span: LargeSpan, huge: Ranges, memory: Memory) -> LargeSpan:
    whole = Ranges(np.array([span.start], np.uint64), np.array([span.start + span.size], np.uint64))
    found = intersect(huge, whole)
    if int(found.sizes().sum()) < _LEAST:
        return span
    sampled = zeros = 0
    for address in _pages(found).tolist():
        try:
            zeros += not any(memory.read(address, OS_PAGE))
        except SnapshotError:
            continue  # it was freed meanwhile
        sampled += 1
    return replace(span, sampled=sampled, zeros=zeros)


def _pages(ranges: Ranges) -> NDArray[np.uint64]:
    """Return the addresses of OS pages in `ranges`: one at random in each of SAMPLES equal parts of them."""
    pages = ranges.sizes().astype(np.int64) // OS_PAGE
    total = int(pages.sum())
    edges = np.linspace(0, total, SAMPLES + 1).astype(np.int64)
    random = np.frombuffer(os.urandom(8 * SAMPLES), np.uint64)  # numpy.random takes 6 ms to import
    chosen = edges[:-1] + (random % np.diff(edges).astype(np.uint64)).astype(np.int64)
    before = np.cumsum(pages) - pages
    at = np.searchsorted(before, chosen, side="right") - 1
    return ranges.start[at] + ((chosen - before[at]) * OS_PAGE).astype(np.uint64)
