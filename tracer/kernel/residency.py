"""Residency: what of an address space is in RAM, as the kernel counts RSS. Pure data, read by `pagemap`."""

from __future__ import annotations

from enum import IntFlag
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from gomem.tracer.addresses.ranges import Addresses, Ranges, addresses, bytes_in, split
from gomem.tracer.kernel.maps import Mappings

Method = Literal["pagemap_scan", "pagemap", "smaps"]
# Special mappings whose pages are data of the kernel, mapped by frame number: present, but in nobody's RSS. Of
# Linux 7.2 some are pages like those of a file, and in RSS.
_KERNEL_DATA = ("[vvar]", "[vvar_vclock]", "[vsyscall]")


class Page(IntFlag):
    """What is true of every OS page of a range."""

    PRESENT = 1
    SWAPPED = 2  # in swap, or on its way
    FILE = 4  # of a file or of shared memory, not anonymous
    HUGE = 8  # mapped by a huge page (only PAGEMAP_SCAN can tell)
    ZERO = 16  # the kernel's one zero page: read but never written
    HUGETLB = 32  # reserved huge pages, which the kernel keeps out of RSS
    SPECIAL = 64  # page frames that are no ordinary memory: [vvar], device memory


_OUT_OF_RSS = Page.ZERO | Page.HUGETLB | Page.SPECIAL


class Residency(Struct, frozen=True):
    """Ranges of OS pages that are in RAM or in swap: sorted, disjoint, none across a mapping's border.

    `flags` holds the `Page` bits of each range, `rss` and `swap` its bytes in RAM (as RSS counts them: no zero
    page, no hugetlb, no [vvar]) and in swap, all of shape (n,). With method "smaps" a range is a whole mapping of
    which only these sums are known; then `exact` is false, and `rss_in` of a part of a mapping is an estimate.
    `unmapped_bytes` were resident at addresses where the mappings, read a moment before, had nothing.
    """

    ranges: Ranges
    flags: NDArray[np.uint8]
    rss: NDArray[np.uint64]
    swap: NDArray[np.uint64]
    method: Method
    exact: bool
    unmapped_bytes: int = 0
    denied: bool = False  # with method "smaps": because the kernel does not let us read the others

    @property
    def rss_bytes(self) -> int:
        """Bytes in RAM: the kernel's Rss."""
        return int(np.sum(self.rss))

    def resident(self) -> Ranges:
        """Return the ranges that count as RSS; with method "smaps", mappings that have any."""
        return self.only(self.rss > 0)

    def rss_in(self, starts: ArrayLike, ends: ArrayLike) -> NDArray[np.uint64]:
        """Return the RSS bytes of each address range [starts[i], ends[i]), in any order."""
        return self._weighed(self.rss, starts, ends)

    def swap_in(self, starts: ArrayLike, ends: ArrayLike) -> NDArray[np.uint64]:
        """Return the swapped bytes of each address range [starts[i], ends[i]), in any order."""
        return self._weighed(self.swap, starts, ends)

    def file_in(self, starts: ArrayLike, ends: ArrayLike) -> NDArray[np.uint64]:
        """Return the RSS bytes of each address range that are of files or shared memory, not anonymous.

        Not known with method "smaps".
        """
        return bytes_in(self.only((self.rss > 0) & (self.flags & Page.FILE != 0)), starts, ends)

    @property
    def tells_huge_pages(self) -> bool:
        """Tell whether it is known which ranges are in huge pages."""
        return self.method == "pagemap_scan"

    def huge(self) -> Ranges:
        """Return the ranges that are in RAM in huge pages of anonymous memory, as far as that is known."""
        return self.only((self.rss > 0) & (self.flags & (Page.HUGE | Page.FILE) == Page.HUGE))

    def only(self, keep: NDArray[np.bool_]) -> Ranges:
        """Return the ranges where `keep` (shape (n,)) is true."""
        return Ranges(self.ranges.start[keep], self.ranges.end[keep])

    def _weighed(self, weight: NDArray[np.uint64], starts: ArrayLike, ends: ArrayLike) -> NDArray[np.uint64]:
        if self.method != "smaps":
            return bytes_in(self.only(weight > 0), starts, ends)
        first, last = addresses(starts), addresses(ends)
        return _share_below(self.ranges, weight, np.maximum(first, last)) - _share_below(self.ranges, weight, first)


def _share_below(ranges: Ranges, weight: NDArray[np.uint64], points: Addresses) -> NDArray[np.uint64]:
    # Rounded sums from the bottom up, so that the parts of a mapping add up to the whole to the byte.
    if len(ranges) == 0:
        return np.zeros(len(points), dtype=np.uint64)
    before = np.cumsum(weight, dtype=np.uint64) - weight
    index = np.maximum(np.searchsorted(ranges.start, points, side="right") - 1, 0)
    start, end = ranges.start[index], ranges.end[index]
    inside = np.minimum(np.maximum(points, start), end) - start
    share = weight[index].astype(np.float64) * inside.astype(np.float64) / (end - start).astype(np.float64)
    return before[index] + np.rint(share).astype(np.uint64)


def classify(
    found: Ranges, flags: NDArray[np.uint8], mappings: Mappings, hugetlb: Ranges, method: Method, exact: bool
) -> Residency:
    """Join ranges of equal pages, as the page tables have them, with the mappings that say which count as RSS.

    `hugetlb` are the mappings of reserved huge pages. Ranges outside all mappings are dropped and counted.
    """
    borders = np.concatenate((mappings.start, mappings.end, hugetlb.start, hugetlb.end))
    pieces, origin = split(found, borders)
    bits = flags[origin].copy()
    index = mappings.find(pieces.start)
    known = index >= 0
    unmapped = int(np.sum(pieces.sizes()[~known & (bits & Page.PRESENT != 0)]))
    pieces = Ranges(pieces.start[known], pieces.end[known])
    bits, index = bits[known], index[known]

    reserved = bytes_in(hugetlb, pieces.start, pieces.end) > 0
    bits[reserved] |= np.uint8(Page.HUGETLB)
    kernel_data = np.array([name in _KERNEL_DATA for name in mappings.name], dtype=np.bool_)
    # A shared mapping holds pages of a file or of shared memory; any other frame in it is a device's.
    foreign = (kernel_data | mappings.shared)[index] & (bits & Page.FILE == 0) & (bits & Page.PRESENT != 0)
    bits[foreign & ~reserved] |= np.uint8(Page.SPECIAL)

    zero = np.uint64(0)
    counted = (bits & Page.PRESENT != 0) & (bits & _OUT_OF_RSS == 0)
    return Residency(
        ranges=pieces,
        flags=bits,
        rss=np.where(counted, pieces.sizes(), zero),
        swap=np.where(bits & Page.SWAPPED != 0, pieces.sizes(), zero),
        method=method,
        exact=exact,
        unmapped_bytes=unmapped,
    )
