"""Runs of free heap pages: what the page allocator can give to a span that needs so many pages in a row.

Source: pageAlloc.alloc and find in runtime/mpagealloc.go, pageCache in runtime/mpagecache.go (Go 1.14 and later); spans
that are free in mheap.free before that.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.runtime.pages import CHUNK_BYTES, CHUNK_PAGES, Chunks, HeapPages, PageState


class FreeRuns(Struct, frozen=True):
    """Runs of pages that are free, scavenged or not, by powers of two of their length; shape (n,) each.

    Class i has the runs of 2**i to 2**(i + 1) - 1 pages. `longest`: pages of the longest run. `cached`: pages that Ps
    took aside (page caches); they are free, but in no run: only their P can use them, for spans of few pages.
    `padding`: pages that count as released and are never used (Go 1.26 and later, markRandomPaddingPages).
    """

    runs: NDArray[np.int64]
    pages: NDArray[np.int64]
    longest: int
    cached: int
    padding: int


def free_runs(pages: HeapPages, chunks: Chunks | None, cached: int) -> FreeRuns:
    """Return the runs of free pages; `chunks` None: of a release without page bitmaps."""
    free = _free(pages, chunks)
    padding = max(int(np.count_nonzero(_idle(pages))) - int(np.count_nonzero(free)) - cached, 0)
    return _classes(_lengths(free, pages.chunk_base), cached, padding)


def _free(pages: HeapPages, chunks: Chunks | None) -> NDArray[np.bool_]:
    """Tell of each page whether the allocator may take it: the bitmaps have page caches and padding as allocated."""
    if chunks is None:
        return _idle(pages)
    octets = np.ascontiguousarray(chunks.allocated).view(np.uint8).reshape(-1)
    return ~np.unpackbits(octets, bitorder="little").astype(np.bool_)


def _idle(pages: HeapPages) -> NDArray[np.bool_]:
    free: NDArray[np.bool_] = (pages.state == PageState.FREE) | (pages.state == PageState.SCAVENGED)
    return free


def _lengths(free: NDArray[np.bool_], chunk_base: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the length of each run of free pages, in pages; a run does not go on over a gap between chunks."""
    if not free.size:
        return np.zeros(0, np.int64)
    change = free[1:] != free[:-1]
    border = np.arange(CHUNK_PAGES, free.size, CHUNK_PAGES)
    change[border - 1] |= chunk_base[1:] != chunk_base[:-1] + np.uint64(CHUNK_BYTES)
    first = np.concatenate(([0], np.flatnonzero(change) + 1))
    length = np.diff(np.append(first, free.size))
    return length[free[first]].astype(np.int64)


def _classes(length: NDArray[np.int64], cached: int, padding: int) -> FreeRuns:
    # frexp gives the exponent itself: no rounding as with log2.
    power = np.frexp(length.astype(np.float64))[1] - 1
    count = int(power.max(initial=-1)) + 1
    return FreeRuns(
        np.bincount(power, minlength=count).astype(np.int64),
        np.bincount(power, weights=length, minlength=count).astype(np.int64),
        int(length.max(initial=0)),
        cached,
        padding,
    )
