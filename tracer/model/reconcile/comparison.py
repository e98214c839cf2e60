"""Comparing a look with the model: what differs, what of that is proven to be wrong, and what the model takes over.

Pure. reconciler.py decides when a look is compared; pending_drift.py says what a suspicion is and how long it lasts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from msgspec import Struct, field

from gomem.tracer.addresses.interval_map import IntervalMap, Piece
from gomem.tracer.addresses.ranges import distinct, normalise
from gomem.tracer.addresses.region_states import NONE, PREPARED, READY
from gomem.tracer.addresses.region_states import UNKNOWN as UNKNOWN_STATE
from gomem.tracer.addresses.work import Work
from gomem.tracer.events.record import EventBatch
from gomem.tracer.model.mappings import FILE, GROWSDOWN, MAPPED, SHARED, SHOWN, MappingModel
from gomem.tracer.model.mappings import UNKNOWN as UNKNOWN_MAPPING
from gomem.tracer.model.model_input import Cover, ModelInput
from gomem.tracer.model.reconcile.drift import Columns, Row, bytes_of, compare, divide
from gomem.tracer.model.reconcile.pending_drift import PROVEN_BY, ComparedMap, PendingDrift, Values
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.model.states import NOT_YET_OWNED, STATE_MASK

_USED_MEANWHILE = (PREPARED, READY)  # in the model and seen
# A byte that an event changed during the first look after a loss may have been changed again by one that was lost, and
# what was seen is taken for the earlier of the two: the second look tells.
_MENDED_BY = 2  # looks
_MANY = 1000  # pieces; from so many on it is cheaper to make the whole function anew
_MOST_EXAMPLES = 20
_FOR_EACH_PIECE = 10  # steps of work


class Found(Struct):
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


class Comparison:
    """Compares looks with a model, its mappings and its region states, and mends it."""

    def __init__(self, model: AddressSpaceModel, work: Work) -> None:
        """Have no suspicion. `work` counts the pieces that are compared, and what is done to the model's maps."""
        self.found = Found()
        self._model = model
        self._looked: deque[int] = deque(maxlen=PROVEN_BY)  # when the last looks that were compared ended
        self._work = model.mappings.map.work = model.states.map.work = work
        self._charges = PendingDrift(work=work)
        self._mappings = ComparedMap(lambda: model.mappings.map, shown_mapping, UNKNOWN_MAPPING)
        self._states = ComparedMap(lambda: model.states.map, shown_state, UNKNOWN_STATE)

    def is_suspicious(self, *, with_states: bool) -> bool:
        """Tell whether another look would clear something up."""
        return self._mappings.suspicious or (with_states and self._states.suspicious)

    def after_loss(self) -> None:
        """Take over what the next looks show differently: events were lost."""
        self._mappings.lossy = self._states.lossy = _MENDED_BY

    def suspect_no_states(self) -> None:
        """Forget what was suspected of region states: they are not known any more."""
        self._states.suspect_nothing()

    def explain(self, batch: EventBatch) -> None:
        """Take back differences that these events explain."""
        self.found.mappings -= self._charges.explained(batch)

    def bound_recording(self) -> None:
        """Give up suspects if too much happens until the next look."""
        for side in (self._mappings, self._states):
            side.bound_recording()

    def begin(self) -> None:
        """Keep all values that bytes have from now on, for the look that is compared next."""
        for side in (self._mappings, self._states):
            side.begin_recording()

    def end(self) -> None:
        """End the comparison of a look."""
        for side in (self._mappings, self._states):
            side.end_recording()

    def count_work(self) -> None:
        """Count what comparing a look with both maps takes."""
        maps = (self._model.mappings.map, self._model.states.map)
        changed = sum(len(one.recording or ()) for one in maps)
        self._work.add(_FOR_EACH_PIECE * (sum(map(len, maps)) + changed))

    def mappings(self, model_input: ModelInput) -> None:
        """Compare the mappings that a look shows."""
        side, found, model = self._mappings, self.found, self._model.mappings
        raw = model_input.mappings.steps()
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
        self._looked.append(model_input.ended)
        if side.lossy:
            found.resyncs += side.lossy == _MENDED_BY
            found.after_loss += bytes_of(wrong)
            side.lossy -= 1
        else:
            self._charges.add(self._looked[0], wrong)
        _take_over(model.map, raw, [*unknown, *grown, *unsure, *wrong])
        if wrong:
            model.correct_break(model_input.heap_end)
        found.mappings += bytes_of(wrong)
        found.looks += 1
        self._remember("mapping", wrong)

    def states(self, look: Columns, model_input: ModelInput, used_since: int) -> None:
        """Compare the region states that a look shows; one that began after `used_since` shows what happened unseen."""
        side, found, states = self._states, self.found, self._model.states
        steps = states.map
        model = _shown(steps.columns(), side.shown)
        differences = compare(model, look, side.recorded(), side.unknown)
        drift, used = differences.drift, list[Row]()
        if states.used_unseen:
            drift = [row for row in drift if row[2:] != _USED_MEANWHILE]
            differ = [row for row in compare(model, look, (), side.unknown).drift if row[2:] == _USED_MEANWHILE]
            # Of what an event touched just now it is not known which was first, that event or what the look saw.
            doubtful, used = divide(differ, side.touched())
            states.used_unseen = model_input.began < used_since or bool(doubtful)
        wrong = side.proven(drift)
        if side.lossy:
            found.after_loss += bytes_of(wrong)
            side.lossy -= 1
        not_yet_owned = _first_seen_without_owner(steps, differences.unknown, model_input.mappings)
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
    grown: list[Row] = []
    rest: list[Row] = []
    for row in drift:
        above = model.map.at(row[1]) if row[2] == 0 else 0
        (grown if above & GROWSDOWN and above & MAPPED and above & SHOWN == row[3] else rest).append(row)
    return grown, rest


def _first_seen_without_owner(steps: IntervalMap, unknown: list[Row], mappings: Cover) -> list[Piece]:
    """Return what no look has seen before, and which does not belong to the runtime now, but could: private memory."""
    unowned = [row for row in unknown if row[3] == NONE]
    if not unowned:
        return []
    private = mappings.value & (MAPPED | SHARED | FILE | GROWSDOWN) == MAPPED
    mapped, _ = divide(unowned, normalise(mappings.start[private], mappings.end[private]))
    return [piece for row in mapped for piece in steps.pieces(row[0], row[1]) if piece[2] == UNKNOWN_STATE]


def _take_over(steps: IntervalMap, look: Columns, rows: list[Row]) -> None:
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


def _take_over_many(steps: IntervalMap, look: Columns, rows: list[Row]) -> None:
    """Do the same at once: make a new function of both."""
    ranges = normalise([row[0] for row in rows], [row[1] for row in rows])
    model = steps.columns()
    points = distinct(np.concatenate((model[0], look[0], ranges.start, ranges.end)))
    ours, theirs = (one[1][np.searchsorted(one[0], points, side="right") - 1] for one in (model, look))
    inside = np.searchsorted(ranges.start, points, side="right") > np.searchsorted(ranges.end, points, side="right")
    values = np.where(inside, theirs, ours)
    keep = np.append(True, values[1:] != values[:-1])
    steps.load(points[keep].tolist(), values[keep].tolist())
