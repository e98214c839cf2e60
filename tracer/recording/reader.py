"""Reads a recording: its contents in their order, and what of them is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording import contents
from gomem.tracer.recording.contents import FrameKind
from gomem.tracer.recording.event_codec import LATEST, EventChunk, EventDecoder
from gomem.tracer.recording.frames import Damage, Frame, FrameReader, RecordingError, Tick
from gomem.tracer.recording.snapshot_codec import TimedSnapshot, decode_look, decode_sight
from gomem.tracer.recording.watching import Beginning, Ending, Progress
from gomem.tracer.report import Limit

MOST_NAMED = 1 << 20
MOST_DAMAGES = 20  # that are told one by one


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A look that is not decoded yet: most of them are passed over. `time` is when it was taken, CLOCK_MONOTONIC ns."""

    time: int
    frame: Frame

    def decode(self) -> TimedSnapshot:
        """Return the look; raises RecordingError."""
        return decode_look(self.frame.payload(), len(self.frame.stored))


Content = Beginning | StoredSnapshot | ModelInput | list[EventChunk] | Progress | Ending


class RecordingReader:
    """One recording. `names` fills up while `contents` is gone through, and so do the damages."""

    def __init__(self, path: str, tick: Tick | None = None) -> None:
        """Open it; raises RecordingError if it is none. `tick` is told how many of how many bytes have been read."""
        self.names: dict[int, str] = {}
        self.path = path
        self._reader = FrameReader(path, tick)
        self._decoder = EventDecoder()
        self._latest = 0  # event so far, CLOCK_MONOTONIC ns
        self._damages: list[str] = []
        self._damaged = 0

    def __enter__(self) -> Self:
        """Return self; the file is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def read(self) -> int:
        """How many bytes have been gone through."""
        return self._reader.position

    def contents(self) -> Iterator[Content]:
        """Yield what is intact, in the order of the file. Raises nothing for what is not: see `limits`."""
        for found in self._reader.frames():
            if isinstance(found, Damage):
                self._note(_told(found, self._reader.size))
                continue
            try:
                content = self._content(found)
            except RecordingError as error:
                self._note(f"frame {found.number} at byte {found.offset} is unusable ({_kind(found)}): {error.what}")
                continue
            if content is not None:
                yield content

    def look_times(self) -> list[int]:
        """Return when the looks that were kept were done, CLOCK_MONOTONIC ns, in order; reads no more than heads."""
        found = (one for one in self._reader.frames() if isinstance(one, Frame))
        return sorted(frame.time for frame in found if frame.kind == FrameKind.LOOK)

    def limits(self) -> list[Limit]:
        """Return what could not be read until now, as limits of a report."""
        limits = [Limit("recording-damaged", "a part of the recording", what, "") for what in self._damages]
        if self._damaged > len(self._damages):
            more = self._damaged - len(self._damages)
            why = f"{more} more places of the file are damaged"
            limits.append(Limit("recording-damaged", "a part of the recording", why, ""))
        if self._decoder.stacks_lost:
            why = f"the callers of {self._decoder.stacks_lost} events were in a damaged part of the file"
            limits.append(Limit("recording-callers", "callers", why, ""))
        return limits

    def symbolize(self, address: int) -> str | None:
        """Return the name of the function at an address inside a calling instruction, if it was recorded."""
        return self.names.get(address)

    def note(self, look: StoredSnapshot, error: RecordingError) -> None:
        """Take down that a look turned out to be unusable."""
        self._note(f"frame {look.frame.number} at byte {look.frame.offset} is unusable (LOOK): {error.what}")

    def _content(self, frame: Frame) -> Content | None:
        if frame.kind == FrameKind.LOOK:
            return StoredSnapshot(frame.time, frame)
        if frame.kind not in list(FrameKind):
            return None
        payload, stored = frame.payload(), len(frame.stored)
        if frame.kind == FrameKind.BEGINNING:
            return contents.decode(Beginning, payload, stored)
        if frame.kind == FrameKind.EVENTS:
            return self._told_in_time(self._decoder.decode(payload, stored))
        if frame.kind == FrameKind.SIGHT:
            return decode_sight(payload, stored)
        if frame.kind == FrameKind.PROGRESS:
            return contents.decode(Progress, payload, stored)
        if frame.kind == FrameKind.ENDING:
            return contents.decode(Ending, payload, stored)
        if frame.kind == FrameKind.NAMES and len(self.names) < MOST_NAMED:
            self.names |= contents.decode_names(payload, stored)
        return None

    def _told_in_time(self, steps: list[EventChunk]) -> list[EventChunk]:
        """Let no step hold back what was taken with earlier ones: each was taken when all those had happened.

        What is held back is gone through again at each step.
        """
        told = []
        for step in steps:
            told.append(replace(step, until=max(step.until, self._latest)))
            if len(step.batch):
                self._latest = max(self._latest, min(int(step.batch["time"].max()) + 1, LATEST))
        return told

    def _note(self, what: str) -> None:
        self._damaged += 1
        if len(self._damages) < MOST_DAMAGES:
            self._damages.append(what)


def _told(damage: Damage, size: int) -> str:
    lost = {None: "", 1: "; one frame is lost"}.get(damage.frames, f"; {damage.frames} frames are lost")
    end = " (the file was cut, or its writer died)" if damage.offset + damage.size >= size else ""
    return f"{damage.what} at byte {damage.offset}, {damage.size} bytes are passed over{lost}{end}"


def _kind(frame: Frame) -> str:
    return FrameKind(frame.kind).name if frame.kind in list(FrameKind) else str(frame.kind)
