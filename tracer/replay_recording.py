"""The report of a recording at its end, or at any moment before.

At its end it is the report that `gomem trace` would have given. Before, the state is the last look that was taken
until then, and its virtual memory what the model makes of the events since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from tracer.model.sight import Sight
from tracer.model.space import AddressSpaceModel
from tracer.moments import parse_moment, rfc3339
from tracer.recording.contents import Beginning, Ending, Progress
from tracer.recording.event_codec import DecodedEvents
from tracer.recording.frames import RecordingError
from tracer.recording.look_codec import TimedLook
from tracer.recording.tape import StoredLook, Tape
from tracer.report import Limit, Overhead, Report

_ALWAYS = (1 << 64) - 1
# Events of several CPUs may be written a little out of order: how long after a moment one from before may still come.
_SLACK = 5_000_000_000
_NO_OVERHEAD = Overhead(tracer_cpu_seconds=0.0, tracer_rss=0, probes=[], target_slowdown_estimate=None)


@dataclass(slots=True)
class _Played:
    """What a recording said until the moment asked for; times are CLOCK_MONOTONIC ns."""

    beginning: Beginning
    activity: Activity
    start: int | None
    until: int
    last: int  # the last event or look that counts
    look: StoredLook | None = None
    previous: StoredLook | None = None  # in case the last one is damaged
    lost: int = 0
    overhead: Overhead | None = None
    ending: Ending | None = None
    ended: bool = False  # the whole recording lies before the moment


def replay_recording(path: str, at: str | None = None) -> Report:
    """Return the report. Raises RecordingError where not even the beginning is intact, UsageError for a bad moment."""
    moment = None if at is None else parse_moment(at)
    with Tape(path) as tape:
        played = _play(tape, moment)
        timed = _decoded(tape, played)
        if at is not None and played.ended:
            _check_inside(played, at)
        limits = [*_limits(played, timed, at is not None), *tape.limits()]
        report = assemble(
            played.beginning.facts, timed.look if timed else None, _watched(played, limits), _taken_at(played)
        )
        if at is None or timed is None:
            return report
        return _as_of(report, path, timed, played)


def _play(tape: Tape, moment: float | datetime | None) -> _Played:
    contents = tape.contents()
    beginning = next((content for content in contents if isinstance(content, Beginning)), None)
    if beginning is None:
        raise RecordingError(
            f"{tape.path} does not say whom it is of: its beginning is damaged",
            "; ".join(limit.why for limit in tape.limits()[:2]),
        )
    activity = Activity(tape.symbolize)
    if beginning.started is not None:
        activity.mark_start(beginning.started)
    played = _Played(beginning, activity, beginning.started, _ALWAYS, beginning.started or 0)
    if isinstance(moment, datetime):
        since = int((moment.timestamp() - beginning.clock / 1e9) * 1e9)
        played.until = max(beginning.monotonic + since, 0)
    elif moment is not None and played.start is not None:
        played.until = played.start + int(moment * 1e9)
    for content in contents:
        if isinstance(content, DecodedEvents):
            if isinstance(moment, float) and played.start is None:
                played.until = _first(content) + int(moment * 1e9)
            played.start = _first(content) if played.start is None else played.start
            if _take_events(played, content):
                return played
        elif isinstance(content, StoredLook):
            if content.time <= played.until:
                played.previous, played.look = played.look, content
                played.last = max(played.last, content.time)
        elif isinstance(content, Progress):
            if played.overhead is None or played.last < played.until:
                played.overhead, played.lost = content.overhead, max(played.lost, content.lost)
        elif isinstance(content, Ending):
            played.ending = content
    played.ended = True
    return played


def _take_events(played: _Played, content: DecodedEvents) -> bool:
    """Count the events up to the moment; return whether all that may come is later."""
    earliest = _ALWAYS
    for batch in content.batches:
        if not len(batch):
            continue
        earliest = min(earliest, int(batch["time"][0]))
        some = batch if played.until == _ALWAYS else batch[batch["time"] <= played.until]
        if len(some):
            played.activity.feed(some)
            played.last = max(played.last, int(some["time"][-1]))
            played.lost = content.lost
    return earliest - _SLACK > played.until


def _first(content: DecodedEvents) -> int:
    batch = next(batch for batch in content.batches if len(batch))
    entered = np.where(batch["entered"] > 0, batch["entered"], batch["time"])
    return int(entered.min())


def _decoded(tape: Tape, played: _Played) -> TimedLook | None:
    for stored in (played.look, played.previous):
        if stored is not None:
            try:
                return stored.decode()
            except RecordingError as error:
                tape.note(stored, error)
    return None


def _check_inside(played: _Played, at: str) -> None:
    """Raise UsageError if the moment is after the end or before the beginning."""
    start = played.start or 0
    last = start + int(played.ending.seconds * 1e9) if played.ending else played.last
    if played.until > last or played.until < start:
        began = rfc3339(played.beginning.clock + start - played.beginning.monotonic)
        raise UsageError(
            f"--at {at} is not in the recording", f"it begins at {began} and covers {(last - start) / 1e9:.3f} seconds"
        )


def _watched(played: _Played, limits: list[Limit]) -> Watched:
    beginning, ending = played.beginning, played.ending
    whole = played.until == _ALWAYS
    start = played.start if played.start is not None else played.last
    seconds = max((played.last if whole else played.until) - start, 0) / 1e9
    overhead, lost = played.overhead, played.lost
    if ending is not None and whole:
        seconds, overhead, lost = ending.seconds, ending.overhead, ending.lost
    return Watched(
        backend="replay",
        reason=f"recorded by {beginning.backend}: {beginning.reason}",
        seconds=round(seconds, 3),
        activity=played.activity if beginning.backend != "procfs" else None,
        lost=lost,
        overhead=overhead or _NO_OVERHEAD,
        limits=limits,
    )


def _limits(played: _Played, timed: TimedLook | None, earlier: bool) -> Iterator[Limit]:
    if played.ending is not None and not earlier:
        yield from played.ending.limits
    else:
        yield from played.beginning.limits
    if played.ended and played.ending is None:
        yield Limit("the end of the recording", "it breaks off: gomem was killed, or still records", "")
    if timed is None and not (played.ending and any("state" in limit.what for limit in played.ending.limits)):
        yield Limit("the state: virtual, resident, heap", "no look was recorded until then", "ask for a later moment")


def _taken_at(played: _Played) -> str:
    if played.ending is not None and played.until == _ALWAYS:
        return played.ending.taken_at
    return rfc3339(played.beginning.clock + min(played.until, played.last) - played.beginning.monotonic)


def _as_of(report: Report, path: str, timed: TimedLook, played: _Played) -> Report:
    """Bring what events move up to the moment: mappings, region states, and heap pages with them."""
    look = timed.look
    advanced = advance(look, _model_at(path, timed, played.until))
    ago = (played.until - timed.ended) / 1e9
    why = f"it is as of the last look, {ago:.3f} s before; mappings, region states and events are of the moment"
    taken_at = rfc3339(played.beginning.clock + played.until - played.beginning.monotonic)
    limits = [*report.limits, Limit("what is in RAM at this very moment", why, "")]
    report = replace(report, taken_at=taken_at, limits=limits)
    return _with_space(report, look, advanced.space) if advanced.changed else report


def _with_space(report: Report, look: Look, space: AddressSpace) -> Report:
    limit = Limit(
        "MemStats, spans and which heap pages are in use",
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
    )
    return replace(report, findings=find(report))


def _model_at(path: str, timed: TimedLook, until: int) -> AddressSpaceModel:
    with Tape(path) as tape:
        model = AddressSpaceModel.from_look(Sight.of(timed.look), tape.symbolize)
        for content in tape.contents():
            if isinstance(content, DecodedEvents):
                for batch in content.batches:
                    some: EventBatch = batch[batch["time"] <= until]
                    if len(some):
                        model.apply(some)
        return model
