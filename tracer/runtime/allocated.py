"""How much has ever been allocated, by size class, as the runtime itself counts it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.runtime.counters import Counters


@dataclass(frozen=True, slots=True)
class Allocated:
    """Since the start of the program. `small` has shape (68,), by size class; `large` objects take `large_bytes`.

    The tiny allocator's blocks are small objects; `tiny` is what was put beside something else in one of them.
    """

    small: NDArray[np.int64]
    tiny: int
    large: int
    large_bytes: int

    @classmethod
    def of(cls, counters: Counters) -> Allocated:
        """Return what the counters say, with what the caches of the Ps have not told them yet."""
        stats, pending = counters.stats, counters.caches.unflushed
        return cls(
            small=stats.small_allocs + pending.small_allocs,
            tiny=stats.tiny_allocs + pending.tiny_allocs,
            large=stats.large_allocs,
            large_bytes=stats.large_alloc,
        )

    @classmethod
    def nothing(cls, classes: int) -> Allocated:
        """Return what a program has allocated before it runs."""
        return cls(np.zeros(classes, np.int64), 0, 0, 0)

    def since(self, before: Allocated) -> Allocated:
        """Return what was allocated between two moments. A figure that was read torn may go back: it counts as 0."""
        return Allocated(
            np.maximum(self.small - before.small, 0),
            max(self.tiny - before.tiny, 0),
            max(self.large - before.large, 0),
            max(self.large_bytes - before.large_bytes, 0),
        )

    def objects(self, tiny_class: int) -> NDArray[np.int64]:
        """Return the objects by size class, shape (68,): large ones at 0, tiny ones with the class of their blocks."""
        objects = self.small.copy()
        objects[0] = self.large
        objects[tiny_class] += self.tiny
        return objects
