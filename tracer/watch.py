"""Watching a target for a while: events into the activity model, and a look at the state now and then.

The last look that succeeded is kept, so that a process that is killed in the middle is still reported as it was
shortly before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tracer.errors import GomemError, TargetError, TargetGone
from tracer.events import EventBatch, EventSource, Kind, no_events
from tracer.inspection import Inspector, Look
from tracer.model.activity import Activity
from tracer.model.follower import Follower
from tracer.model.sight import Sight
from tracer.plugins import Plugins
from tracer.recording.recorder import Recorder
from tracer.report import Limit

_TICK = 0.25  # seconds between checks for the end
_LOOK_EVERY = 2.0  # seconds
_LOOK_SHARE = 0.02  # of our time at the most, for targets that are slow to read
_FIRST_LOOK = 0.05  # seconds after the start of a launched program; its runtime is up by then
_LAST_DRAIN = 0.05
_SECOND_LOOK = 0.05  # seconds until a difference between model and look is looked at again
_LAST_LOOKS = 4  # at the end, while model and look differ
_SETTLED_BY = 1.0  # seconds; the events of a look have arrived long before
_DEAR_LOOK = 0.5  # seconds; one that takes longer is not repeated at the end


@dataclass(slots=True)
class Ending:
    """How the watching ended: the seconds it took, and why before its time, if so."""

    seconds: float
    early: Limit | None = None


class Watch:
    """One stretch of watching of one target."""

    def __init__(
        self,
        inspector: Inspector,
        source: EventSource | None,
        activity: Activity,
        accept: Callable[[EventBatch], EventBatch] = lambda batch: batch,
        recorder: Recorder | None = None,
        follower: Follower | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        """`source` is started already, or None where only looks are taken; `accept` may drop events.

        A `recorder` that has begun gets all that is seen. A `follower` gets the events in the place of its `activity`,
        and the looks, which it compares with its model. `plugins` see which files are mapped.
        """
        self.look: Look | None = None
        self._inspector = inspector
        self._source = source
        self._activity = activity
        self._accept = accept
        self._recorder = recorder
        self._follower = follower
        self._plugins = plugins
        self._cost = 0.0
        self._started = time.monotonic()

    def run(self, seconds: float | None, stop: Callable[[], bool], *, launched: bool = False) -> Ending:
        """Watch for `seconds` (None: until the target ends), or until `stop` says so.

        Raises nothing that the target can cause: its end and its exec are part of the Ending.
        """
        early: Limit | None = None
        try:
            self._watch(seconds, stop, launched)
            self.take_look(last=True)
            self._look_until_sure()
        except TargetError as error:
            early = self._explain(error)
        return Ending(time.monotonic() - self._started, early)

    def finish(self) -> None:
        """Stop the source and count what was still buffered."""
        if self._source is None:
            return
        self._source.stop()
        self._plugins = None  # nothing can be probed any more
        self._count(self._source.poll(0), time.monotonic_ns())
        if self._follower is not None:
            self._follower.flush()

    def take_look(self, *, last: bool = False) -> None:
        """Look at the target now; raises TargetGone or TargetError when it is not what it was.

        For the `last` look the target is stopped, if that was asked for.
        """
        begin = time.monotonic_ns()
        self.look = self._inspector.last_look() if last else self._inspector.look()
        end = time.monotonic_ns()
        self._cost = (end - begin) / 1e9
        if self._recorder is None and self._follower is None:
            return
        sight = Sight.of(self.look)
        if self._recorder is not None:
            self._recorder.look(self.look, sight, end)
        if self._follower is not None:
            self._follower.look(sight)

    def _look_until_sure(self) -> None:
        """Wait until the last look was compared with the model, and take another one if they differ."""
        follower = self._follower
        if follower is None:
            return
        for _ in range(_LAST_LOOKS):
            deadline = time.monotonic() + _SETTLED_BY
            while follower.pending and time.monotonic() < deadline:
                self._poll(_LAST_DRAIN)
            if not follower.suspicious or self._cost > _DEAR_LOOK:
                return
            self.take_look(last=True)

    def _watch(self, seconds: float | None, stop: Callable[[], bool], launched: bool) -> None:
        pause = _FIRST_LOOK if launched else 0.0
        next_look = self._started + pause
        while not stop():
            now = time.monotonic()
            left = None if seconds is None else self._started + seconds - now
            if left is not None and left <= 0:
                return
            if self._follower is not None and self._follower.suspicious:
                next_look = min(next_look, now + max(_SECOND_LOOK, self._cost / _LOOK_SHARE))
            if now >= next_look and not (self._follower is not None and self._follower.pending):
                self._try_look(launched)
                pause = min(max(2 * pause, _FIRST_LOOK), _LOOK_EVERY) if launched else _LOOK_EVERY
                next_look = time.monotonic() + max(pause, self._cost / _LOOK_SHARE)
            rest = min(_TICK, max(next_look - time.monotonic(), _SECOND_LOOK))
            self._poll(rest if left is None else min(rest, left))

    def _try_look(self, launched: bool) -> None:
        try:
            self.take_look()
        except TargetGone:
            # Its last events are still in the source; the EXIT among them ends the watch.
            if self._source is None:
                raise
        except TargetError:
            raise
        except GomemError:
            if not launched:
                raise

    def _poll(self, timeout: float) -> None:
        if self._source is None:
            time.sleep(timeout)
            self._inspector.target.check_same_program()
            return
        began = time.monotonic_ns()
        batch = self._count(self._source.poll(timeout), began)
        if (batch["kind"] == Kind.EXIT).any():
            self._count(self._source.poll(_LAST_DRAIN), began)
            raise TargetGone(f"process {self._inspector.target.pid} has exited")
        if (batch["kind"] == Kind.EXEC).any():
            raise TargetError(f"process {self._inspector.target.pid} executed another program")
        if not len(batch):
            self._inspector.target.check_alive()

    def _count(self, batch: EventBatch, until: int) -> EventBatch:
        """Take a batch that has all that happened before `until` (CLOCK_MONOTONIC ns) and was not taken yet."""
        batch = self._accept(batch)
        execs = (batch["kind"] == Kind.EXEC).nonzero()[0]
        if len(execs):
            # What came after belongs to another program.
            batch = batch[: execs[0] + 1]
            self._accept = _nothing
        if self._plugins is not None:
            batch = self._plugins.see(batch)
        if self._follower is not None and self._source is not None:
            self._follower.feed(batch, until, self._source.lost)
        else:
            self._activity.feed(batch)
        if self._recorder is not None and self._source is not None:
            self._recorder.events(batch, until, self._source.lost)
        return batch

    def _explain(self, error: TargetError) -> Limit:
        after = time.monotonic() - self._started
        if self.look is None:
            state = "no state could be read before"
        else:
            state = f"the state shown is the last one that was read ({self.look.kernel.taken_at})"
        return Limit("the rest of the time", f"after {after:.1f} s: {error.what}; {state}", error.fix)


def _nothing(batch: EventBatch) -> EventBatch:
    del batch
    return no_events()
