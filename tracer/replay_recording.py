"""The report of a recording at its end, or at any moment before.

What was recorded goes through the same activity and model as when it was watched. At the end that gives the report
that `gomem trace` would have given. At a moment before, the state is the last look that was kept until then, with
mappings, region states and heap pages as the model has them at that moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np

from tracer import join
from tracer.advance import advance, arena_rows, page_states
from tracer.assemble import Watched, assemble
from tracer.errors import UsageError
from tracer.events import EventBatch
from tracer.findings import find
from tracer.inspection import Look
from tracer.join import AddressSpace
from tracer.model.activity import Activity
from tracer.model.follower import Follower
from tracer.model.sight import Sight
from tracer.model.space import AddressSpaceModel
from tracer.moments import parse_moment, rfc3339
from tracer.recording.contents import Beginning, Ending, Progress
from tracer.recording.event_codec import Step
from tracer.recording.frames import RecordingError
from tracer.recording.look_codec import TimedLook
from tracer.recording.tape import Content, StoredLook, Tape
from tracer.report import Limit, Overhead, Report

_ALWAYS = (1 << 63) - 1
# Events of several CPUs may be written a little out of order: how long after a moment one from before may still come.
_SLACK = 5_000_000_000
_NO_OVERHEAD = Overhead(tracer_cpu_seconds=0.0, tracer_rss=0, probes=[], target_slowdown_estimate=None)


class _Player:
    """What a recording says up to a moment; times are CLOCK_MONOTONIC ns."""

    def __init__(self, beginning: Beginning, tape: Tape, moment: float | datetime | None) -> None:
        self.beginning = beginning
        self.activity = Activity(tape.symbolize)
        model = AddressSpaceModel(callers=self.activity.callers)
        self.follower = Follower(self.activity, model, follows_states=beginning.sees_states)
        self.start = beginning.started
        if self.start is not None:
            self.activity.mark_start(self.start)
        self.moment = moment
        self.until = self._moment()
        self.last = self.start or 0  # the last event or look that counts
        self.looks: list[StoredLook] = []  # the last one, and the one before in case it is damaged
        self.lost = 0
        self.overhead: Overhead | None = None
        self.ending: Ending | None = None
        self.whole = True  # nothing in the recording is after the moment

    def take(self, content: Content) -> bool:
        """Take the next content; return False when all that follows is after the moment."""
        if isinstance(content, list):
            return self._take_steps(content)
        if isinstance(content, Sight):
            if content.ended <= self.until:
                self.follower.look(content)
        elif isinstance(content, StoredLook):
            if content.time <= self.until:
                self.looks = [*self.looks[-1:], content]
                self.last = max(self.last, content.time)
        elif isinstance(content, Progress):
            if self.overhead is None or self.last < self.until:
                self.overhead = content.overhead
        elif isinstance(content, Ending):
            self.ending = content
        return True

    def _take_steps(self, steps: list[Step]) -> bool:
        for step in steps:
            batch: EventBatch = step.batch
            if len(batch) and self.start is None:
                entered = np.where(batch["entered"] > 0, batch["entered"], batch["time"])
                self.start = int(entered.min())
                self.until = self._moment()
            if len(batch) and int(batch["time"].max()) > self.until:
                self.whole = False
                if int(batch["time"].min()) > self.until + _SLACK:
                    return False
                batch = batch[batch["time"] <= self.until]
            if len(batch):
                self.last = max(self.last, int(batch["time"].max()))
                self.lost = step.lost
            self.follower.feed(batch, min(step.until, self.until), step.lost)
        return True

    def _moment(self) -> int:
        """Return the moment asked for; for ever while the beginning is not known yet."""
        begun = self.beginning
        if isinstance(self.moment, datetime):
            return max(begun.monotonic + int((self.moment.timestamp() - begun.clock / 1e9) * 1e9), 0)
        if self.moment is None or self.start is None:
            return _ALWAYS
        return min(self.start + int(self.moment * 1e9), _ALWAYS)

    def clock(self, time: int) -> str:
        """Return a moment as RFC 3339."""
        return rfc3339(self.beginning.clock + time - self.beginning.monotonic)


def replay_recording(path: str, at: str | None = None) -> Report:
    """Return the report. Raises RecordingError where not even the beginning is intact, UsageError for a bad moment."""
    moment = None if at is None else parse_moment(at)
    with Tape(path) as tape:
        player = _played(tape, moment)
        if at is not None:
            _check_inside(player, at)
        timed = _decoded(tape, player)
        limits = [*_limits(player, timed), *tape.limits()]
    look = timed.look if timed else None
    report = assemble(player.beginning.facts, look, _watched(player, limits), _taken_at(player))
    return report if moment is None or timed is None else _as_of(report, timed, player)


def _played(tape: Tape, moment: float | datetime | None) -> _Player:
    contents = tape.contents()
    beginning = next((content for content in contents if isinstance(content, Beginning)), None)
    if beginning is None:
        raise RecordingError(
            f"{tape.path} does not say whom it is of: its beginning is damaged",
            "; ".join(limit.why for limit in tape.limits()[:2]),
        )
    player = _Player(beginning, tape, moment)
    for content in contents:
        if not player.take(content):
            break
    player.follower.flush()
    return player


def _decoded(tape: Tape, player: _Player) -> TimedLook | None:
    for stored in reversed(player.looks):
        try:
            return stored.decode()
        except RecordingError as error:
            tape.note(stored, error)
    return None


def _check_inside(player: _Player, at: str) -> None:
    """Raise UsageError if the moment is after the end or before the beginning."""
    start, last = player.start or 0, player.last
    if player.ending is not None:
        last = max(last, start + int(player.ending.seconds * 1e9))
    elif not player.whole:
        last = max(last, player.until)
    if not start <= player.until <= last:
        covers = f"it begins at {player.clock(start)} and covers {max(last - start, 0) / 1e9:.3f} seconds"
        raise UsageError(f"--at {at} is not in the recording", covers)


def _watched(player: _Player, limits: list[Limit]) -> Watched:
    beginning, ending = player.beginning, player.ending
    watched = beginning.backend != "procfs"
    start = player.start if player.start is not None else player.last
    seconds = max((player.last if player.moment is None else player.until) - start, 0) / 1e9
    overhead, lost = player.overhead, player.lost
    if ending is not None and player.moment is None:
        seconds, overhead, lost = ending.seconds, ending.overhead, ending.lost
    return Watched(
        backend="replay",
        reason=f"recorded by {beginning.backend}: {beginning.reason}",
        seconds=round(seconds, 3),
        activity=player.activity if watched else None,
        lost=lost,
        overhead=overhead or _NO_OVERHEAD,
        limits=limits,
        follower=player.follower if watched else None,
    )


def _limits(player: _Player, timed: TimedLook | None) -> Iterator[Limit]:
    at_end = player.ending is not None and player.moment is None
    yield from player.ending.limits if player.ending is not None and at_end else player.beginning.limits
    if player.ending is None and player.whole:
        yield Limit("the end of the recording", "it breaks off: gomem was killed, or is still recording", "")
    if timed is None and not at_end:
        yield Limit("the state: virtual, resident, heap", "no look was recorded until then", "ask for a later moment")


def _taken_at(player: _Player) -> str:
    if player.ending is not None and player.moment is None:
        return player.ending.taken_at
    return player.clock(player.last if player.moment is None else player.until)


def _as_of(report: Report, timed: TimedLook, player: _Player) -> Report:
    """Bring what events move up to the moment: mappings, region states, and heap pages with them."""
    advanced = advance(timed.look, player.follower.model)
    ago = (player.until - timed.ended) / 1e9
    why = f"it is as of the last look, {ago:.3f} s before; mappings, region states and events are of the moment"
    limits = [*report.limits, Limit("what is in RAM at this very moment", why, "")]
    report = replace(report, taken_at=player.clock(player.until), limits=limits)
    return _with_space(report, timed.look, advanced.space) if advanced.changed else report


def _with_space(report: Report, look: Look, space: AddressSpace) -> Report:
    limit = Limit(
        "MemStats, spans, the runtime's structures, and which heap pages are in use",
        "events tell what was scavenged and what became ready again since the last look, not what is allocated in it",
        "ask for the end, or for a moment just after a look",
    )
    heap = report.heap
    if heap is not None:
        arenas = arena_rows(heap.arenas, space)
        heap = replace(heap, arenas=arenas, pages=page_states(space), resident=join.page_residency(space))
    report = replace(
        report,
        limits=[*report.limits, limit],
        virtual=join.virtual(space, runtime_known=look.runtime is not None),
        resident=replace(report.resident, total=int(space.resident.sum())) if report.resident else None,
        kinds=join.kind_rows(space),
        heap=heap,
        memstats=None,
        spans=None,
        span_states=None,
        caches=None,
        accounting=None,
        structure=None,
    )
    return replace(report, findings=find(report))
