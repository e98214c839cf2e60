"""Keeping the model on the target's heels: events in order, and every look compared with what they lead to.

Pure: batches, looks and the time come from outside.

The comparison. A look takes milliseconds, and the target goes on meanwhile. So the model is brought to the state after
every event that began before the look ended (SLACK later, for clocks that differ and for the moment between a runtime
function and its effect), and all values that bytes had since the look began are kept: what was seen must be one of
them. A byte that no event touched meanwhile has one such value. That waits until those events have all arrived.

What still differs may be a moment that two reads of the target fell apart by (a new chunk that is mapped and not yet
linked), or an event that is late (a long munmap, a thread that was put aside before its call returned). It is a
suspicion until PROVEN_BY looks, which should come soon, have shown the same difference in the same bytes, and no event
fell on them in between; then it is drift, counted once, and the model takes over what was seen. What a call explains
that had begun by then and ends still later is taken back. After events were lost, the model takes over at once whatever
the next two looks show differently; that is a resync.
"""

from __future__ import annotations

from gomem.tracer.addresses.work import Work
from gomem.tracer.events.record import USED_MARKS, EventBatch, EventKind
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.batches import rows_among, table
from gomem.tracer.model.explained import RoleJoin
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.model.reconcile.comparison import Comparison, Found
from gomem.tracer.model.reconcile.held import Held
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.model.windows import Windows

HOLD = 20_000_000  # ns for which an event waits for earlier ones of other CPUs
SLACK = 15_000_000  # ns; less than HOLD, so that what may touch a look has not been applied when it begins
_ARRIVAL = 30_000_000  # ns from the end of the slack until its events have arrived
_PIECE = 1 << 18  # events that are joined at once
_FOREVER = (1 << 64) - 1
_FOR_EACH_WAITING = 5  # steps of work
_MARKS = table(EventKind.STATES_UNSEEN, *USED_MARKS)


class Reconciler:
    """Feeds activity and model with one pass over the events, in order of time."""

    def __init__(self, activity: Activity, model: AddressSpaceModel, *, follows_states: bool) -> None:
        """`follows_states`: the source sees every role, so that region states can be followed and compared."""
        self.activity = activity
        self.model = model
        self.used = Windows()  # when USED was watched for, if that was governed
        self._used_since = 0  # a look that began after that shows what happened unseen; CLOCK_MONOTONIC ns
        self._join = RoleJoin()
        self.work = Work()
        self._held = Held(self.work)
        self._model_input: ModelInput | None = None
        self._lost = 0
        self._follows_states = follows_states
        self._blind_until = 0
        self._comparison = Comparison(model, self.work)

    @property
    def found(self) -> Found:
        """What the comparisons found so far."""
        return self._comparison.found

    @property
    def pending(self) -> bool:
        """Whether a look waits for its comparison."""
        return self._model_input is not None

    @property
    def suspicious(self) -> bool:
        """Whether another look should come soon: to tell drift from a moment's unrest, or to mend a loss."""
        return not self.pending and self._comparison.is_suspicious(with_states=self._follows_states)

    def feed(self, batch: EventBatch, now: int, lost: int = 0) -> None:
        """Take the next events; all that happened before `now` (CLOCK_MONOTONIC ns) are among those fed by now.

        `lost`: how many the source has lost since its start.
        """
        if lost > self._lost:
            self._lost = lost
            self._comparison.after_loss()
        if len(batch):
            self._hold(batch)
        if self._model_input is None:
            self._apply(now - HOLD)
            self._comparison.bound_recording()
        elif now >= self._model_input.ended + SLACK + _ARRIVAL:
            self._settle(self._model_input, now - HOLD)

    def _hold(self, batch: EventBatch) -> None:
        """Put a batch to the events that are held."""
        for row in rows_among(batch, _MARKS).tolist():
            self._mark(int(batch["kind"][row]), int(batch["time"][row]), int(batch["args"][row, 0]))
        self._held.put(batch)

    def _mark(self, kind: int, time: int, argument: int) -> None:
        if kind == EventKind.STATES_UNSEEN:
            self._blind(time)
        elif kind == EventKind.USED_PROBES_ON:
            if not self.used.count and not self.found.looks:
                # These probes are put on last. What the others saw before has been used since, or not: nobody knows.
                self.model.blind(time)
            self.used.begin(time, argument)
            self._used_since = time + SLACK
        else:
            self.used.end(time, stopped=bool(argument))
            if argument:  # not at the end of all watching
                self.model.states.used_unseen, self._used_since = True, _FOREVER

    def _blind(self, until: int) -> None:
        """Know nothing of the region states until a look that began after `until` (ns): some roles went unseen."""
        self._blind_until = max(until + SLACK, self._blind_until)
        self.model.blind(self._blind_until)
        self._comparison.suspect_no_states()

    def look(self, model_input: ModelInput) -> None:
        """Take a look that was just taken. It is compared once the events of its time have been fed.

        One that comes while another still waits takes its place.
        """
        self._model_input = model_input

    def flush(self) -> None:
        """Take all that is held back: no more events will come."""
        if self._model_input is not None:
            self._settle(self._model_input, _FOREVER)
        self._apply(_FOREVER)

    def _settle(self, model_input: ModelInput, complete: int) -> None:
        """Compare a look; all that happened before `complete` has arrived."""
        self._model_input = None
        maps, states = self.model.mappings.map, self.model.states.map
        self._comparison.begin()
        self._apply(min(model_input.maps_began, complete))
        self.model.mappings.learn_break(model_input.heap_end)
        self._apply(min(self._touching_until(model_input), complete))
        self._comparison.count_work()
        if not maps.full:
            self._comparison.mappings(model_input)
        knows_all = self._follows_states and model_input.began >= self._blind_until
        if knows_all and model_input.states is not None and not states.full:
            self._comparison.states(model_input.states.steps(), model_input, self._used_since)
        self._comparison.end()
        self.model.learn(model_input)

    def _touching_until(self, model_input: ModelInput) -> int:
        """Return when the last call ended that began before the look had ended.

        Calls that began after the look and ended before then go with it: to leave them out would be to apply them after
        a call that was carried out later.
        """
        return self._held.last_that_began(model_input.ended + SLACK)

    def _apply(self, until: int) -> None:
        """Apply what is held until a moment, CLOCK_MONOTONIC ns."""
        batch = self._held.taken(until)
        if not len(batch):
            return
        self.work.add(_FOR_EACH_WAITING * self._join.waiting)
        for start in range(0, len(batch), _PIECE):
            piece = batch[start : start + _PIECE]
            explained = self._join.feed(piece)
            self.activity.feed(piece, explained)
            self.model.apply(piece, explained)
            self._comparison.explain(piece)
