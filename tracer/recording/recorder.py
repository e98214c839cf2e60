"""Writes a recording while a process is watched."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from gomem.tracer import __version__
from gomem.tracer.events.record import EventBatch
from gomem.tracer.model.callers import Symbolize
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording import contents
from gomem.tracer.recording.columns import least_stored
from gomem.tracer.recording.contents import FrameKind
from gomem.tracer.recording.event_codec import SCHEMA
from gomem.tracer.recording.event_writer import EventWriter
from gomem.tracer.recording.frames import FrameWriter, RecordingError
from gomem.tracer.recording.snapshot_codec import TimedSnapshot, encode_look, encode_sight, ranges_worth
from gomem.tracer.recording.watching import Beginning, Ending, Progress
from gomem.tracer.report import Limit, Overhead
from gomem.tracer.snapshot.inspection import Snapshot

LOOK_SECONDS = 10.0  # between looks that are kept, the first and the last apart, if nobody wants more


class Recorder:
    """Keeps the events and looks of one watch in a file.

    Whoever watches calls `begin` once, `events` for each batch (also for an empty one, at least once a second), `look`
    for each look and `end`. What came in is in the file within FLUSH_SECONDS of the next call.
    """

    def __init__(self, path: str, *, force: bool = False, look_seconds: float = LOOK_SECONDS) -> None:
        """Open the file; nothing in it changes before `begin`. Raises GomemError as FrameWriter does.

        `look_seconds`: the least between two looks that are kept.
        """
        self._writer = FrameWriter(path, force=force)
        self._events = EventWriter(self._writer)
        self._measure: Callable[[], Overhead] | None = None
        self._lost = 0
        self._look_seconds = look_seconds
        self._kept = 0.0  # when a look was written last
        self._look: TimedSnapshot | None = None
        self._too_large: Limit | None = None

    @property
    def path(self) -> str:
        """Where the recording is."""
        return self._writer.path

    @property
    def bytes_written(self) -> int:
        """How large the file is."""
        return self._writer.bytes

    @property
    def events_written(self) -> int:
        """How many events are in it."""
        return self._events.written

    def begin(self, beginning: Beginning, symbolize: Symbolize, measure: Callable[[], Overhead]) -> None:
        """Write who is watched; `measure` tells what it has cost until now."""
        self._events.symbolize = symbolize
        self._measure = measure
        self._writer.begin({"gomem": __version__, "events": [list(one) for one in SCHEMA]})
        self._write(FrameKind.BEGINNING, beginning.monotonic, contents.encode(beginning))
        self._write_progress()

    def events(self, batch: EventBatch, until: int, lost: int) -> None:
        """Take the next events, of which those before `until` (CLOCK_MONOTONIC ns) are complete now.

        `lost` is how many were lost since the beginning.
        """
        self._lost = lost
        self._events.add(batch, until, lost)

    def look(self, look: Snapshot, model_input: ModelInput, ended: int) -> None:
        """Take a look that `ended` just now, CLOCK_MONOTONIC ns, and what of it a model is compared with."""
        self.flush()
        self._write_large(FrameKind.SIGHT, ended, lambda: encode_sight(model_input), ranges_worth(model_input))
        self._look = TimedSnapshot(look, ended)
        if not self._kept or time.monotonic() - self._kept >= self._look_seconds:
            self._write_look()
            self._write_progress()

    def end(self, ending: Ending) -> None:
        """Write what is left, and how it ended."""
        self.flush()
        self._write_look()
        if self._too_large is not None:
            ending = replace(ending, limits=[*ending.limits, self._too_large])
        self._write(FrameKind.ENDING, time.monotonic_ns(), contents.encode(ending))

    def close(self) -> None:
        """Close the file; one that holds nothing is removed again. Idempotent."""
        self._writer.close()

    def flush(self) -> None:
        """Write the events that wait."""
        self._events.flush()

    def _write_look(self) -> None:
        if self._look is not None:
            look, self._look = self._look, None
            self._write_large(FrameKind.LOOK, look.ended, lambda: encode_look(look))
            self._kept = time.monotonic()

    def _write_large(self, kind: FrameKind, ended: int, payload: Callable[[], bytes], at_least: int = 0) -> None:
        """Write a frame whose size is the target's to choose; one that no frame can hold is left out, and told."""
        try:
            self._write(kind, ended, payload(), at_least)
        except RecordingError as error:
            self._too_large = Limit("recording-looks", "some of the looks in the recording", error.what, "")

    def _write_progress(self) -> None:
        if self._measure is not None:
            progress = Progress(self._measure(), self._lost)
            self._write(FrameKind.PROGRESS, time.monotonic_ns(), contents.encode(progress))

    def _write(self, kind: FrameKind, time_ns: int, payload: bytes, at_least: int = 0) -> None:
        self._writer.write(kind, time_ns, payload, max(at_least, least_stored(payload)))
