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

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tracer.events import USED_MARKS, EventBatch, Kind, no_events
from tracer.kernel.ranges import normalise
from tracer.model.activity import Activity
from tracer.model.batches import joined, picked, rows_among, table
from tracer.model.drift import Columns, Row, bytes_of, compare, divide
from tracer.model.explained import RoleJoin
from tracer.model.mappings import FILE, GROWSDOWN, MAPPED, SHARED, SHOWN, MappingModel
from tracer.model.mappings import UNKNOWN as UNKNOWN_MAPPING
from tracer.model.sight import Cover, Sight
from tracer.model.space import AddressSpaceModel
from tracer.model.states import NONE, NOT_YET_OWNED, PREPARED, READY, STATE_MASK
from tracer.model.states import UNKNOWN as UNKNOWN_STATE
from tracer.model.steps import Piece, Steps
from tracer.model.suspects import PROVEN_BY, Charges, Side, Values
from tracer.model.windows import Windows

HOLD = 20_000_000  # ns for which an event waits for earlier ones of other CPUs
SLACK = 15_000_000  # ns; less than HOLD, so that what may touch a look has not been applied when it begins
_ARRIVAL = 30_000_000  # ns from the end of the slack until its events have arrived
_PIECE = 1 << 18  # events that are joined at once
_FOREVER = (1 << 64) - 1
_MARKS = table(Kind.STATES_UNSEEN, *USED_MARKS)
_USED_MEANWHILE = (PREPARED, READY)  # in the model and seen
# A byte that an event changed during the first look after a loss may have been changed again by one that was lost, and
# what was seen is taken for the earlier of the two: the second look tells.
_MENDED_BY = 2  # looks
_MANY = 1000  # pieces; from so many on it is cheaper to make the whole function anew
_MOST_EXAMPLES = 20


@dataclass(slots=True)
class Found:
    """What the comparisons found so far; bytes are sums over all of them."""

    looks: int = 0  # looks whose mappings were compared
    exact_looks: int = 0  # of them, those whose region states were
    mappings: int = 0
    states: Counter[tuple[int, int]] = field(default_factory=Counter)  # (model, look): bytes
    after_loss: int = 0  # of the bytes above, found when events had been lost
    unsure: int = 0  # bytes that calls in an unknown order, or that failed half done, left otherwise; not in the sums
    stack_growth: int = 0  # not in the sums above: stacks grow without an event
    resyncs: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def drift(self) -> int:
        """The bytes by which the model was wrong."""
        return self.mappings + sum(self.states.values())


class Follower:
    """Feeds activity and model with one pass over the events, in order of time."""

    def __init__(self, activity: Activity, model: AddressSpaceModel, *, follows_states: bool) -> None:
        """`follows_states`: the source sees every role, so that region states can be followed and compared."""
        self.activity = activity
        self.model = model
        self.found = Found()
        self.used = Windows()  # when USED was watched for, if that was governed
        self._used_since = 0  # a look that began after that shows what happened unseen; CLOCK_MONOTONIC ns
        self._join = RoleJoin()
        self._held = no_events()
        self._sight: Sight | None = None
        self._lost = 0
        self._follows_states = follows_states
        self._blind_until = 0
        self._looked: deque[int] = deque(maxlen=PROVEN_BY)  # when the last looks that were compared ended
        self._charges = Charges()
        self._mappings = Side(lambda: model.mappings.map, shown_mapping, UNKNOWN_MAPPING)
        self._states = Side(lambda: model.states.map, shown_state, UNKNOWN_STATE)

    @property
    def pending(self) -> bool:
        """Whether a look waits for its comparison."""
        return self._sight is not None

    @property
    def suspicious(self) -> bool:
        """Whether another look should come soon: to tell drift from a moment's unrest, or to mend a loss."""
        sides = (self._mappings, self._states) if self._follows_states else (self._mappings,)
        return not self.pending and any(side.suspicious for side in sides)

    def feed(self, batch: EventBatch, now: int, lost: int = 0) -> None:
        """Take the next events; all that happened before `now` (CLOCK_MONOTONIC ns) are among those fed by now.

        `lost`: how many the source has lost since its start.
        """
        if lost > self._lost:
            self._lost = lost
            self._mappings.lossy = self._states.lossy = _MENDED_BY
        if len(batch):
            self._hold(batch)
        if self._sight is None:
            self._apply(now - HOLD)
            for side in (self._mappings, self._states):
                side.bound_recording()
        elif now >= self._sight.ended + SLACK + _ARRIVAL:
            self._settle(self._sight, now - HOLD)

    def _hold(self, batch: EventBatch) -> None:
        """Put a batch to the events that are held, in order of time."""
        for row in rows_among(batch, _MARKS).tolist():
            self._mark(int(batch["kind"][row]), int(batch["time"][row]), int(batch["args"][row, 0]))
        self._held = joined((self._held, batch)) if len(self._held) else batch
        times = self._held["time"]
        if (times[1:] < times[:-1]).any():
            self._held = picked(self._held, np.argsort(times, kind="stable"))

    def _mark(self, kind: int, time: int, argument: int) -> None:
        if kind == Kind.STATES_UNSEEN:
            self._blind(time)
        elif kind == Kind.USED_PROBES_ON:
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
        self._states.suspect_nothing()

    def look(self, sight: Sight) -> None:
        """Take a look that was just taken. It is compared once the events of its time have been fed.

        One that comes while another still waits takes its place.
        """
        self._sight = sight

    def flush(self) -> None:
        """Take all that is held back: no more events will come."""
        if self._sight is not None:
            self._settle(self._sight, _FOREVER)
        self._apply(_FOREVER)

    def _settle(self, sight: Sight, complete: int) -> None:
        """Compare a look; all that happened before `complete` has arrived."""
        self._sight = None
        maps, states = self.model.mappings.map, self.model.states.map
        for side in (self._mappings, self._states):
            side.begin_recording()
        self._apply(min(sight.maps_began, complete))
        self.model.mappings.learn_break(sight.heap_end)
        self._apply(min(self._touching_until(sight), complete))
        if not maps.full:
            self._compare_mappings(sight)
        knows_all = self._follows_states and sight.began >= self._blind_until
        if knows_all and sight.states is not None and not states.full:
            self._compare_states(sight.states.steps(), sight)
        for side in (self._mappings, self._states):
            side.end_recording()
        self.model.learn(sight)

    def _touching_until(self, sight: Sight) -> int:
        """Return when the last call ended that began before the look had ended.

        Calls that began after the look and ended before then go with it: to leave them out would be to apply them after
        a call that was carried out later.
        """
        until = sight.ended + SLACK
        began = np.where(self._held["entered"] > 0, self._held["entered"], self._held["time"])
        return int(np.max(self._held["time"][began <= np.uint64(until)], initial=until))

    def _apply(self, until: int) -> None:
        """Apply what is held until a moment, CLOCK_MONOTONIC ns."""
        count = int(np.searchsorted(self._held["time"], np.uint64(max(until, 0)), side="right"))
        if not count:
            return
        batch, self._held = self._held[:count], self._held[count:].copy()
        for start in range(0, len(batch), _PIECE):
            piece = batch[start : start + _PIECE]
            explained = self._join.feed(piece)
            self.activity.feed(piece, explained)
            self.model.apply(piece, explained)
            self.found.mappings -= self._charges.explained(piece)

    def _compare_mappings(self, sight: Sight) -> None:
        side, found, model = self._mappings, self.found, self.model.mappings
        raw = sight.mappings.steps()
        differences = compare(
            _shown(model.map.columns(), side.shown), _shown(raw, side.shown),
            side.recorded(), side.unknown,
        )  # fmt: skip
        drift, unknown = differences.drift, differences.unknown
        # What the kernel mapped itself (an area for probes) is no system call's.
        unknown += [row for row in drift if row[3] == side.unknown]
        drift = [row for row in drift if row[3] != side.unknown]
        grown, drift = _stack_growth(model, drift)
        unsure, drift = divide(drift, normalise(*_columns(model.unsure)))
        found.stack_growth += bytes_of(grown)
        found.unsure += bytes_of(unsure)
        model.unsure.clear()
        wrong = side.proven(drift)
        self._looked.append(sight.ended)
        if side.lossy:
            found.resyncs += side.lossy == _MENDED_BY
            found.after_loss += bytes_of(wrong)
            side.lossy -= 1
        else:
            self._charges.add(self._looked[0], wrong)
        _take_over(model.map, raw, [*unknown, *grown, *unsure, *wrong])
        if wrong:
            model.correct_break(sight.heap_end)
        found.mappings += bytes_of(wrong)
        found.looks += 1
        self._remember("mapping", wrong)

    def _compare_states(self, look: Columns, sight: Sight) -> None:
        side, found, states = self._states, self.found, self.model.states
        steps = states.map
        model = _shown(steps.columns(), side.shown)
        differences = compare(model, look, side.recorded(), side.unknown)
        drift, used = differences.drift, list[Row]()
        if states.used_unseen:
            drift = [row for row in drift if row[2:] != _USED_MEANWHILE]
            differ = [row for row in compare(model, look, (), side.unknown).drift if row[2:] == _USED_MEANWHILE]
            # Of what an event touched just now it is not known which was first, that event or what the look saw.
            doubtful, used = divide(differ, side.touched())
            states.used_unseen = sight.began < self._used_since or bool(doubtful)
        wrong = side.proven(drift)
        if side.lossy:
            found.after_loss += bytes_of(wrong)
            side.lossy -= 1
        not_yet_owned = _first_seen_without_owner(steps, differences.unknown, sight.mappings)
        _take_over(steps, look, [*differences.unknown, *used, *wrong])
        for start, end, _ in not_yet_owned:
            steps.assign(start, end, NOT_YET_OWNED)
        for start, end, ours, theirs in wrong:
            found.states[ours, theirs] += end - start
        found.exact_looks += 1
        self._remember("state", wrong)

    def _remember(self, what: str, rows: list[Row]) -> None:
        room = _MOST_EXAMPLES - len(self.found.examples)
        for start, end, ours, theirs in rows[:room]:
            self.found.examples.append(f"{what} {start:#x}-{end:#x}: {ours} in the model, {theirs} seen")


def shown_mapping(values: Values) -> Values:
    """Return of mappings' values what /proc/PID/maps shows, and UNKNOWN for those that are not known."""
    shown: Values = np.where(values & UNKNOWN_MAPPING != 0, UNKNOWN_MAPPING, values & SHOWN)
    return shown


def shown_state(values: Values) -> Values:
    """Return the state of states' values, without who made it so."""
    shown: Values = values & STATE_MASK
    return shown


def _shown(columns: Columns, shown: Callable[[Values], Values]) -> Columns:
    return columns[0], shown(columns[1])


def _columns(ranges: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [start for start, _ in ranges], [end for _, end in ranges]


def _stack_growth(model: MappingModel, drift: list[Row]) -> tuple[list[Row], list[Row]]:
    """Divide the rows into growth of a stack, mapped memory right below one that grows down, and the rest."""
    grown = [
        row for row in drift
        if row[2] == 0 and (above := model.map.at(row[1])) & GROWSDOWN and above & MAPPED and above & SHOWN == row[3]
    ]  # fmt: skip
    return grown, [row for row in drift if row not in grown]


def _first_seen_without_owner(steps: Steps, unknown: list[Row], mappings: Cover) -> list[Piece]:
    """Return what no look has seen before, and which does not belong to the runtime now, but could: private memory."""
    unowned = [row for row in unknown if row[3] == NONE]
    if not unowned:
        return []
    private = mappings.value & (MAPPED | SHARED | FILE | GROWSDOWN) == MAPPED
    mapped, _ = divide(unowned, normalise(mappings.start[private], mappings.end[private]))
    return [piece for row in mapped for piece in steps.pieces(row[0], row[1]) if piece[2] == UNKNOWN_STATE]


def _take_over(steps: Steps, look: Columns, rows: list[Row]) -> None:
    """Let the model have what the look says of some bytes, with all bits of its values."""
    if len(rows) > _MANY:
        _take_over_many(steps, look, rows)
        return
    for start, end, _, _ in rows:
        first = int(np.searchsorted(look[0], np.uint64(start), side="right")) - 1
        last = int(np.searchsorted(look[0], np.uint64(end), side="left"))
        cuts = [start, *look[0][first + 1 : last].tolist(), end]
        for low, high, value in zip(cuts[:-1], cuts[1:], look[1][first:last].tolist(), strict=True):
            steps.assign(low, high, value)


def _take_over_many(steps: Steps, look: Columns, rows: list[Row]) -> None:
    """Do the same at once: make a new function of both."""
    ranges = normalise([row[0] for row in rows], [row[1] for row in rows])
    model = steps.columns()
    points = np.unique(np.concatenate((model[0], look[0], ranges.start, ranges.end)))
    ours, theirs = (one[1][np.searchsorted(one[0], points, side="right") - 1] for one in (model, look))
    inside = np.searchsorted(ranges.start, points, side="right") > np.searchsorted(ranges.end, points, side="right")
    values = np.where(inside, theirs, ours)
    keep = np.append(True, values[1:] != values[:-1])
    steps.load(points[keep].tolist(), values[keep].tolist())
