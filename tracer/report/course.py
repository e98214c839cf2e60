"""How figures of a process change from look to look."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Count, Seconds


class CourseThird(Struct, frozen=True):
    """What the looks of one third of the time saw of a figure."""

    looks: Count
    lowest: Count
    median: Count
    highest: Count


class AroundCollections(Struct, frozen=True):
    """How a figure went from look to look: in all risen and fallen without a collection in between, fallen with one."""

    risen_without: Count
    fallen_without: Count
    fallen_with: Count


class Course(Struct, frozen=True):
    """A figure over the `seconds` from the first look that told it to the last, up to six hours.

    `per_second`: from the median of the first third to that of the last, which are two thirds of the time apart.
    """

    seconds: Seconds
    looks: Count
    first: Count
    last: Count
    per_second: float
    thirds: Annotated[list[CourseThird], Meta(min_length=3, max_length=3)]
    around_collections: Annotated[
        AroundCollections | None, Meta(description="of outside and finalizers; null: of all others")
    ] = None
