"""Which looks of a recording are kept to show them."""

from __future__ import annotations

from gomem.tracer.recording.frames import RecordingError
from gomem.tracer.recording.reader import StoredSnapshot
from gomem.tracer.recording.snapshot_codec import TimedSnapshot
from gomem.tracer.report.memory_map import Picture
from gomem.tracer.watch.album import MOST_MAPS, Album


class Replayed:
    """An album of a recording: of its looks up to the moment that is asked for, spread over time."""

    def __init__(self) -> None:
        self._album = Album()
        self._times: frozenset[int] | None = None
        self._start = 0

    def expect(self, times: list[int]) -> None:
        """Know when the looks were done that will come, CLOCK_MONOTONIC ns, in order; so many are kept and no more."""
        most = 2 * MOST_MAPS
        count = min(len(times), most)
        self._times = frozenset(times[round(at * (len(times) - 1) / max(count - 1, 1))] for at in range(count))

    def meet(self, stored: StoredSnapshot) -> None:
        """Take a look that the recording has; one that is damaged is left out, the report says so."""
        if self._times is not None and stored.time in self._times:
            try:
                timed = stored.decode()
            except RecordingError:
                return
            self._album.see(timed.look, timed.ended)

    def end(self, timed: TimedSnapshot | None, start: int) -> None:
        """Take the look of the report, and since when moments count, CLOCK_MONOTONIC ns."""
        self._start = start
        if timed is not None and not self._album.has(timed.ended):
            self._album.see(timed.look, timed.ended)

    def picture(self) -> Picture:
        """Return what was seen."""
        return self._album.picture(self._start)
