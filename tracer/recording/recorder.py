"""Writes a recording while a process is watched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tracer import __version__
from tracer.events import EventBatch
from tracer.inspection import Look
from tracer.model.callers import Symbolize
from tracer.model.sight import Sight
from tracer.recording import contents
from tracer.recording.contents import Beginning, Ending, FrameKind, Progress
from tracer.recording.event_codec import MOST_EVENTS, SCHEMA, EventEncoder, Step
from tracer.recording.frames import FrameWriter, RecordingError
from tracer.recording.look_codec import TimedLook, encode_look, encode_sight
from tracer.report import Limit, Overhead

FLUSH_SECONDS = 0.5
FLUSH_EVENTS = 1 << 15
MOST_STEPS = 1 << 12
LOOK_SECONDS = 10.0  # between looks that are kept, the first and the last apart
MOST_ADDRESSES = 1 << 20  # whose names are remembered as written


class Recorder:
    """Keeps the events and looks of one watch in a file.

    Whoever watches calls `begin` once, `events` for each batch (also for an empty one, at least once a second), `look`
    for each look and `end`. What came in is in the file within FLUSH_SECONDS of the next call.
    """

    def __init__(self, path: str, *, force: bool = False) -> None:
        """Open the file; nothing in it changes before `begin`. Raises GomemError as FrameWriter does."""
        self.events_written = 0
        self._writer = FrameWriter(path, force=force)
        self._encoder = EventEncoder()
        self._symbolize: Symbolize = _nameless
        self._measure: Callable[[], Overhead] | None = None
        self._named: set[int] = set()
        self._pending: list[Step] = []
        self._waiting = 0
        self._lost = 0
        self._flushed = time.monotonic()
        self._kept = 0.0  # when a look was written last
        self._look: TimedLook | None = None
        self._too_large: Limit | None = None

    @property
    def path(self) -> str:
        """Where the recording is."""
        return self._writer.path

    @property
    def bytes_written(self) -> int:
        """How large the file is."""
        return self._writer.bytes

    def begin(self, beginning: Beginning, symbolize: Symbolize, measure: Callable[[], Overhead]) -> None:
        """Write who is watched; `measure` tells what it has cost until now."""
        self._symbolize = symbolize
        self._measure = measure
        self._writer.begin({"gomem": __version__, "events": [list(one) for one in SCHEMA]})
        self._writer.write(FrameKind.BEGINNING, beginning.monotonic, contents.encode(beginning))
        self._write_progress()

    def events(self, batch: EventBatch, until: int, lost: int) -> None:
        """Take the next events, of which those before `until` (CLOCK_MONOTONIC ns) are complete now.

        `lost` is how many were lost since the beginning.
        """
        self._lost = lost
        for first in range(0, max(len(batch), 1), MOST_EVENTS):
            self._pending.append(Step(batch[first : first + MOST_EVENTS], until, lost))
        self._waiting += len(batch)
        late = self._waiting > 0 and time.monotonic() - self._flushed >= FLUSH_SECONDS
        if late or self._waiting >= FLUSH_EVENTS or len(self._pending) >= MOST_STEPS:
            self.flush()

    def look(self, look: Look, sight: Sight, ended: int) -> None:
        """Take a look that `ended` just now, CLOCK_MONOTONIC ns, and what of it a model is compared with."""
        self.flush()
        self._write_large(FrameKind.SIGHT, ended, lambda: encode_sight(sight))
        self._look = TimedLook(look, ended)
        if not self._kept or time.monotonic() - self._kept >= LOOK_SECONDS:
            self._write_look()
            self._write_progress()

    def end(self, ending: Ending) -> None:
        """Write what is left, and how it ended."""
        self.flush()
        self._write_look()
        if self._too_large is not None:
            ending = replace(ending, limits=[*ending.limits, self._too_large])
        self._writer.write(FrameKind.ENDING, time.monotonic_ns(), contents.encode(ending))

    def close(self) -> None:
        """Close the file; one that holds nothing is removed again. Idempotent."""
        self._writer.close()

    def flush(self) -> None:
        """Write the events that wait."""
        self._flushed = time.monotonic()
        steps, self._pending, self._waiting = self._pending, [], 0
        # A batch is not cut if a frame can hold it: what is computed from it may depend on where it begins.
        group: list[Step] = []
        waiting = 0
        for step in steps:
            if group and waiting + len(step.batch) > FLUSH_EVENTS:
                self._write_events(group)
                group, waiting = [], 0
            group.append(step)
            waiting += len(step.batch)
        if group:
            self._write_events(group)

    def _write_events(self, steps: list[Step]) -> None:
        payload, addresses = self._encoder.encode(steps)
        self._write_names(addresses)
        self._writer.write(FrameKind.EVENTS, steps[-1].until, payload)
        self.events_written += sum(len(step.batch) for step in steps)

    def _write_names(self, addresses: list[int]) -> None:
        if len(self._named) > MOST_ADDRESSES:
            self._named.clear()
        fresh = [address for address in addresses if address and address not in self._named]
        self._named.update(fresh)
        # A return address is behind its call: the function is the one that the byte before it belongs to.
        names = {address - 1: name for address in fresh if (name := self._symbolize(address - 1))}
        ordered = list(names)
        for first in range(0, len(ordered), contents.MOST_NAMES):
            some = {address: names[address] for address in ordered[first : first + contents.MOST_NAMES]}
            self._writer.write(FrameKind.NAMES, time.monotonic_ns(), contents.encode_names(some))

    def _write_look(self) -> None:
        if self._look is not None:
            look, self._look = self._look, None
            self._write_large(FrameKind.LOOK, look.ended, lambda: encode_look(look))
            self._kept = time.monotonic()

    def _write_large(self, kind: FrameKind, ended: int, payload: Callable[[], bytes]) -> None:
        """Write a frame whose size is the target's to choose; one that no frame can hold is left out, and told."""
        try:
            self._writer.write(kind, ended, payload())
        except RecordingError as error:
            self._too_large = Limit("some of the looks in the recording", error.what, "")

    def _write_progress(self) -> None:
        if self._measure is not None:
            progress = Progress(self._measure(), self._lost)
            self._writer.write(FrameKind.PROGRESS, time.monotonic_ns(), contents.encode(progress))


def _nameless(address: int) -> None:
    del address
