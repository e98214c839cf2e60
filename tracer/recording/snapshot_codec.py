"""A look in a frame, and the rules that a look must obey before anything is computed from it.

A recording may come from anywhere. What is decoded here is as sound as what `Inspector.look` gives: columns of one
length, ranges sorted and disjoint, indices that point at something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from gomem.tracer.addresses.region_states import NONE, PREPARED, READY, RESERVED
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.model.mappings import UNKNOWN
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording.columns import pack, unpack
from gomem.tracer.recording.encoding import MOST_INT, Encoder, rebuild
from gomem.tracer.recording.frames import RecordingError, Worth
from gomem.tracer.report import KINDS, JsonObject
from gomem.tracer.runtime.caches import MOST_PS
from gomem.tracer.runtime.free_runs import FreeRuns
from gomem.tracer.runtime.large_spans import LARGEST, LargeSpan
from gomem.tracer.runtime.pace import Pace
from gomem.tracer.runtime.pages import CHUNK_BYTES, CHUNK_PAGES, MOST_CHUNKS, PageState
from gomem.tracer.runtime.regions import MOST_ARENAS, Region
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import MANUAL, Spans
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.snapshot.join import AddressSpace

_ADDRESS_SPACE = 1 << 57
# Each time the model is gone through, which has as many: a replay has some 200 steps of work for each byte.
_RANGES = Worth(1 << 10, 4)
_LATEST = 1 << 62  # ns
MOST_MAPPING_VALUE = (UNKNOWN << 1) - 1
_MOST_CLASSES = 128
_Numbers = NDArray[np.uint64]
# The states of a look's pieces have numbers of their own in a file: Reserved, Prepared, Ready, None.
_STORED_STATES = np.array([RESERVED, PREPARED, READY, NONE], np.int64)
_STORED_AS = np.argsort(_STORED_STATES)


@dataclass(frozen=True, slots=True)
class TimedSnapshot:
    """A look and when it was done, CLOCK_MONOTONIC ns."""

    look: Snapshot
    ended: int


def encode_look(timed: TimedSnapshot) -> bytes:
    """Return the payload of a look."""
    encoder, look = Encoder(), _with_states(timed.look, _STORED_AS)
    return pack({"ended": timed.ended, "look": encoder.plain(look, "look")}, encoder.columns)


def decode_look(payload: bytes, stored: int | None = None) -> TimedSnapshot:
    """Return the look of a payload; raises RecordingError if it breaks a rule."""
    body, columns = unpack(payload, stored)
    timed = rebuild(TimedSnapshot, dict(body), columns)
    _require(0 <= timed.ended <= _LATEST, "a time that is none")
    _check(timed.look)
    return replace(timed, look=_with_states(timed.look, _STORED_STATES))


def _with_states(look: Snapshot, numbers: NDArray[np.int64]) -> Snapshot:
    """Return a look whose pieces have the `numbers` of their states."""
    return structs.replace(look, space=structs.replace(look.space, state=numbers[look.space.state]))


def encode_sight(model_input: ModelInput) -> bytes:
    """Return the payload of what a model is compared with."""
    encoder = Encoder()
    return pack({"sight": encoder.plain(model_input, "sight")}, encoder.columns)


def ranges_worth(model_input: ModelInput) -> int:
    """Return of how many bytes a frame has to be that makes a reader compare so many ranges with a model."""
    covers = (cover for cover in (model_input.mappings, model_input.states) if cover is not None)
    return _RANGES.bytes_for(sum(len(cover.start) for cover in covers))


def decode_sight(payload: bytes, stored: int | None = None) -> ModelInput:
    """Return what `encode_sight` was given; raises RecordingError if it breaks a rule."""
    body, columns = unpack(payload, stored)
    model_input = rebuild(ModelInput, body.get("sight"), columns)
    for cover, most in ((model_input.mappings, MOST_MAPPING_VALUE), (model_input.states, READY)):
        if cover is not None:
            _require(len(cover.value) == len(cover.start), "values of another length than their ranges")
            _require(_are_ranges(cover.start, cover.end), "values of what is no range")
            _require(np.all((cover.value >= 0) & (cover.value <= most)), "values that mean nothing")
    _require(0 <= model_input.began <= _LATEST and 0 <= model_input.maps_began <= _LATEST, "a time that is none")
    _require(0 <= model_input.ended <= _LATEST, "a time that is none")
    inside = all(0 <= base <= base + size <= _ADDRESS_SPACE for base, size in model_input.arenas if size >= 0)
    _require(inside and len(model_input.arenas) <= MOST_ARENAS, "arenas outside the address space")
    _require(
        model_input.heap_end is None or 0 <= model_input.heap_end <= _ADDRESS_SPACE, "a heap outside the address space"
    )
    return model_input


def _check(look: Snapshot) -> None:
    _check_mappings(look.kernel.mappings)
    _check_residency(look.kernel.residency)
    regions = look.runtime.regions if look.runtime else []
    _check_space(look.space, len(look.kernel.mappings), sum(region.what == "arena" for region in regions))
    _require(all(0 <= owner.tid <= MOST_INT for owner in look.stack_owners), "threads that are none")
    if look.runtime is not None:
        _check_runtime(look.runtime)


def _require(holds: object, what: str) -> None:
    if not holds:
        raise RecordingError(f"a look with {what}")


def _same_length(*columns: NDArray[np.generic] | list[str]) -> bool:
    return len({len(column) for column in columns}) == 1


def _are_ranges(start: _Numbers, end: _Numbers) -> bool:
    """Tell whether the ranges are sorted, disjoint, not empty, and within the address space of a process."""
    if len(start) != len(end):
        return False
    inside = not len(end) or int(end.max()) <= _ADDRESS_SPACE
    return inside and bool(np.all(start < end)) and bool(np.all(end[:-1] <= start[1:]))


def _check_mappings(mappings: Mappings) -> None:
    columns = (
        mappings.start, mappings.readable, mappings.writable, mappings.executable, mappings.shared, mappings.offset,
        mappings.device, mappings.inode, mappings.name,
    )  # fmt: skip
    _require(_same_length(*columns), "mappings of several lengths")
    _require(_are_ranges(mappings.start, mappings.end), "mappings that are no ranges")


def _check_residency(residency: Residency) -> None:
    ranges = residency.ranges
    _require(_same_length(ranges.start, residency.flags, residency.rss, residency.swap), "residency of several lengths")
    _require(_are_ranges(ranges.start, ranges.end), "resident ranges that are none")
    size = ranges.end - ranges.start
    _require(np.all(residency.rss <= size) and np.all(residency.swap <= size), "more resident bytes than there are")


def _check_space(space: AddressSpace, mappings: int, arenas: int) -> None:
    columns = (
        space.start, space.mapping, space.kind, space.state, space.page, space.arena, space.resident, space.swap
    )  # fmt: skip
    _require(_same_length(*columns), "pieces of several lengths")
    _require(_are_ranges(space.start, space.end), "pieces that are no ranges")
    indices = (
        (space.mapping, 0, mappings),
        (space.kind, 0, len(KINDS)),
        (space.state, 0, len(_STORED_STATES)),
        (space.arena, -1, arenas),
    )
    for column, least, end in indices:
        _require(np.all((column >= least) & (column < end)), "pieces that point at nothing")
    _require(np.all(space.resident <= space.size) and np.all(space.swap <= space.size), "more resident than there is")


def _check_runtime(runtime: RuntimeSnapshot) -> None:
    pages = runtime.pages
    _require(len(pages.chunk_base) <= MOST_CHUNKS, "more chunks than a heap has")
    _require(len(pages.state) == len(pages.chunk_base) * CHUNK_PAGES, "pages and chunks that do not fit")
    _require(_are_ranges(pages.chunk_base, pages.chunk_base + np.uint64(CHUNK_BYTES)), "chunks that overlap")
    _require(np.all(pages.state <= max(PageState)), "pages of an unknown state")
    _check_regions(runtime.regions)
    _require(0 < len(runtime.class_to_size) <= _MOST_CLASSES, "more size classes than there are")
    _check_spans(runtime.spans)
    _require(len(runtime.caches.rows) <= MOST_PS, "more Ps than there can be")
    _check_memstats(runtime.memstats)
    if runtime.pace is not None:
        _check_pace(runtime.pace)
    if runtime.free_runs is not None:
        _check_free_runs(runtime.free_runs)
    _check_largest(runtime.largest or [])


def _check_free_runs(found: FreeRuns) -> None:
    most = MOST_CHUNKS * CHUNK_PAGES
    _require(_same_length(found.runs, found.pages) and len(found.runs) <= most.bit_length(), "runs of no length")
    _require(np.all((found.runs >= 0) & (found.pages >= 0) & (found.pages <= most)), "runs that no heap has")
    _require(
        all(0 <= one <= most for one in (found.longest, found.cached, found.padding)), "more pages than a heap has"
    )


def _check_largest(found: list[LargeSpan]) -> None:
    _require(len(found) <= LARGEST, "more large objects than are told")
    for one in found:
        _require(0 <= one.start <= one.start + one.size <= _ADDRESS_SPACE and one.size >= 0, "an object that is none")
        _require(0 <= one.zeros <= one.sampled and one.line >= 0, "an object of which nothing is known")
        _require(one.type_size is None or one.type_size >= 0, "a type of no size")


def _check_pace(pace: Pace) -> None:
    """Every figure is one that a runtime can have: times and shares are computed with them."""
    parts = [part for part in (pace, pace.scavenging, pace.limiter) if part is not None]
    found = [value for part in parts for value in structs.astuple(part)]
    numbers = [value for value in found if isinstance(value, int | float)]
    # Goals are bytes, and at first the runtime's are as large as a word can be.
    most = {int: MOST_INT, float: _LATEST, bool: 1}
    sound = all(math.isfinite(value) and 0 <= value <= most[type(value)] for value in numbers)
    _require(sound, "a pace that is none")


def _check_memstats(memstats: JsonObject) -> None:
    """Every figure is an integer or None; BySize is rows of three."""
    for name, value in memstats.items():
        rows = value if name == "BySize" and isinstance(value, list) else [[value, 0, 0]]
        for row in rows:
            _require(isinstance(row, list) and len(row) == 3, "a MemStats.BySize that is none")
            _require(all(type(one) in (int, type(None)) for one in row), f"a MemStats.{name} that is no number")
    for name in ("NextGC", "HeapAlloc"):
        _require(type(memstats.get(name)) is int, f"no MemStats.{name}")


def _check_regions(regions: list[Region]) -> None:
    for region in regions:
        _require(0 < region.start <= region.end <= _ADDRESS_SPACE, "a region outside the address space")
        _require(region.kind in KINDS, "a region of an unknown kind")
    for before, after in pairwise(regions):
        _require(before.end <= after.start, "regions that overlap")


def _check_spans(spans: Spans) -> None:
    columns = [getattr(spans, name) for name in Spans.__struct_fields__]
    _require(_same_length(*(column for column in columns if column is not None)), "spans of several lengths")
    _require(np.all(spans.state <= MANUAL), "spans of an unknown state")
