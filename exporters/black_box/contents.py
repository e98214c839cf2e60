"""What is in a black box: its files, and the two of them that are not in a format that something else has."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, to_builtins

from gomem.exporters.json.report import plain_json
from gomem.tracer.report import ProcessEnding
from gomem.tracer.report.figures import Bytes, Count, Rate, Seconds

HEAP, GOROUTINES, REPORT, TIMELINE, ENDING = (
    "heap.pb.gz", "goroutine.pb.gz", "report.json", "timeline.json", "how-it-ended.json",
)  # fmt: skip
FILES = (HEAP, GOROUTINES, REPORT, TIMELINE, ENDING)

Reason = Literal["oom-kill", "crash"]


class Part(Struct, frozen=True):
    """One file: when what is in it was seen, and how many seconds that was before the end was noticed.

    Where there is no such file, `missing` says why.
    """

    file: str
    taken_at: Annotated[str, Meta(description="RFC 3339")] | None
    age_seconds: Seconds | None
    missing: str = ""


class HowItEnded(Struct, frozen=True, tag_field="schema", tag="gomem.black-box/1"):
    """How a process ended, and how old the rest of its black box is.

    `kept_for`: "oom-kill" where the OOM killer ended it, or may have (see `ending.oom.proven`); "crash" for an exit
    code that is not 0, and for signals but SIGTERM, SIGINT and SIGHUP. `said`: the same in a sentence. `process` has
    the labels that metrics have of it. `near`: the share that was used of the limit that was nearest, at the last
    look.
    """

    kept_for: Reason
    said: str
    noticed_at: Annotated[str, Meta(description="RFC 3339")]
    ending: ProcessEnding
    process: dict[str, str]
    near: Rate | None
    parts: list[Part]


class Moment(Struct, frozen=True):
    """The figures of one look, in bytes and counts, by the report's names; None for what could not be had.

    `limit_used` is what Go holds against GOMEMLIMIT (`memory_limit`), `cgroup_max` the smallest limit of the memory
    cgroup and those above, `near` the share that is used of the limit that is nearest.
    """

    at: Annotated[str, Meta(description="RFC 3339")]
    before_end: Seconds
    rss: Bytes | None
    heap_in_use: Bytes | None
    heap_alloc: Bytes | None
    heap_live: Bytes | None
    heap_goal: Bytes | None
    retained: Bytes | None
    stacks: Bytes | None
    limit_used: Bytes | None
    memory_limit: Bytes | None
    gc_cycles: Count | None
    goroutines: Count | None
    cgroup_current: Bytes | None
    cgroup_max: Bytes | None
    near: Rate | None


class Timeline(Struct, frozen=True, tag_field="schema", tag="gomem.timeline/1"):
    """Looks at one process, the oldest first: the last ones all, those before the more thinly the older they are."""

    looks: Annotated[Count, Meta(description="all looks that succeeded, kept or not")]
    moments: list[Moment]


def as_json(part: HowItEnded | Timeline) -> bytes:
    """Return the file of such a part."""
    return plain_json(to_builtins(part), indent=1).encode()
