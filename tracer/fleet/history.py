"""What looks said of each process in the last hour: rings of numbers, bounded for each process and in all.

The thread that publishes views writes it; any thread may read it.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.fleet.figures import FIGURES
from gomem.tracer.fleet.view import FleetView, TargetView
from gomem.tracer.report import Report

SPAN = 3600.0  # seconds
MOST_BYTES = 16 << 20  # of all rings together
_SHORTEST_GAP = 5.0  # seconds between two points that are kept
_KEPT_AFTER_THE_END = 600.0  # seconds
_FIRST_POINTS = 16
_SHORTEST_SPAN = 300.0  # seconds of a picture
_EARLY = 0.9  # of a gap: looks are not on time to the millisecond
_NUMBERS = 1 + len(FIGURES)  # of a point, with its time

Columns = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """What is known of a process: a time of each point, seconds since the epoch, and its figures by name.

    `version` changes when points do. `ended`: it is not followed any more.
    """

    version: str
    times: list[float]
    figures: dict[str, list[float | None]]
    ended: bool


class Ring:
    """Points of one process, the last `most` of them; NaN is not known. Grows as it is needed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._columns: Columns = np.full((_NUMBERS, min(_FIRST_POINTS, most)), np.nan)
        self._count = 0
        self._next = 0

    @property
    def bytes(self) -> int:
        """How much memory its numbers take."""
        return int(self._columns.nbytes)

    @property
    def bytes_to_come(self) -> int:
        """How much more the next point takes."""
        full = self._count == self._columns.shape[1]
        return self.bytes if full and self._count < self._most else 0

    def put(self, at: float, report: Report, gap: float, *, may_grow: bool = True) -> None:
        """Add what a look told at `at`, CLOCK_MONOTONIC seconds.

        A point less than `gap` behind the one before it is not kept once there is a newer one.
        """
        times = self._columns[0]
        provisional = self._count >= 2 and times[self._next - 1] - times[self._next - 2] < _EARLY * gap
        if not provisional:
            self._advance(may_grow)
        self._columns[0, self._next - 1] = at
        for row, (_, take) in enumerate(FIGURES.values(), 1):
            value = take(report)
            self._columns[row, self._next - 1] = math.nan if value is None else value

    def _advance(self, may_grow: bool) -> None:
        size = self._columns.shape[1]
        if self._count == size and size < self._most and may_grow:
            more = min(2 * size, self._most) - size
            self._columns = np.concatenate((self.columns(), np.full((_NUMBERS, more), np.nan)), axis=1)
            self._next, size = self._count, size + more
        self._next = self._next % size + 1
        self._count = min(self._count + 1, size)

    def columns(self) -> Columns:
        """Return a copy of the points in the order of time: of each its time, and the figures as FIGURES has them."""
        if self._count < self._columns.shape[1]:
            return self._columns[:, : self._count].copy()
        return np.roll(self._columns, -self._next, axis=1)


@dataclass(slots=True)
class _Kept:
    start_ticks: int
    ring: Ring
    looked: float  # time.monotonic() of the last look that is in it
    gone: float | None = None  # since when the process is not there any more


class History:
    """The last hour of all processes that are followed."""

    def __init__(self, interval: float, most_bytes: int = MOST_BYTES) -> None:
        """`interval`: seconds between two looks at a process; `most_bytes`: of all points."""
        self._gap = max(interval, _SHORTEST_GAP)
        self._most = max(2, math.ceil(SPAN / (_EARLY * self._gap)))
        self._most_bytes = most_bytes
        self._kept: dict[int, _Kept] = {}
        self._bytes = 0
        self._since = time.monotonic()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """How much memory all points take."""
        return self._bytes

    def take(self, view: FleetView) -> None:
        """Take what is new in a view."""
        with self._lock:
            for target in view.targets:
                kept = self._kept.get(target.pid)
                if kept is not None and kept.start_ticks != target.start_ticks:
                    self._drop(target.pid)
                if target.report is not None and target.looked is not None:
                    self._take(target, target.report, target.looked)
            self._forget(view)

    def _take(self, target: TargetView, report: Report, looked: float) -> None:
        kept = self._kept.get(target.pid)
        if kept is None:
            ring = Ring(self._most)
            if self._bytes + ring.bytes > self._most_bytes:
                return
            self._bytes += ring.bytes
            kept = self._kept[target.pid] = _Kept(target.start_ticks, ring, -math.inf)
        kept.gone = None
        if looked <= kept.looked:
            return
        kept.looked = looked
        before = kept.ring.bytes
        kept.ring.put(looked, report, self._gap, may_grow=self._bytes + kept.ring.bytes_to_come <= self._most_bytes)
        self._bytes += kept.ring.bytes - before

    def _forget(self, view: FleetView) -> None:
        """Let go of those that ended a while ago."""
        there, now = {target.pid for target in view.targets}, view.published
        for pid in self._kept.keys() - there:
            kept = self._kept[pid]
            kept.gone = now if kept.gone is None else kept.gone
            if now - kept.gone > _KEPT_AFTER_THE_END:
                self._drop(pid)

    def _drop(self, pid: int) -> None:
        self._bytes -= self._kept.pop(pid).ring.bytes

    def course(self, pid: int) -> Course | None:
        """Return what is known of a process, also for a while after its end; None where nothing is."""
        with self._lock:
            kept = self._kept.get(pid)
            if kept is None:
                return None
            points, version, ended = kept.ring.columns(), _version(kept), kept.gone is not None
        today = time.time() - time.monotonic()
        recent = points[:, points[0] >= kept.looked - SPAN]
        figures = {
            name: _numbers(row, whole=unit in ("bytes", "count"))
            for (name, (unit, _)), row in zip(FIGURES.items(), recent[1:], strict=True)
        }
        return Course(version, [round(at + today, 1) for at in recent[0].tolist()], figures, ended)

    def version(self, pid: int) -> str | None:
        """Return what changes with the points of a process; None where there are none."""
        with self._lock:
            kept = self._kept.get(pid)
            return _version(kept) if kept is not None else None

    def highest(self, pid: int, name: str, buckets: int) -> list[float | None]:
        """Return the course of a figure in so many parts of equal length, the newest last: the highest of each.

        It begins an hour ago, or when the history of all processes did.
        """
        with self._lock:
            kept = self._kept.get(pid)
            if kept is None:
                return []
            points, until = kept.ring.columns(), kept.looked
        span = min(max(until - self._since, _SHORTEST_SPAN), SPAN)
        values = points[1 + list(FIGURES).index(name)]
        at = np.floor((points[0] - (until - span)) / span * buckets).astype(np.int64)
        found = np.full(buckets, -np.inf)
        known = (at >= 0) & ~np.isnan(values)
        np.maximum.at(found, np.minimum(at[known], buckets - 1), values[known])
        return [None if value == -math.inf else value for value in found.tolist()]


def _version(kept: _Kept) -> str:
    return f"{kept.start_ticks}-{kept.looked:.3f}-{int(kept.gone is not None)}"


def _numbers(row: Columns, *, whole: bool) -> list[float | None]:
    return [_number(value, whole) for value in row.tolist()]


def _number(value: float, whole: bool) -> float | None:
    if math.isnan(value):
        return None
    return int(value) if whole else round(value, 4)
