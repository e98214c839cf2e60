"""Kinds of figures in a report with their bounds, and the names that a report takes from a fixed set."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

JsonObject = dict[str, object]
Bytes = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Address = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]  # a length of time; moments are plain numbers
Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=0)]
SpanClass = Annotated[int, Meta(ge=0, le=255)]
SizeClass = Annotated[int, Meta(ge=0, le=127)]
# math.MaxInt64 (GOMEMLIMIT off) and math.MaxUint64 (no heap goal) mean "none" in the runtime.
RUNTIME_NONE = 1 << 62  # what is at least so much is one of them
KINDS = (
    "heap_arena",
    "heap_metadata",
    "page_summary",
    "runtime_other",
    "thread_stack",
    "c_heap",
    "binary",
    "shared_library",
    "file",
    "vdso",
    "other",
    "other_runtime",  # recordings have the places in this list
)


def _one_of(*names: str) -> Meta:
    return Meta(extra_json_schema={"enum": list(names)})


MappingKind = Annotated[str, _one_of(*KINDS)]
RegionState = Annotated[str, _one_of("None", "Reserved", "Prepared", "Ready")]
RegionStateOrAny = Annotated[str, _one_of("None", "Reserved", "Prepared", "Ready", "any")]
RegionStateOrUnknown = Annotated[str, _one_of("None", "Reserved", "Prepared", "Ready", "unknown")]
