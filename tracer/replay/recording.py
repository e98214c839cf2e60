"""The report of a recording at its end, or at any moment before.

What was recorded goes through the same session as when it was watched. At the end, and at the moment of a look, that
gives the report that `gomem trace` would have given. Between two looks it has what events tell: mappings, region
states, and what the kernel told of RAM by itself. What takes a look is null, for it would be of another moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import numpy as np
from msgspec.structs import replace

from gomem.tracer.addresses.work import TooMuchWork
from gomem.tracer.errors import UsageError
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.program.go_program import WITHOUT_GO
from gomem.tracer.recording.event_codec import EventChunk
from gomem.tracer.recording.frames import RecordingError, Tick, Worth
from gomem.tracer.recording.reader import Content, RecordingReader, StoredSnapshot
from gomem.tracer.recording.snapshot_codec import TimedSnapshot
from gomem.tracer.recording.watching import Beginning, Ending, Progress
from gomem.tracer.replay.advance import advance
from gomem.tracer.replay.feeding import Feeder
from gomem.tracer.replay.moment import Moment
from gomem.tracer.replay.seen import Replayed
from gomem.tracer.report import BetweenLooks, Limit, Overhead, Report, Resident
from gomem.tracer.report.findings.rules import find
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.watch.moments import parse_moment
from gomem.tracer.watch.session import NO_OVERHEAD, Origin, TargetSession

# Events of several CPUs may be written a little out of order: how long after a moment one from before may still come.
_SLACK = 5_000_000_000
# How much work a recording may make, in steps of about 100 ns. Real ones were seen to make 1 to 8 for each byte.
_WORK = Worth(1 << 25, 200)


class _Player:
    """Gives a session what a recording has up to a moment; times are CLOCK_MONOTONIC ns."""

    def __init__(self, beginning: Beginning, reader: RecordingReader, moment: float | datetime | None) -> None:
        reason = f"recorded by {beginning.backend}: {beginning.reason}"
        origin = Origin("replay", reason, beginning.backend != "procfs", beginning.sees_states)
        self.beginning = beginning
        self.session = TargetSession(origin, reader.symbolize, beginning.started)
        self.moment = Moment(beginning, moment, reader.look_times() if moment is not None else [])
        self.last = beginning.started or 0  # the last event or look that counts
        self.looks: list[StoredSnapshot] = []  # the last one, and the one before in case it is damaged
        self.lost = 0
        self.overhead: Overhead | None = None
        self.ending: Ending | None = None
        self.whole = True  # nothing in the recording is after the moment
        self.too_dear = False  # it makes more work than its bytes are worth: what follows is left out
        self._reader = reader
        self._feeder = Feeder(self.session)

    def take(self, content: Content) -> bool:
        """Take the next content; return False when all that follows is after the moment, or too dear."""
        self._feeder.work.most = _WORK.most(self._reader.read)
        with self._bounded():
            return self._take(content)
        return False

    def flush(self) -> None:
        """Take all that is held back: no more content will come."""
        with self._bounded():
            self.session.flush()
        self._feeder.work.most = math.inf  # the report is made once

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        try:
            yield
        except TooMuchWork:
            self.too_dear, self.whole = True, False

    def _take(self, content: Content) -> bool:
        if isinstance(content, list):
            return self._take_steps(content)
        if isinstance(content, ModelInput):
            if content.ended <= self.moment.until:
                self.session.compare(content)
        elif isinstance(content, StoredSnapshot):
            if content.time <= self.moment.until:
                self.looks = [*self.looks[-1:], content]
                self.last = max(self.last, content.time)
        elif isinstance(content, Progress):
            if self.overhead is None or self.last < self.moment.until:
                self.overhead = content.overhead
        elif isinstance(content, Ending):
            self.ending = content
        return True

    def _take_steps(self, steps: list[EventChunk]) -> bool:
        for step in steps:
            batch = step.batch
            if len(batch) and self.moment.start is None:
                entered = np.where(batch["entered"] > 0, batch["entered"], batch["time"])
                self.moment.start_at(int(entered.min()))
            if len(batch) and int(batch["time"].max()) > self.moment.until:
                self.whole = False
                if int(batch["time"].min()) > self.moment.until + _SLACK:
                    self._feeder.flush()
                    return False
                batch = batch[batch["time"] <= self.moment.until]
            if len(batch):
                self.last = max(self.last, int(batch["time"].max()))
                self.lost = step.lost
            self._feeder.feed(EventChunk(batch, min(step.until, self.moment.until), step.lost))
        self._feeder.flush()
        return True


def replay_recording(
    path: str, at: str | None = None, tick: Tick | None = None, seen: Replayed | None = None
) -> Report:
    """Return the report; `tick` is told how many of how many bytes have been read, `seen` the looks on the way.

    Raises RecordingError where not even the beginning is intact, UsageError for a bad moment.
    """
    moment = None if at is None else parse_moment(at)
    with RecordingReader(path, tick) as reader:
        player = _played(reader, moment, seen)
        if at is not None:
            _check_inside(player, at)
        timed = _decoded(reader, player)
        limits = [*_limits(player, timed), *reader.limits()]
    if seen is not None:
        seen.end(timed, player.moment.start or player.last)
    if moment is None or timed is None or timed.ended == player.moment.until:
        return _report(player, timed.look if timed else None, limits)
    return _between_looks(player, timed, limits)


def _played(reader: RecordingReader, moment: float | datetime | None, seen: Replayed | None) -> _Player:
    contents = reader.contents()
    beginning = next((content for content in contents if isinstance(content, Beginning)), None)
    if beginning is None:
        raise RecordingError(
            f"{reader.path} does not say whom it is of: its beginning is damaged",
            "; ".join(limit.why for limit in reader.limits()[:2]),
        )
    player = _Player(beginning, reader, moment)
    if seen is not None:
        seen.expect([time for time in reader.look_times() if time <= player.moment.until])
    for content in contents:
        if seen is not None and isinstance(content, StoredSnapshot) and content.time <= player.moment.until:
            seen.meet(content)
        if not player.take(content):
            break
    player.flush()
    return player


def _decoded(reader: RecordingReader, player: _Player) -> TimedSnapshot | None:
    for stored in reversed(player.looks):
        try:
            return stored.decode()
        except RecordingError as error:
            reader.note(stored, error)
    return None


def _check_inside(player: _Player, at: str) -> None:
    """Raise UsageError if the moment is after the end or before the beginning."""
    start, last = player.moment.start or 0, player.last
    if player.ending is not None:
        last = max(last, start + int(player.ending.seconds * 1e9))
    elif not player.whole:
        last = max(last, player.moment.until, player.moment.asked)
    if not start <= player.moment.asked <= last:
        covers = f"it begins at {player.moment.clock(start)} and covers {max(last - start, 0) / 1e9:.3f} seconds"
        raise UsageError(f"--at {at} is not in the recording", covers)


def _report(player: _Player, look: Snapshot | None, limits: list[Limit]) -> Report:
    start = player.moment.start if player.moment.start is not None else player.last
    seconds = max((player.last if player.moment.wanted is None else player.moment.until) - start, 0) / 1e9
    overhead, lost, ending, process = player.overhead, player.lost, player.ending, None
    if ending is not None and player.moment.wanted is None:
        seconds, overhead, lost, process = ending.seconds, ending.overhead, ending.lost, ending.process
        player.session.goroutine_growth = ending.goroutine_growth
    player.session.look = look
    facts = player.beginning.facts
    return player.session.report(facts, _taken_at(player), seconds, overhead or NO_OVERHEAD, limits, lost, process)


def _limits(player: _Player, timed: TimedSnapshot | None) -> Iterator[Limit]:
    at_end = player.ending is not None and player.moment.wanted is None
    yield from player.ending.limits if player.ending is not None and at_end else player.beginning.limits
    if player.ending is None and player.whole:
        why = "it breaks off: gomem was killed, or is still recording"
        yield Limit("recording-breaks-off", "the end of the recording", why, "")
    if player.too_dear:
        yield Limit(
            "recording-too-dear",
            f"what happened after the first {max(player.last - (player.moment.start or 0), 0) / 1e9:.3f} s",
            "the recording makes more work than one of as many bytes that gomem has written: somebody has made it so",
            "ask for an earlier moment: --at",
        )
    if timed is None and not at_end:
        what = "the state: virtual, resident, heap"
        yield Limit("no-look-yet", what, "no look was recorded until then", "ask for a later moment")


def _taken_at(player: _Player) -> str:
    if player.ending is not None and player.moment.wanted is None:
        return player.ending.taken_at
    return player.moment.clock(player.last if player.moment.wanted is None else player.moment.until)


def _between_looks(player: _Player, timed: TimedSnapshot, limits: list[Limit]) -> Report:
    """Return the report of a moment behind a look, with what events tell of it."""
    session, until = player.session, player.moment.until
    if session.reconciler is None or not session.origin.has_events:
        return _report(player, timed.look, [*limits, _as_of_the_look(player, timed)])
    virtual, kinds = advance(timed.look, session.reconciler.model)
    after = next((time for time in player.moment.look_times if time > until), None)
    then = timed.look.kernel.resident()
    between = BetweenLooks(
        looked_at=player.moment.clock(timed.ended),
        seconds_before=round((until - timed.ended) / 1e9, 3),
        resident_then=then,
        resident_age=None,
        look_before=player.moment.seconds(timed.ended),
        look_after=None if after is None else player.moment.seconds(after),
    )
    of_the_program = [limit for limit in timed.look.limits if limit.id in WITHOUT_GO]
    report = _report(player, None, [*of_the_program, *limits, _not_looked_at(between)])
    report = replace(report, virtual=virtual, kinds=kinds, between_looks=between)
    return _with_resident(replace(report, findings=find(report)), session.activity.residency.told_at, until)


def _with_resident(report: Report, told_at: int, until: int) -> Report:
    """Add what the kernel told of RAM by itself; no finding rests on it, for it is of a moment before."""
    live, between = report.live_resident, report.between_looks
    if live is None or between is None:
        return report
    now = live.now
    resident = Resident(now.total, now.anonymous, now.file, now.shmem, now.swap, None, None, None)
    age = round(max(until - told_at, 0) / 1e9, 3)
    return replace(report, resident=resident, between_looks=replace(between, resident_age=age))


def _as_of_the_look(player: _Player, timed: TimedSnapshot) -> Limit:
    before, look = (player.moment.until - timed.ended) / 1e9, player.moment.seconds(timed.ended)
    return Limit(
        "as-of-the-look-before",
        "what has happened since the last look",
        f"the recording has looks only, no events: all figures are of the look {before:.3f} s before this moment",
        f"ask for its moment: --at {look:.3f}; gomem record --backend bpf keeps events, too",
    )


def _not_looked_at(between: BetweenLooks) -> Limit:
    around = " or ".join(f"--at {one:.3f}" for one in (between.look_before, between.look_after) if one is not None)
    return Limit(
        "between-looks",
        "what takes a look: RAM by who holds it, the heap's pages, MemStats, spans, the cgroup",
        f"the last look was done {between.seconds_before:.3f} s before this moment; mappings, region states and events "
        "are of the moment",
        f"ask for the moment of a look: {around}; gomem record --look-every keeps more of them",
    )
