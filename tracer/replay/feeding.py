"""Feeds the batches of a recording to its session, small ones joined, and counts the work that this makes."""

from __future__ import annotations

from gomem.tracer.addresses.work import Work
from gomem.tracer.events.record import USED_MARKS, EventKind
from gomem.tracer.model.batches import joined, table
from gomem.tracer.recording.event_codec import EventChunk
from gomem.tracer.watch.session import TargetSession

_FOR_EACH_BATCH, _FOR_EACH_EVENT = 500, 20
_JOINED = (256, 1 << 13)  # batches and events that are fed as one, at most
_ALONE = table(EventKind.STATES_UNSEEN, *USED_MARKS)  # they work on what was fed before


class Feeder:
    """Holds batches back until they are worth it; `feed` and `flush` raise TooMuchWork."""

    def __init__(self, session: TargetSession) -> None:
        self.work = session.reconciler.work if session.reconciler is not None else Work()
        self._session = session
        self._waiting: list[EventChunk] = []  # to be fed as one
        self._events_waiting = 0

    def feed(self, step: EventChunk) -> None:
        """Feed a batch, at once or joined with its neighbours: the same where nothing is compared meanwhile."""
        if self._waiting and step.lost != self._waiting[0].lost:
            self.flush()
        self._waiting.append(step)
        self._events_waiting += len(step.batch)
        alone = self._session.pending or bool(_ALONE[step.batch["kind"]].any())
        if alone or len(self._waiting) >= _JOINED[0] or self._events_waiting >= _JOINED[1]:
            self.flush(last_alone=alone)

    def flush(self, *, last_alone: bool = False) -> None:
        """Feed what waits; `last_alone`: the last batch of it is not to be joined with the others."""
        waiting, self._waiting, self._events_waiting = self._waiting, [], 0
        for some in (waiting[:-1], waiting[-1:]) if last_alone else (waiting,):
            if some:
                batch = joined([one.batch for one in some])
                self.work.add(_FOR_EACH_BATCH + _FOR_EACH_EVENT * len(batch))
                self._session.feed(batch, max(one.until for one in some), some[-1].lost)
