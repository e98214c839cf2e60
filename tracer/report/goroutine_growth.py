"""Which go statements' goroutines became more while a process was watched: the part of a report that says who leaks."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count, Seconds

MOST_CREATORS: Final = 20


class FirstAndLast(Struct, frozen=True):
    """Goroutines and bytes of their stacks, at the first look at them and at the last."""

    goroutines_first: Count
    goroutines_last: Count
    stack_first: Bytes
    stack_last: Bytes

    @property
    def grown(self) -> int:
        """How many more goroutines there were at last."""
        return self.goroutines_last - self.goroutines_first


class GrownCreator(Struct, frozen=True):
    """Goroutines of one go statement: its function, "" for those that the runtime started, with file and line."""

    function: str
    file: str
    line: Count
    sums: FirstAndLast
    some_stay: Annotated[
        bool | None,
        Meta(description="of those that each look was first to see, some were there at the last. null: too few looks"),
    ]
    only_grows: Annotated[
        bool | None,
        Meta(description="more at each look, some of each look's stayed, a collection went by. null: too few looks"),
    ]


class GoroutineGrowth(Struct, frozen=True):
    """The program's goroutines by go statement over the `seconds` from the first look at them to the last.

    `creators`: the 20 that grew by most goroutines, those first; `others`: the sums of the `more_creators` that are not
    among them. With these all of `whole` is told.
    """

    seconds: Seconds
    looks: Count
    whole: FirstAndLast
    creators: list[GrownCreator]
    more_creators: Count
    others: FirstAndLast
