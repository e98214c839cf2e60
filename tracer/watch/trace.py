"""Watching one program of one process: events as they come, and a look now and then.

The last look that succeeded is kept, so that a process that is killed in the middle is still reported as it was shortly
before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gomem.tracer.ending.watch import EndWatch
from gomem.tracer.errors import GomemError, TargetError, TargetExecuted, TargetGone
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.report import Limit, ProcessEnding, ProcessFacts
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.watch.backend import StartedBackend
from gomem.tracer.watch.live import LiveSession
from gomem.tracer.watch.probes import plan_probes
from gomem.tracer.watch.session import Ended, Outcome

LOOK_EVERY = 2.0  # seconds
LOOK_SHARE = 0.02  # of our time at the most, for targets that are slow to read
_TICK = 0.25  # seconds between checks for the end
_FIRST_LOOK = 0.05  # seconds after the start of a launched program; its runtime is up by then
_LAST_DRAIN = 0.05
_SECOND_LOOK = 0.05  # seconds until a difference between model and look is looked at again
_LAST_LOOKS = 4  # at the end, while model and look differ
_SETTLED_BY = 1.0  # seconds; the events of a look have arrived long before
_DEAR_LOOK = 0.5  # seconds; one that takes longer is not repeated at the end

Stop = Callable[[], bool]
Tick = Callable[[float, float | None], None]  # seconds watched so far, and left; None: nobody knows


def begin_session(
    inspector: Inspector,
    backend: StartedBackend,
    facts: ProcessFacts,
    *,
    launched: bool = False,
    since: int | None = None,
    recorder: Recorder | None = None,
) -> LiveSession:
    """Return the session of a program that a person wants to watch; see LiveSession."""
    return LiveSession(
        inspector,
        backend,
        facts,
        launched=launched,
        since=since,
        plan_plugin=lambda plugin: plan_probes(plugin, inspector.program.layout).parts(),
        recorder=recorder,
        goroutines=True,
    )


def run(
    session: LiveSession,
    seconds: float | None,
    stop: Stop,
    *,
    launched: bool = False,
    tick: Tick | None = None,
    ends: EndWatch | None = None,
    look_every: float | None = None,
    look_share: float | None = None,
) -> Outcome:
    """Watch for `seconds` (None: until the target ends), or until `stop` says so; `ends` sees when it was looked at.

    `look_every`: seconds between two looks, if they shall be less than usual; `look_share`: of our time, for looks.

    Raises nothing that the target can cause: its end and its exec are part of the outcome.
    """
    why, limit = Ended.TIME, None
    every = LOOK_EVERY if look_every is None else min(look_every, LOOK_EVERY)
    try:
        why = _watch(session, seconds, stop, launched, every, look_share or LOOK_SHARE, tick, ends)
        session.take_look(last=True)
        _look_until_sure(session)
    except TargetError as error:
        why, limit = _early(error), _explain(session, error)
    return Outcome(why, time.monotonic() - session.began, limit)


def _watch(
    session: LiveSession,
    seconds: float | None,
    stop: Stop,
    launched: bool,
    every: float,
    share: float,
    tick: Tick | None,
    ends: EndWatch | None,
) -> Ended:
    pause = _FIRST_LOOK if launched else 0.0
    began = time.monotonic()
    next_look = began + pause
    while not stop():
        now = time.monotonic()
        left = None if seconds is None else began + seconds - now
        if left is not None and left <= 0:
            return Ended.TIME
        if session.suspicious:
            next_look = min(next_look, now + max(_SECOND_LOOK, session.cost / share))
        if now >= next_look and not session.pending:
            _try_look(session, launched)
            if ends is not None:
                ends.see(session.inspector.target)
            pause = min(max(2 * pause, _FIRST_LOOK), every) if launched else every
            next_look = time.monotonic() + max(pause, session.cost / share)
        if tick is not None:
            tick(now - session.began, left)
        rest = min(_TICK, max(next_look - time.monotonic(), _SECOND_LOOK))
        session.poll(rest if left is None else min(rest, left))
    return Ended.STOP


def _try_look(session: LiveSession, launched: bool) -> None:
    try:
        session.take_look()
    except TargetGone:
        # Its last events are still in the source; the EXIT among them ends the watch.
        if session.backend.source is None:
            raise
    except TargetError:
        raise
    except GomemError:
        if not launched:
            raise


def _look_until_sure(session: LiveSession) -> None:
    """Wait until the last look was compared with the model, and take another one if they differ."""
    for _ in range(_LAST_LOOKS):
        deadline = time.monotonic() + _SETTLED_BY
        while session.pending and time.monotonic() < deadline:
            session.poll(_LAST_DRAIN)
        if not session.suspicious or session.cost > _DEAR_LOOK:
            return
        session.take_look(last=True)


def _early(error: TargetError) -> Ended:
    if isinstance(error, TargetGone):
        return Ended.EXIT
    return Ended.EXEC if isinstance(error, TargetExecuted) else Ended.UNREADABLE


def at_its_end(look: Snapshot | None, limit: Limit, ending: ProcessEnding | None) -> Limit:
    """Return what is to be said of the memory of a process that could not be read any longer, for the reason `limit`.

    Of one that is known to have ended nothing was missed: its memory is that of the last look, if there was one.
    """
    if ending is None or (ending.exit_code is None and ending.signal is None):
        return limit
    if look is None:
        return Limit("ended-early", "its memory", "it ended before it could be looked at", "")
    when = f"as of the last look before it ended ({look.kernel.taken_at})"
    return Limit("ended-early", "its memory", when, "", "note")


def _explain(session: LiveSession, error: TargetError) -> Limit:
    after = time.monotonic() - session.began
    if session.look is None:
        state = "no state could be read before"
    else:
        state = f"the state shown is the last one that was read ({session.look.kernel.taken_at})"
    return Limit("ended-early", "the rest of the time", f"after {after:.1f} s: {error.what}; {state}", error.fix)
