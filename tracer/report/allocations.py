"""What a process allocated while it was watched: by size class, by type, and by call site."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Address, Bytes, Count, Rate, Seconds, Share, SizeClass


class Estimate(Struct, frozen=True):
    """What a figure was in the whole time, estimated from bursts, and its 95 % confidence interval.

    None where there were fewer than two bursts to tell by.
    """

    value: Rate
    low: Rate | None
    high: Rate | None


class AllocationClass(Struct, frozen=True):
    """Allocations of one size class. `scan`, `noscan` and `tiny` are the objects that were seen, `asked` their bytes.

    `tiny`: objects that the tiny allocator may put into one block of this class. `runtime_objects` and `runtime_bytes`
    are what the runtime itself counted in the whole time: objects, those of the tiny allocator included, and the bytes
    of their slots or, of large objects, of their pages.
    """

    size_class: SizeClass
    object_size: Annotated[Bytes, Meta(description="0 for large objects")]
    scan: Count
    noscan: Count
    tiny: Count
    asked: Bytes
    runtime_objects: Annotated[Count | None, Meta(description="null: the runtime's counters could not be read")]
    runtime_bytes: Bytes | None
    estimated_objects: Annotated[Estimate | None, Meta(description="null: all were seen, or nothing can be said")]


class AllocationType(Struct, frozen=True):
    """Allocations of one type: for a slice that of its elements, as mallocgc is told.

    `bytes` are those of slots and pages; of tiny objects, what was asked for.
    """

    name: Annotated[str | None, Meta(description="null: no type was told, or it has no name that can be found")]
    address: Annotated[Address | None, Meta(description="of the type; null: none was told, so without pointers")]
    pointers: Annotated[bool, Meta(description="whether its objects have pointers")]
    objects: Count
    bytes: Bytes
    estimated_objects: Estimate | None
    estimated_bytes: Estimate | None


class AllocationSite(Struct, frozen=True):
    """Allocations of one call site: a line of source, in the first function of a stack that is not the runtime's.

    An inlined function is one, too. Where a stack has functions of the runtime only, it is the outermost of these.
    """

    function: Annotated[str | None, Meta(description="full name; null: no function of the program is there")]
    file: str | None
    line: Count | None
    address: Annotated[Address | None, Meta(description="of the calling code, where no function is known")]
    objects: Count
    bytes: Bytes
    estimated_objects: Estimate | None
    estimated_bytes: Estimate | None


class Allocations(Struct, frozen=True):
    """What was allocated. Counts are of what was seen, in `watched_seconds`, `watched_share` of the time of watching.

    Where `complete`, the probes were on all the time. Else there were `bursts`, in which they took no more than
    `budget` of the target's time by the price of a hit, `hit_seconds`, which was measured on this machine. What the
    runtime counts is of the whole time; `coverage` says which share of these objects was seen.

    Estimates: the runtime says how many objects of each size class there were, and the bursts, which of them were of
    what type, and of what call site. What is said of a size class itself is by the share that it had of all objects in
    the bursts. A burst's weight is what the runtime counted shortly before, in, and after it. The intervals come from
    how much the shares of bursts differ (variance of a ratio estimator over clusters, Student's t): objects of one
    burst are alike, so only bursts count as a sample.
    """

    complete: bool
    bursts: Count
    watched_seconds: Seconds
    watched_share: Share
    budget: Rate
    hit_seconds: Annotated[Seconds | None, Meta(description="null: it could not be measured")]
    objects: Count
    asked: Bytes
    zero_size: Annotated[Count, Meta(description="allocations of nothing, which take no memory")]
    runtime_objects: Count | None
    runtime_bytes: Bytes | None
    coverage: Share | None
    classes: list[AllocationClass]
    types: Annotated[list[AllocationType], Meta(description="those with the most bytes")]
    more_types: Annotated[Count, Meta(description="types that are not among `types`")]
    more_objects: Annotated[Count, Meta(description="objects seen of these")]
    more_bytes: Bytes
    untold_objects: Annotated[Count, Meta(description="objects seen whose types found no room in the kernel's table")]
    sites: Annotated[list[AllocationSite], Meta(description="call sites, those with the most bytes")]
    more_sites: Annotated[Count, Meta(description="call sites that are not among `sites`")]
    more_site_objects: Annotated[Count, Meta(description="objects seen of these")]
    more_site_bytes: Bytes
    unsited_objects: Annotated[Count, Meta(description="objects seen whose stacks found no room in the kernel's table")]
    unseen_classes: Annotated[
        Count, Meta(description="objects, by the runtime's count, of size classes of which no burst saw any")
    ]
