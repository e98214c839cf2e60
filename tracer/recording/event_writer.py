"""Gathers events, and writes them as frames of some thousands, each behind the names of its functions."""

from __future__ import annotations

import time

from gomem.tracer.events.record import EventBatch
from gomem.tracer.model.callers import Symbolize
from gomem.tracer.recording import contents
from gomem.tracer.recording.columns import least_stored
from gomem.tracer.recording.contents import FrameKind
from gomem.tracer.recording.event_codec import MOST_EVENTS, EventChunk, EventEncoder
from gomem.tracer.recording.frames import FrameWriter

FLUSH_SECONDS = 0.5
FLUSH_EVENTS = 1 << 15
MOST_STEPS = 1 << 12
MOST_ADDRESSES = 1 << 20  # whose names are remembered as written


class EventWriter:
    """Writes the events of a recording into its frames, some time after they came."""

    def __init__(self, frames: FrameWriter) -> None:
        self.written = 0  # events
        self.symbolize: Symbolize = _nameless
        self._frames = frames
        self._encoder = EventEncoder()
        self._named: set[int] = set()
        self._pending: list[EventChunk] = []
        self._waiting = 0  # events in these
        self._flushed = time.monotonic()

    def add(self, batch: EventBatch, until: int, lost: int) -> None:
        """Take the next events; for `until` and `lost` see Recorder.events."""
        for first in range(0, max(len(batch), 1), MOST_EVENTS):
            self._pending.append(EventChunk(batch[first : first + MOST_EVENTS], until, lost))
        self._waiting += len(batch)
        late = self._waiting > 0 and time.monotonic() - self._flushed >= FLUSH_SECONDS
        if late or self._waiting >= FLUSH_EVENTS or len(self._pending) >= MOST_STEPS:
            self.flush()

    def flush(self) -> None:
        """Write the events that wait."""
        self._flushed = time.monotonic()
        steps, self._pending, self._waiting = self._pending, [], 0
        # A batch is not cut if a frame can hold it: what is computed from it may depend on where it begins.
        group: list[EventChunk] = []
        waiting = 0
        for step in steps:
            if group and waiting + len(step.batch) > FLUSH_EVENTS:
                self._write(group)
                group, waiting = [], 0
            group.append(step)
            waiting += len(step.batch)
        if group:
            self._write(group)

    def _write(self, steps: list[EventChunk]) -> None:
        payload, addresses = self._encoder.encode(steps)
        self._write_names(addresses)
        self._frames.write(FrameKind.EVENTS, steps[-1].until, payload, self._encoder.least_stored)
        self.written += sum(len(step.batch) for step in steps)

    def _write_names(self, addresses: list[int]) -> None:
        if len(self._named) > MOST_ADDRESSES:
            self._named.clear()
        fresh = [address for address in addresses if address and address not in self._named]
        self._named.update(fresh)
        # A return address is behind its call: the function is the one that the byte before it belongs to.
        names = {address - 1: name for address in fresh if (name := self.symbolize(address - 1))}
        ordered = list(names)
        for first in range(0, len(ordered), contents.MOST_NAMES):
            some = {address: names[address] for address in ordered[first : first + contents.MOST_NAMES]}
            payload = contents.encode_names(some)
            self._frames.write(FrameKind.NAMES, time.monotonic_ns(), payload, least_stored(payload))


def _nameless(address: int) -> None:
    del address
