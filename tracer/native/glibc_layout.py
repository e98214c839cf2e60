"""Where glibc's malloc keeps what it knows, as data: struct malloc_state, heap_info and malloc_par of 64-bit systems.

Source: malloc/malloc.c and malloc/arena.c of the releases named. No release is asked for: of these layouts the one is
taken that the memory itself proves.
"""

from __future__ import annotations

from msgspec import Struct

WORD = 8
# Bins 1 to NBINS - 1 are pairs of pointers; an empty one points at its own header, a chunk whose fd it would be. The
# last bin is never used.
BINS = 127
LAST_BIN = (BINS - 1) * 2 * WORD
BEFORE_FD = 2 * WORD
# Behind the bins, from their beginning: after 128 bits of binmap.
NEXT, ATTACHED, SYSTEM = 256 * WORD, 258 * WORD, 259 * WORD
BEHIND_BINS = 261 * WORD
# struct malloc_chunk.
CHUNK_FD, CHUNK_STRUCT = 2 * WORD, 6 * WORD
CHUNK_FLAGS, LEAST_CHUNK, CHUNK_ALIGNED = 7, 4 * WORD, 2 * WORD
# HEAP_MAX_SIZE: heaps of all arenas but the main one are so aligned, and begin with heap_info, whose first word is the
# arena; the arena of the first heap stands right behind it.
ARENA_HEAP = 64 << 20
HEAP_INFO, MOST_HEAP_INFO = 32, 64


class StateLayout(Struct, frozen=True):
    """Offsets in struct malloc_state; fast bin i holds chunks of (i + 2) * 16 bytes."""

    releases: str
    fast: int
    fast_bins: int
    top: int
    bins: int


STATES = (
    StateLayout("2.27 to 2.42", fast=16, fast_bins=10, top=96, bins=112),
    StateLayout("2.43", fast=8, fast_bins=0, top=8, bins=24),
)


class ParameterLayout(Struct, frozen=True):
    """Offsets in struct malloc_par (`mp_`): of n_mmaps, an int as the two behind it are, mmapped_mem and sbrk_base."""

    releases: str
    count: int
    mapped: int
    sbrk_base: int

    @property
    def count_max(self) -> int:
        """Return where n_mmaps_max is."""
        return self.count + 4

    @property
    def most(self) -> int:
        """Return where max_n_mmaps is."""
        return self.count + 8

    @property
    def size(self) -> int:
        """Return how much of the struct is read."""
        return self.sbrk_base + WORD


PARAMETERS = (
    ParameterLayout("2.27 to 2.34", count=40, mapped=56, sbrk_base=72),
    ParameterLayout("2.35 to 2.42", count=60, mapped=80, sbrk_base=96),
    ParameterLayout("2.43", count=68, mapped=88, sbrk_base=104),
)
TOP_PAD, MMAP_THRESHOLD = WORD, 2 * WORD
# mp_ as it is linked in: DEFAULT_TOP_PAD, DEFAULT_MMAP_MAX.
DEFAULT_TOP_PAD, DEFAULT_MMAP_MAX = 128 << 10, 65536
