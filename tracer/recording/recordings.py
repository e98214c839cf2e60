"""The recordings of one process: a file for each program that it executes, NAME.rec, NAME.2.rec, and so on."""

from __future__ import annotations

import os

from gomem.tracer.recording.recorder import LOOK_SECONDS, Recorder


class Recordings:
    """Gives out recorders, one a program."""

    def __init__(self, path: str, *, force: bool = False, look_seconds: float = LOOK_SECONDS) -> None:
        """Open the first file; nothing in it changes before something is recorded. Raises GomemError as Recorder.

        `look_seconds`: the least between two looks that are kept.
        """
        self._path = path
        self._force = force
        self._look_seconds = look_seconds
        first = Recorder(path, force=force, look_seconds=look_seconds)
        self._ready: Recorder | None = first
        self.recorders = [first]

    def __call__(self) -> Recorder:
        """Return the recorder of the next program."""
        recorder, self._ready = self._ready, None
        if recorder is None:
            stem, suffix = os.path.splitext(self._path)
            path = f"{stem}.{len(self.recorders) + 1}{suffix}"
            recorder = Recorder(path, force=self._force, look_seconds=self._look_seconds)
            self.recorders.append(recorder)
        return recorder

    def close(self) -> None:
        """Close all files. Idempotent."""
        for recorder in self.recorders:
            recorder.close()
