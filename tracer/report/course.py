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
