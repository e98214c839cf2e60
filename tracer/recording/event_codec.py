"""Event batches as columns: stacks once, the rest by fields.

Most of an event is its stack, and few stacks are new. They are numbered from 1 on; a frame carries those that are new
in it, and its events the numbers. The numbering starts afresh with each epoch: a lost frame costs at the worst the
stacks of events in some later ones (`EventDecoder.stacks_lost` counts them), never the events themselves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.record import EVENT, MAX_STACK, EventBatch
from gomem.tracer.recording.columns import Columns, least_stored, pack, unpack
from gomem.tracer.recording.frames import RecordingError, Worth

FRAMES_PER_EPOCH = 256
STACKS_PER_EPOCH = 1 << 16
MOST_EVENTS = 1 << 18  # of one frame
# How many a frame is believed to hold, by column; an event takes about three bytes, and a batch no less.
_EVENTS, _BATCHES = Worth(1 << 10, 4), Worth(1 << 8, 1)
_COUNTED = (("time", _EVENTS), ("batches", _BATCHES), ("stack_lengths", _BATCHES))
LATEST = 1 << 62  # ns: no machine runs for 146 years

# What a frame's events are made of; the names of EVENT, and in their order.
SCHEMA = [[name, EVENT[name].base.str, list(EVENT[name].shape)] for name in EVENT.names or ()]

_Stacks = NDArray[np.uint64]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class EventChunk:
    """One batch as it was taken from its source: it may be empty.

    All events before `until` (CLOCK_MONOTONIC ns) had been taken then; `lost` were lost since the beginning.
    """

    batch: EventBatch
    until: int
    lost: int


class EventEncoder:
    """Encodes frame after frame of one recording."""

    def __init__(self) -> None:
        self.least_stored = 0  # as how many bytes the last payload has to stand in a file
        seeds = np.frombuffer(os.urandom(8 * MAX_STACK), np.uint64)
        # A random linear hash: those who write the stacks cannot know it, and what collides is compared anyway.
        self._multipliers = seeds | np.uint64(1)
        self._epoch = 0
        self._frames = 0
        self._ids: dict[int, int] = {}
        self._known = np.zeros((256, MAX_STACK), np.uint64)  # row 0: the empty stack
        self._count = 1

    def encode(self, steps: Sequence[EventChunk]) -> tuple[bytes, list[int]]:
        """Return the payload for some steps, at least one, and the addresses in stacks that are new."""
        events = np.concatenate([step.batch for step in steps])
        if self._frames >= FRAMES_PER_EPOCH or self._count > STACKS_PER_EPOCH:
            self._epoch, self._frames = self._epoch + 1, 0
            self._ids, self._count = {}, 1
        self._frames += 1
        before = self._count
        numbers = self._number(events["stack"])
        fresh = self._known[before : self._count]
        lengths = _used(fresh)
        addresses = fresh[np.arange(MAX_STACK) < lengths[:, None]]
        entered = events["entered"] > 0
        columns: Columns = {
            "batches": np.array([len(step.batch) for step in steps], np.uint32),
            "until": np.array([step.until for step in steps], np.uint64),
            "lost": np.array([step.lost for step in steps], np.uint64),
            "time": _signed_steps(events["time"]),
            "entered": np.packbits(entered),
            "took": (events["time"] - events["entered"])[entered],
            "tid": events["tid"],
            "kind": events["kind"],
            "depth": events["depth"],
            **{f"args{column}": events["args"][:, column] for column in range(6)},
            "result": events["result"],
            "stack": numbers,
            "stack_lengths": lengths.astype(np.uint8),
            "stack_addresses": addresses,
        }
        payload = pack({"epoch": self._epoch, "first_stack": before}, columns)
        self.least_stored = max(
            least_stored(payload), *(worth.bytes_for(len(columns[name])) for name, worth in _COUNTED)
        )
        return payload, np.unique(addresses).tolist()

    def _number(self, stacks: _Stacks) -> NDArray[np.uint32]:
        """Return the number of each stack (0: an empty one), shape (n,); those that are new join the known."""
        hashes = (stacks * self._multipliers).sum(axis=1, dtype=np.uint64)
        distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        of_distinct = np.zeros(len(distinct), np.uint32)
        for at, (key, row) in enumerate(zip(distinct.tolist(), first.tolist(), strict=True)):
            number = self._ids.get(key)
            if number is None:
                number = self._ids[key] = self._add(stacks[row])
            of_distinct[at] = number
        numbers = of_distinct[inverse.reshape(-1)]
        for row in np.flatnonzero((self._known[numbers] != stacks).any(axis=1)).tolist():
            numbers[row] = self._add(stacks[row])
        return numbers

    def _add(self, stack: _Stacks) -> int:
        if not stack.any():
            return 0
        if self._count == len(self._known):
            self._known = np.concatenate((self._known, np.zeros_like(self._known)))
        self._known[self._count] = stack
        self._count += 1
        return self._count - 1


class EventDecoder:
    """Decodes the frames of one recording in their order."""

    def __init__(self) -> None:
        self.stacks_lost = 0  # events whose stack was in a frame that is not there
        self._epoch = -1
        # Room for more than there are: the kernel gives pages of zeros that nobody has written for nothing.
        self._known = np.zeros((256, MAX_STACK), np.uint64)
        self._count = 1

    def decode(self, payload: bytes, stored: int | None = None) -> list[EventChunk]:
        """Return what `encode` was given. Raises RecordingError if the payload makes no sense.

        `stored`: as how many bytes it stands in a file, which bounds how many events and batches it may have.
        """
        body, columns = unpack(payload, stored)
        if stored is not None:
            _check_worth(columns, stored)
        epoch, first = (_count(body.get(name)) for name in ("epoch", "first_stack"))
        fresh = _fresh_stacks(columns)
        events = _events(columns)
        if not 0 < first <= STACKS_PER_EPOCH + MOST_EVENTS:
            raise RecordingError("a frame of events with more stacks than there can be")
        if epoch != self._epoch:
            self._epoch, self._count = epoch, 1
            self._known = np.zeros((256, MAX_STACK), np.uint64)
        self._learn(first, fresh)
        self._fill_stacks(events, _column(columns, "stack", np.uint32, len(events)))
        return _steps(columns, events)

    def _learn(self, first: int, fresh: _Stacks) -> None:
        """Take the stacks that are numbered from `first` on. Where frames before are missing, theirs are empty ones."""
        end = first + len(fresh)
        self._known[min(first, self._count) : self._count] = 0
        if end > len(self._known):
            grown = np.zeros((2 * end, MAX_STACK), np.uint64)
            grown[: self._count] = self._known[: self._count]
            self._known = grown
        self._known[first:end] = fresh
        self._count = end

    def _fill_stacks(self, events: EventBatch, numbers: NDArray[np.uint32]) -> None:
        if len(numbers) and int(numbers.max()) >= self._count:
            raise RecordingError("an event with a stack that is nowhere")
        events["stack"] = self._known[numbers]
        gone = (numbers > 0) & ~events["stack"].any(axis=1)
        events["depth"][gone] = 0
        self.stacks_lost += int(np.count_nonzero(gone))


def _check_worth(columns: Columns, stored: int) -> None:
    """Raise RecordingError for a frame that makes more work than its bytes are worth."""
    for name, worth in _COUNTED:
        count = len(columns.get(name, ()))
        if count > worth.most(stored):
            raise RecordingError(f"a frame of {count} in the column {name}, of {stored} bytes")


def _steps(columns: Columns, events: EventBatch) -> list[EventChunk]:
    borders = np.cumsum(_column(columns, "batches", np.uint32).astype(np.int64))
    until = _column(columns, "until", np.uint64, len(borders))
    lost = _column(columns, "lost", np.uint64, len(borders))
    if not 0 < len(borders) <= MOST_EVENTS or int(borders[-1]) != len(events):
        raise RecordingError("a frame of events whose batches do not add up")
    if max(int(until.max()), int(lost.max())) > LATEST:
        raise RecordingError("a frame of events of a time that is none")
    batches = np.split(events, borders[:-1])
    return [EventChunk(*step) for step in zip(batches, until.tolist(), lost.tolist(), strict=True)]


def _events(columns: Columns) -> EventBatch:
    count = len(_column(columns, "time", np.uint64))
    if count > MOST_EVENTS:
        raise RecordingError(f"a frame of {count} events")
    events = np.zeros(count, EVENT)
    events["time"] = _summed(_column(columns, "time", np.uint64))
    flags = _column(columns, "entered", np.uint8, -(-count // 8))
    entered = np.unpackbits(flags, count=count).astype(np.bool_)
    took = _column(columns, "took", np.uint64, int(np.count_nonzero(entered)))
    events["entered"][entered] = events["time"][entered] - took
    events["tid"] = _column(columns, "tid", np.uint32, count)
    events["kind"] = _column(columns, "kind", np.uint16, count)
    events["depth"] = _column(columns, "depth", np.uint16, count)
    for column in range(6):
        events["args"][:, column] = _column(columns, f"args{column}", np.uint64, count)
    events["result"] = _column(columns, "result", np.int64, count)
    return events


def _fresh_stacks(columns: Columns) -> _Stacks:
    lengths = _column(columns, "stack_lengths", np.uint8)
    addresses = _column(columns, "stack_addresses", np.uint64)
    if len(lengths) > MOST_EVENTS or np.any(lengths > MAX_STACK) or int(lengths.sum(dtype=np.int64)) != len(addresses):
        raise RecordingError("a frame of events whose stacks do not add up")
    stacks = np.zeros((len(lengths), MAX_STACK), np.uint64)
    stacks[np.arange(MAX_STACK) < lengths[:, None]] = addresses
    return stacks


def _used(stacks: _Stacks) -> NDArray[np.int64]:
    """Return up to where each stack has something other than 0."""
    used: NDArray[np.int64] = ((stacks != 0) * np.arange(1, MAX_STACK + 1)).max(axis=1, initial=0)
    return used


# The times of batches may go back a little, so they are no column that rises: the steps are stored as they are,
# with the sign in the lowest bit, which keeps small steps back small.
def _signed_steps(times: NDArray[np.uint64]) -> NDArray[np.uint64]:
    steps = np.diff(times, prepend=np.uint64(0)).view(np.int64)
    return ((steps << 1) ^ (steps >> 63)).view(np.uint64)


def _summed(steps: NDArray[np.uint64]) -> NDArray[np.uint64]:
    one = np.uint64(1)
    signed = (steps >> one) ^ (np.uint64(0) - (steps & one))
    return np.add.accumulate(signed, dtype=np.uint64)


def _column(columns: Columns, name: str, kind: type[Number], length: int | None = None) -> NDArray[Number]:
    column = columns.get(name)
    if column is None or column.dtype != np.dtype(kind) or (length is not None and len(column) != length):
        raise RecordingError(f"a frame of events without its column {name}")
    return cast("NDArray[Number]", column)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise RecordingError("a frame of events with a count that is none")
    return value
