"""Which size class an allocation gets: the constants that mallocgc decides by.

Source: mallocgc in runtime/malloc.go and heapBitsInSpan in runtime/mbitmap.go (Go 1.11 to 1.27). From Go 1.22 on
objects with pointers of more than 512 bytes begin with a header of 8 bytes, and what is so close to 32 KB that it would
not fit with a header is large, with pointers or without.
"""

from __future__ import annotations

from bisect import bisect_left

from msgspec import Struct

from gomem.tracer.layout.layout import Layout

_STEP = 8  # bytes; every size class is a multiple
_LARGE = 0  # the size class of large objects


class SizeClasses(Struct, frozen=True):
    """All in bytes. `sizes`: those of the size classes, the first of which (0) is for large objects.

    `most_small`: the largest size that has a class. `most_without_header`: the largest object with pointers that has no
    malloc header; `header`: that of larger ones, 0 in releases without. `most_tiny`: what is smaller and has no
    pointers shares a block of the class `tiny_class`.
    """

    sizes: tuple[int, ...]
    most_small: int
    most_without_header: int
    header: int
    most_tiny: int
    tiny_class: int
    page: int

    @classmethod
    def of(cls, layout: Layout) -> SizeClasses:
        """Return those of a release. Raises LayoutError where they are not known."""
        most = layout.constant("max_small_size")
        header = layout.constant("malloc_header_size") if layout.has_constant("malloc_header_size") else 0
        return cls(
            sizes=layout.constants("class_to_size"),
            most_small=most - header,
            most_without_header=layout.constant("min_size_for_malloc_header") if header else most,
            header=header,
            most_tiny=layout.constant("max_tiny_size"),
            tiny_class=layout.constant("tiny_size_class"),
            page=layout.constant("page_size"),
        )

    def taken(self, size: int) -> int:
        """Return what an object with pointers takes of the heap."""
        size += self.header if size > self.most_without_header else 0
        if size > self.sizes[-1]:
            return -(-size // self.page) * self.page
        return self.sizes[bisect_left(self.sizes, size)]

    def by_size(self) -> bytes:
        """Return the size class of every size of 0, 8, 16 ... bytes that has one, a byte each: the next larger size."""
        most = self.most_small + self.header
        return bytes(bisect_left(self.sizes, size) if size else _LARGE for size in range(0, most + 1, _STEP))
