"""From a file to a report: a recording of ours, or a log that strace or dtruss made."""

from __future__ import annotations

from gomem.tracer.errors import GomemError
from gomem.tracer.recording.frames import Tick, is_recording
from gomem.tracer.replay.log import replay_log
from gomem.tracer.replay.recording import replay_recording
from gomem.tracer.replay.seen import Replayed
from gomem.tracer.report import Report

SNIFFED = 1 << 16  # bytes that tell what a file is


def replay_file(path: str, at: str | None = None, tick: Tick | None = None, seen: Replayed | None = None) -> Report:
    """Return the report of a file at a moment: its end, seconds since its beginning, or a time in RFC 3339.

    `tick` is told how many of how many bytes have been read; `seen` keeps the looks of a recording, to show them.

    Raises UsageError for a moment that is none or outside the file, GomemError for a file that is nothing we know.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(SNIFFED)
    except OSError as error:
        raise GomemError(f"cannot read {path}: {error.strerror}") from error
    if is_recording(head):
        return replay_recording(path, at, tick, seen)
    return replay_log(path, head, at, tick)
