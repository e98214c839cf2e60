"""Which slots of spans hold objects, read for those that are neither empty nor full.

A slot is free if no object was in it at the last sweep (allocBits) and none has been put there since: objects are
allocated in order of address, up to freeindex. Source: isFree and nextFreeIndex in runtime/mbitmap.go and mheap.go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words
from gomem.tracer.runtime.spans import IN_USE, Spans, read_blocks, read_span_columns

MOST_SLOTS = 1 << 23  # what is beyond is not read
_WORD_BITS = 64


@dataclass(frozen=True, slots=True)
class Slots:
    """`first` has for each span, shape (n,), where its slots begin in `used`; -1 where they are not known.

    `used`: whether a slot holds an object, one value for each slot of the spans that are known.
    """

    first: NDArray[np.int64]
    used: NDArray[np.bool_]


def read_slots(memory: Memory, layout: Layout, spans: Spans) -> Slots:
    """Read the slots of spans that were read a moment ago; those that have changed meanwhile are not known.

    Raises SnapshotError, LayoutError, TargetGone.
    """
    first = np.full(spans.address.size, -1, np.int64)
    partly = spans.with_state(IN_USE) & (spans.objects > 0) & (spans.objects < spans.capacity)
    some = np.flatnonzero(partly)
    some = some[np.cumsum(spans.capacity[some].astype(np.int64)) <= MOST_SLOTS]
    columns = read_span_columns(memory, layout, spans.address[some], ("start", "objects", "alloc_bits", "free_index"))
    same = (columns["start"] == spans.start[some]) & (columns["objects"] == spans.objects[some])
    same &= (columns["alloc_bits"] != 0) & (columns["alloc_bits"] % np.uint64(8) == 0)
    some = some[same]
    bits, index = columns["alloc_bits"][same], columns["free_index"][same].astype(np.int64)
    words = (spans.capacity[some].astype(np.int64) + _WORD_BITS - 1) // _WORD_BITS
    parts, at = [np.zeros(0, np.bool_)], 0
    for count in np.unique(words).tolist():
        rows = np.flatnonzero(words == count)
        rows = rows[np.argsort(bits[rows], kind="stable")]
        used = _used(memory, bits[rows], count, index[rows])
        capacity = spans.capacity[some[rows]].astype(np.int64)
        inside = np.arange(used.shape[1]) < capacity[:, None]
        agrees = np.count_nonzero(used & inside, axis=1) == spans.objects[some[rows]]
        kept = np.flatnonzero(agrees)
        first[some[rows[kept]]] = at + np.cumsum(capacity[kept]) - capacity[kept]
        parts.append(used[kept][inside[kept]])
        at += len(parts[-1])
    return Slots(first, np.concatenate(parts))


def _used(memory: Memory, bits: Words, words: int, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which slots are used by bitmaps of so many words at ascending addresses, shape (n, 64 * words)."""
    read, position = read_blocks(memory, bits, words * 8)
    rows = read[position[:, None] + np.arange(words)]
    octets = np.ascontiguousarray(rows).view(np.uint8)
    marked = np.unpackbits(octets, axis=1, bitorder="little").astype(np.bool_)
    filled: NDArray[np.bool_] = marked | (np.arange(words * _WORD_BITS) < index[:, None])
    return filled
