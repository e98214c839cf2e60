"""What waits to be run is what all blocks hold, and what the Ps queued; what lies is an error."""

from __future__ import annotations

import pytest

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.report import FixallocRow, QueuedCalls
from gomem.tracer.runtime.finalizers import read_queued, specials
from tests.support.runtime_image import RuntimeImage


def blocks(runtime: RuntimeImage, *counts: int) -> list[int]:
    """Give the runtime blocks of finalizers with these counts."""
    struct = "finBlock" if runtime.layout.has_struct("finBlock") else "finblock"
    made = [runtime.room(runtime.layout.size(struct)) for _ in counts]
    for at, following, count in zip(made, [*made[1:], 0], counts, strict=True):
        runtime.set(struct, at, "alllink", following)
        runtime.set(struct, at, "cnt", count)
    runtime.image.words(runtime.globals["allfin"], made[0])
    return made


def queued(runtime: RuntimeImage) -> QueuedCalls:
    runtime.finish()
    return read_queued(runtime.image, runtime.layout, runtime.globals)


@pytest.mark.parametrize("release", ["1.19.8", "1.24.11", "1.27.3"])
def test_finalizers_of_all_blocks_wait(release: str) -> None:
    runtime = RuntimeImage(release)
    blocks(runtime, 3, 0, 101)
    assert queued(runtime) == QueuedCalls(104, None)


def test_cleanups_that_ps_queued_and_nobody_ran_wait() -> None:
    runtime = RuntimeImage("1.27.3")
    blocks(runtime, 0)
    runtime.globals["gcCleanups"] = at = runtime.room(runtime.layout.size("cleanupQueue"))
    runtime.set("cleanupQueue", at, "queued", 5)
    runtime.set("cleanupQueue", at, "executed", 40)
    runtime.set("cleanupQueue", at, "all", runtime.room(64))
    for count in (30, 12):
        runtime.set("p", runtime.p(), "cleanupsQueued", count)
    assert queued(runtime) == QueuedCalls(0, 7)
    runtime.set("cleanupQueue", at, "queued", 1 << 60)
    with pytest.raises(SnapshotError):
        queued(runtime)
    runtime.set("cleanupQueue", at, "queued", 5)
    runtime.set("cleanupQueue", at, "all", 0)
    with pytest.raises(SnapshotError):  # there is no block in which they could wait
        queued(runtime)


def test_blocks_that_lie_are_an_error() -> None:
    runtime = RuntimeImage("1.27.3")
    first, second = blocks(runtime, 3, 4)
    runtime.set("finBlock", second, "alllink", first)
    with pytest.raises(SnapshotError, match="does not end"):
        queued(runtime)
    runtime.set("finBlock", first, "cnt", 5000)
    with pytest.raises(SnapshotError, match="claims 5000"):
        queued(runtime)


def test_a_program_in_which_the_queue_was_not_found_says_so() -> None:
    runtime = RuntimeImage("1.27.3")
    del runtime.globals["allfin"]
    with pytest.raises(LayoutError):
        queued(runtime)


def test_specials_are_counted_by_their_allocators() -> None:
    rows = [FixallocRow("specialfinalizeralloc", 56, 560), FixallocRow("specialCleanupAlloc", 0, 0),
            FixallocRow("spanalloc", 160, 1600)]  # fmt: skip
    assert specials(rows) == {"finalizers": 10, "cleanups": 0}
