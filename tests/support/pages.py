"""Pages by what the kernel says of them."""

from __future__ import annotations

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.kernel.residency import Page, Residency

_NOTHING = Page(0)


def having(found: Residency, wanted: Page, without: Page = _NOTHING) -> Ranges:
    """Return the ranges whose pages have all the bits of `wanted` and none of `without`."""
    keep = (found.flags & wanted == wanted) & (found.flags & without == 0)
    return Ranges(found.ranges.start[keep], found.ranges.end[keep])
