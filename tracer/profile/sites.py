"""Objects in RAM by the call that allocated them, as far as the runtime's heap profile tells. Pure.

The heap profile samples allocations and scales them: what it says that the objects of a call take is an estimate. It
also says how large each of them is. So they are held against the slots of that size, which are counted: the objects of
a call get the same share of RAM as all in slots of that size, and all calls together never get more than there is.
Where the profile tells of less than there is, the rest is of no call that is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.profile.slots import Integers, Sizes

_MOST = 1 << 52  # bytes of a site: more than there is address space, and exact as a float


@dataclass(frozen=True, slots=True)
class Sites:
    """The buckets of a heap profile, shape (n,) each; the last two are estimated bytes.

    `published` was in use at the collection that the published profile is of; `active` is what is in use now, with all
    that was allocated and freed since.
    """

    slot_size: Integers
    published: Integers
    active: Integers

    def __len__(self) -> int:
        return len(self.slot_size)


@dataclass(frozen=True, slots=True)
class Attributed:
    """Objects by site: those that were in use at that collection, and later ones; `rest` by size of slot.

    The first two have the shape (n,) of the sites, `rest` has that of the sizes. All of it sums to the objects.
    """

    earlier: Sizes
    later: Sizes
    rest: Sizes


def attribute(slot_size: Integers, objects: Sizes, sites: Sites) -> Attributed:
    """Return by site the `objects` in slots of ascending `slot_size` (shape (m,) each)."""
    if not len(slot_size):
        nothing = Sizes(*(np.zeros(len(sites), np.int64),) * 2)
        return Attributed(nothing, nothing, objects)
    weights = _weights(sites)
    found = np.zeros((2, 2, len(sites)), np.int64)  # earlier and later; virtual and resident
    order = np.argsort(sites.slot_size, kind="stable")
    low, high = (np.searchsorted(sites.slot_size[order], slot_size, side=side) for side in ("left", "right"))
    for size in np.flatnonzero(low < high).tolist():
        some = order[low[size] : high[size]]
        total = np.array((objects.virtual[size], objects.resident[size]))
        found[:, :, some] = _shares(total, weights[:, some])
    return Attributed(Sizes(*found[0]), Sizes(*found[1]), objects - _by_size(found, slot_size, sites))


def _weights(sites: Sites) -> NDArray[np.float64]:
    """Return the bytes that each site is said to have, shape (2, n): what is of earlier, and the rest."""
    active = np.clip(sites.active, 0, _MOST)
    earlier = np.clip(sites.published, 0, active)
    return np.stack((earlier, active - earlier)).astype(np.float64)


def _shares(total: Integers, weights: NDArray[np.float64]) -> Integers:
    """Return the shares of `total` (virtual, resident) that go with weights of shape (2, k), shape (2, 2, k).

    The weights are bytes of address space: if they are fewer than there are, some of the total is left.
    """
    below = np.cumsum(weights.reshape(-1))
    whole = max(float(below[-1]), float(total[0]))
    if whole == 0:
        return np.zeros((2, 2, weights.shape[1]), np.int64)
    # Rounded sums, so that shares are never negative, and all of them together are no more than the total.
    edges = np.minimum(np.rint(total[:, np.newaxis] * (below / whole)), total[:, np.newaxis]).astype(np.int64)
    shares: Integers = np.diff(edges, axis=1, prepend=0).reshape(2, 2, -1).swapaxes(0, 1)
    return shares


def _by_size(found: Integers, slot_size: Integers, sites: Sites) -> Sizes:
    """Return what the sites of each size have got; those whose size no slot has got nothing."""
    which = np.minimum(np.searchsorted(slot_size, sites.slot_size), len(slot_size) - 1)
    return Sizes(*found.sum(axis=0)).grouped(which, len(slot_size))
