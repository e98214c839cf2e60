"""What the runtime keeps beside objects, and what waits to be run when they have died.

Source: special in runtime/mheap.go (each kind has an allocator of its own, which counts), allfin in runtime/mfinal.go,
cleanupQueue in runtime/mcleanup.go (Go 1.25 and later; before, cleanups wait with the finalizers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, read_words
from gomem.tracer.report import FixallocRow, QueuedCalls
from gomem.tracer.runtime.caches import MOST_PS
from gomem.tracer.runtime.structs import read_record

# A block of 4 KB has a hundred, and is never given back: more than 1.6 million were never queued at one time.
MOST_BLOCKS = 1 << 14
MOST_QUEUED = 1 << 32
# mheap's allocators of specials by what these are for.
KINDS = {
    "finalizers": "specialfinalizeralloc",
    "cleanups": "specialCleanupAlloc",
    "weak_handles": "specialWeakHandleAlloc",
    "profile_records": "specialprofilealloc",
    "pinned": "specialPinCounterAlloc",
    "reachable": "specialReachableAlloc",
    "bubbles": "specialBubbleAlloc",
    "secrets": "specialSecretAlloc",
}


def specials(allocators: Sequence[FixallocRow]) -> dict[str, int]:
    """Return how many specials there are of each kind that the release has."""
    by_name = {row.name: row for row in allocators}
    found = {kind: by_name[name] for kind, name in KINDS.items() if name in by_name}
    return {kind: row.in_use // row.object_size if row.object_size else 0 for kind, row in found.items()}


def read_queued(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> QueuedCalls:
    """Count what waits to be run.

    Raises LayoutError where the queue could not be found, SnapshotError where it makes no sense, TargetGone.
    """
    if "allfin" not in addresses:
        raise LayoutError("the global allfin could not be found in the executable")
    cleanups = _cleanups(memory, layout, addresses) if "gcCleanups" in addresses else None
    return QueuedCalls(_finalizers(memory, layout, addresses["allfin"]), cleanups)


def _finalizers(memory: Memory, layout: Layout, allfin: int) -> int:
    """Sum the blocks that there are, also that which the finalizers' goroutine is at."""
    struct = next((name for name in ("finBlock", "finblock") if layout.has_struct(name)), "finBlock")
    most, link, count = layout.field(struct, "fin").count, *(layout.offset(struct, name) for name in ("alllink", "cnt"))
    block, found = int(read_words(memory, allfin, 1)[0]), 0
    for _ in range(MOST_BLOCKS):
        if not block:
            return found
        header = memory.read(block, max(link + 8, count + 4))
        here = int.from_bytes(header[count : count + 4], "little")
        if here > most:
            raise SnapshotError(f"a block of finalizers claims {here} of them")
        found += here
        block = int.from_bytes(header[link : link + 8], "little")
    raise SnapshotError(f"the list of blocks of finalizers does not end within {MOST_BLOCKS} elements")


def _cleanups(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> int:
    """Return what was queued, which each P counts for itself, less what was run."""
    queue = read_record(memory, layout, "cleanupQueue", addresses["gcCleanups"])
    executed = queue.number("executed")
    first, ps, _ = read_words(memory, addresses["allp"], 3).tolist()
    if ps > MOST_PS:
        raise SnapshotError(f"the runtime claims {ps} Ps")
    queued = queue.number("queued")
    for p in read_words(memory, first, ps).tolist():
        queued += int(read_words(memory, p + layout.offset("p", "cleanupsQueued"), 1)[0])
    waiting = max(queued - executed, 0)
    if waiting > MOST_QUEUED or (waiting and not queue.number("all")):  # all: the blocks in which they wait
        raise SnapshotError("the runtime's counts of cleanups make no sense")
    return waiting
