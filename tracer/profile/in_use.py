"""What holds the pages in use of the Go heap: objects by the call that allocated them, and what is no object. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gomem.tracer.profile.holders import GO_HEAP, Holder, Path
from gomem.tracer.profile.sites import Sites, attribute
from gomem.tracer.profile.slots import Sizes, Slots
from gomem.tracer.runtime.snapshot import RuntimeSnapshot

IN_USE: Path = (GO_HEAP, "spans in use")
EARLIER, LATER = (*IN_USE, "objects in use at the last profiled collection"), (*IN_USE, "objects allocated since")
NO_SITE: Path = (*IN_USE, "objects of no sampled call")
_LARGE = "large objects"


@dataclass(frozen=True, slots=True)
class SampledCalls:
    """The heap profile: its sites, shape (n,), and the stack of each as indices of locations."""

    sites: Sites
    stacks: Sequence[tuple[int, ...]]


NO_CALLS = SampledCalls(Sites(*(np.zeros(0, np.int64),) * 3), ())


def of_spans(slots: Slots, snapshot: RuntimeSnapshot, calls: SampledCalls) -> Iterator[Holder]:
    """Yield what holds the pages in use; all of it sums to them."""
    dead = _share(slots.unswept, not_swept(snapshot))
    yield Holder((*IN_USE, "dead objects, not swept yet"), *dead.total(), "slots")
    yield Holder((*IN_USE, "free slots"), *slots.free.total(), "slots")
    yield Holder((*IN_USE, "span tails, behind the last slot"), *slots.tails.total(), "slots")
    yield Holder((*IN_USE, "pages of no span that is known"), *slots.no_span.total(), "pages")
    found = attribute(slots.slot_size, slots.objects - dead, calls.sites)
    for path, sizes in ((EARLIER, found.earlier), (LATER, found.later)):
        rows = zip(calls.stacks, sizes.virtual.tolist(), sizes.resident.tolist(), strict=True)
        yield from (Holder(path, virtual, resident, "samples", stack) for stack, virtual, resident in rows)
    yield from _of_no_site(slots, found.rest, snapshot.class_to_size)


def not_swept(snapshot: RuntimeSnapshot) -> int:
    """Return the bytes of objects that the last collection has found dead and no sweep has freed yet.

    The runtime counts as live what a collection has marked and all that was allocated since, with what mcaches have at
    hand. So this is not more than there are.
    """
    allocated, live = snapshot.memstats["HeapAlloc"], snapshot.collector.live_now
    return max(allocated - live, 0) if isinstance(allocated, int) and live is not None else 0


def _share(objects: Sizes, virtual: int) -> Sizes:
    """Return the same share of the objects of each size, such that they have about `virtual` bytes."""
    total, _ = objects.total()
    share = min(virtual / total, 1.0) if total else 0.0
    return Sizes(*(np.floor(size * share).astype(np.int64) for size in (objects.virtual, objects.resident)))


def _of_no_site(slots: Slots, rest: Sizes, class_to_size: Sequence[int]) -> Iterator[Holder]:
    small = np.isin(slots.slot_size, class_to_size)
    rows = zip(
        slots.slot_size[small].tolist(), rest.virtual[small].tolist(), rest.resident[small].tolist(), strict=True
    )
    for size, virtual, resident in rows:
        yield Holder((*NO_SITE, f"objects of {size} bytes"), virtual, resident, "slots")
    yield Holder((*NO_SITE, _LARGE), *rest.at(~small).total(), "slots")
