"""Keeping the model on the target's heels: events in order, and every look compared with what they lead to.

Pure: batches, looks and the time come from outside.

The comparison. A look takes milliseconds, and the target goes on meanwhile. So the model is brought to the state after
every event that began before the look ended (SLACK later, for clocks that differ and for the moment between a runtime
function and its effect), and all values that bytes had since the look began are kept: what was seen must be one of
them. A byte that no event touched meanwhile has one such value. That waits until those events have all arrived.

What still differs may be a moment that two reads of the target fell apart by (a new chunk that is mapped and not yet
linked), or an event that is late (a long munmap, a thread that was put aside before its call returned). It is a
suspicion until the next look, which should come soon, shows the same difference in the same bytes, and no event fell
on them in between; then it is drift, counted once, and the model takes over what was seen. After events were lost, the
model takes over at once whatever the next look shows differently; that is a resync.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tracer.events import EventBatch, no_events
from tracer.kernel.ranges import normalise
from tracer.model.activity import Activity
from tracer.model.drift import Columns, Row, bytes_of, common, compare, divide
from tracer.model.explained import RoleJoin
from tracer.model.mappings import GROWSDOWN, MAPPED, SHOWN, MappingModel
from tracer.model.mappings import UNKNOWN as UNKNOWN_MAPPING
from tracer.model.sight import Sight
from tracer.model.space import AddressSpaceModel
from tracer.model.states import STATE_MASK
from tracer.model.states import UNKNOWN as UNKNOWN_STATE
from tracer.model.steps import Piece, Steps

HOLD = 20_000_000  # ns for which an event waits for earlier ones of other CPUs
SLACK = 15_000_000  # ns; less than HOLD, so that what may touch a look has not been applied when it begins
_ARRIVAL = 30_000_000  # ns from the end of the slack until its events have arrived
_PIECE = 1 << 18  # events that are joined at once
_MOST_RECORDED = 1 << 18  # changes between two looks; behind more of them nothing is suspected any longer

Values = NDArray[np.int64]


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


@dataclass(slots=True)
class _Side:
    """One of the two maps that are compared: what it needs to be."""

    map: Callable[[], Steps]
    shown: Callable[[Values], Values]
    unknown: int
    suspects: list[Row] = field(default_factory=list)
    since: list[Piece] = field(default_factory=list)  # what changed between the last two looks, with suspects
    lossy: bool = False

    def begin_recording(self) -> None:
        """Record changes from now on, for a comparison."""
        steps = self.map()
        self.since = steps.recording or []
        steps.recording = []

    def end_recording(self) -> None:
        """End that; go on recording what happens to suspects."""
        self.since = []
        self.map().recording = [] if self.suspects else None

    def bound_recording(self) -> None:
        """Give up suspects if too much happens until the next look."""
        steps = self.map()
        if steps.recording is not None and len(steps.recording) > _MOST_RECORDED:
            self.suspects, steps.recording = [], None

    def recorded(self) -> list[Piece]:
        """Return the recorded changes, of their values what is shown."""
        changed = self.map().recording or []
        values = self.shown(np.array([value for _, _, value in changed], np.int64)).tolist()
        return [(start, end, value) for (start, end, _), value in zip(changed, values, strict=True)]

    def untouched_suspects(self) -> list[Row]:
        """Return the parts of the suspects that no event has fallen on since."""
        changed = [*self.since, *(self.map().recording or [])]
        return divide(self.suspects, normalise(*_columns([piece[:2] for piece in changed])))[1]


class Follower:
    """Feeds activity and model with one pass over the events, in order of time."""

    def __init__(self, activity: Activity, model: AddressSpaceModel, *, follows_states: bool) -> None:
        """`follows_states`: the source sees every role, so that region states can be followed and compared."""
        self.activity = activity
        self.model = model
        self.found = Found()
        self._join = RoleJoin()
        self._held = no_events()
        self._sight: Sight | None = None
        self._lost = 0
        self._follows_states = follows_states
        self._mappings = _Side(lambda: model.mappings.map, shown_mapping, UNKNOWN_MAPPING)
        self._states = _Side(lambda: model.states.map, shown_state, UNKNOWN_STATE)

    @property
    def pending(self) -> bool:
        """Whether a look waits for its comparison."""
        return self._sight is not None

    @property
    def suspicious(self) -> bool:
        """Whether another look should come soon, to tell drift from a moment's unrest."""
        return not self.pending and bool(self._mappings.suspects or self._states.suspects)

    def feed(self, batch: EventBatch, now: int, lost: int = 0) -> None:
        """Take the next events; all that happened before `now` (CLOCK_MONOTONIC ns) are among those fed by now.

        `lost`: how many the source has lost since its start.
        """
        if lost > self._lost:
            self._lost = lost
            self._mappings.lossy = self._states.lossy = True
        if len(batch):
            self._held = np.concatenate((self._held, batch)) if len(self._held) else batch
            times = self._held["time"]
            if np.any(times[1:] < times[:-1]):
                self._held = self._held[np.argsort(times, kind="stable")]
        if self._sight is None:
            self._apply(self._held["time"] <= np.uint64(max(now - HOLD, 0)))
            for side in (self._mappings, self._states):
                side.bound_recording()
        elif now >= self._sight.ended + SLACK + _ARRIVAL:
            self._settle(self._sight)

    def look(self, sight: Sight) -> None:
        """Take a look that was just taken. It is compared once the events of its time have been fed.

        One that comes while another still waits takes its place.
        """
        self._sight = sight

    def flush(self) -> None:
        """Take all that is held back: no more events will come."""
        if self._sight is not None:
            self._settle(self._sight)
        self._apply(np.ones(len(self._held), np.bool_))

    def _settle(self, sight: Sight) -> None:
        self._sight = None
        began = np.where(self._held["entered"] > 0, self._held["entered"], self._held["time"])
        maps, states = self.model.mappings.map, self.model.states.map
        for side in (self._mappings, self._states):
            side.begin_recording()
        self._apply(began <= np.uint64(sight.ended + SLACK))
        if not maps.full:
            self._compare_mappings(sight)
        if self._follows_states and sight.states is not None and not states.full:
            self._compare_states(sight.states.steps())
        for side in (self._mappings, self._states):
            side.end_recording()
        self.model.learn(sight)

    def _apply(self, which: NDArray[np.bool_]) -> None:
        batch, self._held = self._held[which], self._held[~which]
        for start in range(0, len(batch), _PIECE):
            piece = batch[start : start + _PIECE]
            explained = self._join.feed(piece)
            self.activity.feed(piece, explained)
            self.model.apply(piece, explained)

    def _compare_mappings(self, sight: Sight) -> None:
        side, found, model = self._mappings, self.found, self.model.mappings
        first = len(model.map) == 1
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
        wrong = self._wrong(side, drift)
        if side.lossy:
            found.resyncs += 1
            found.after_loss += bytes_of(wrong)
            side.lossy = False
        _take_over(model.map, raw, [*unknown, *grown, *unsure, *wrong])
        model.adjust_break(sight.heap_end, first or bool(wrong))
        found.mappings += bytes_of(wrong)
        found.looks += 1
        self._remember("mapping", wrong)

    def _compare_states(self, look: Columns) -> None:
        side, found, steps = self._states, self.found, self.model.states.map
        differences = compare(_shown(steps.columns(), side.shown), look, side.recorded(), side.unknown)
        wrong = self._wrong(side, differences.drift)
        if side.lossy:
            found.after_loss += bytes_of(wrong)
            side.lossy = False
        _take_over(steps, look, [*differences.unknown, *wrong])
        for start, end, ours, theirs in wrong:
            found.states[ours, theirs] += end - start
        found.exact_looks += 1
        self._remember("state", wrong)

    @staticmethod
    def _wrong(side: _Side, drift: list[Row]) -> list[Row]:
        """Return what is proven to be wrong; the rest waits for the next look."""
        if side.lossy:
            side.suspects = []
            return drift
        wrong = common(side.untouched_suspects(), drift)
        side.suspects = divide(drift, normalise(*_columns([row[:2] for row in wrong])))[1]
        return wrong

    def _remember(self, what: str, rows: list[Row]) -> None:
        room = 20 - len(self.found.examples)
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


def _take_over(steps: Steps, look: Columns, rows: list[Row]) -> None:
    """Let the model have what the look says of some bytes, with all bits of its values."""
    if not rows:
        return
    for start, end, _, _ in rows:
        first = int(np.searchsorted(look[0], np.uint64(start), side="right")) - 1
        last = int(np.searchsorted(look[0], np.uint64(end), side="left"))
        cuts = [start, *look[0][first + 1 : last].tolist(), end]
        for low, high, value in zip(cuts[:-1], cuts[1:], look[1][first:last].tolist(), strict=True):
            steps.assign(low, high, value)
