"""The contract of `gomem goroutines --format json`: goroutines by what they have in common (schema gomem.goroutines/1).

All sizes are bytes, all durations seconds. None means "could not be had" (`limits` says why), never 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count, Seconds
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.process import ProcessFacts

SCHEMA = "gomem.goroutines/1"
By = Literal["creator", "start", "reason", "stack"]


class Place(Struct, frozen=True):
    """A line of source in a function. "" and 0: not known; a function that is none of the program's is an address."""

    function: str
    file: str = ""
    line: int = 0


class GoroutineGroup(Struct, frozen=True):
    """Goroutines of the program that have in common what `by` says; the group of all others has neither of the four.

    `creator`: the go statement, its function as the runtime's own traces name it. `start`: the function that they began
    with. `reason`: what they wait for or do, as traces have it: "chan receive", "select", "syscall", "running".
    `stack`: their calls, the innermost first.
    """

    creator: Place | None
    start: Place | None
    reason: str | None
    stack: list[Place] | None
    goroutines: Count
    stack_bytes: Bytes
    stack_resident: Annotated[Bytes | None, Meta(description="of stack_bytes, in RAM")]
    reasons: Annotated[dict[str, Count], Meta(description="what they wait for or do, most goroutines first")]
    longest_wait: Annotated[
        Seconds | None,
        Meta(
            description="at most so long: since the end of the collection before the one that first saw it wait, which "
            "the runtime notes. null: not two have ended since then"
        ),
    ]
    waits_known: Annotated[Count, Meta(description="of how many goroutines it is known since when they wait")]
    at_looks: Annotated[list[Count], Meta(description="goroutines of the group at each look")]
    stayed: Annotated[list[Count], Meta(description="of those at each look, how many there are still at the last")]
    only_grows: Annotated[
        bool | None,
        Meta(description="more at each look, some of each look's stayed, a collection went by. null: too few looks"),
    ]


class GoroutineLook(Struct, frozen=True):
    """One look: when, counted from the first, and the collections that had ended by then since the start."""

    seconds: Seconds
    goroutines: Count
    gc_cycles: Count | None


class EndedGoroutines(Struct, frozen=True):
    """Goroutines that have ended: the runtime keeps their g structs for new ones and never frees them."""

    gs: Count
    g_bytes: Bytes
    stack_bytes: Annotated[Bytes, Meta(description="kept with them until the next collection")]
    stack_resident: Bytes | None


class GoroutineReport(Struct, frozen=True, tag_field="schema", tag=SCHEMA):
    """The goroutines of one process, as they are at the last look."""

    taken_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    process: ProcessFacts
    limits: list[Limit]
    by: By
    goroutines: Annotated[Count, Meta(description="of the program, as its own profile counts them")]
    system_goroutines: Annotated[Count, Meta(description="the runtime's own")]
    stack_bytes: Annotated[Bytes, Meta(description="of the program's goroutines")]
    stack_resident: Bytes | None
    system_stack_bytes: Bytes
    stack_inuse: Annotated[
        Bytes | None, Meta(description="MemStats.StackInuse: these, those of ended ones, free ones, and threads'")
    ]
    longest_wait: Seconds | None
    ended: EndedGoroutines
    looks: list[GoroutineLook]
    groups: Annotated[list[GoroutineGroup], Meta(description="in the order asked for")]
