"""What is remembered of each process from view to view: RSS and collections, for the sparkline, the slope and GC/s."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gomem.tracer.fleet.view import FleetView, TargetView

MOST_POINTS = 300  # five minutes of one a second
SLOPE_SECONDS = 60.0
_LEAST_SLOPE_SECONDS, _LEAST_POINTS = 10.0, 5
_RATE_SECONDS = 10.0
_LEAST_RATE_SECONDS = 2.0
_BLOCKS = "▁▂▃▄▅▆▇█"
_FLAT = 0.01  # of RSS; what changes by less is no shape

Key = tuple[int, int]  # a pid, and when its process started


@dataclass(frozen=True, slots=True)
class Point:
    """One moment: seconds of time.monotonic(), RSS in bytes, and collections since the start of the process."""

    at: float
    rss: int
    cycles: int | None = None


@dataclass(slots=True)
class History:
    """The last points of one process, in the order of time."""

    points: deque[Point] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))

    def note(self, point: Point) -> None:
        """Take another moment, if it is a later one."""
        if not self.points or point.at > self.points[-1].at:
            self.points.append(point)

    def rss(self) -> list[int]:
        """Return RSS at each point."""
        return [point.rss for point in self.points]

    def slope(self) -> float | None:
        """Return by how many bytes a second RSS changes: the line of least squares through the last minute.

        None: too little has been seen.
        """
        recent = self._last(SLOPE_SECONDS)
        if len(recent) < _LEAST_POINTS or recent[-1].at - recent[0].at < _LEAST_SLOPE_SECONDS:
            return None
        mean_at = sum(point.at for point in recent) / len(recent)
        mean_rss = sum(point.rss for point in recent) / len(recent)
        spread = sum((point.at - mean_at) ** 2 for point in recent)
        return sum((point.at - mean_at) * (point.rss - mean_rss) for point in recent) / spread

    def cycles_per_second(self) -> float | None:
        """Return how many collections there were a second, over the last ten seconds; None: too little was seen."""
        recent = [point for point in self._last(_RATE_SECONDS) if point.cycles is not None]
        if len(recent) < 2 or recent[-1].at - recent[0].at < _LEAST_RATE_SECONDS:
            return None
        first, last = recent[0].cycles, recent[-1].cycles
        assert first is not None
        assert last is not None
        return max(last - first, 0) / (recent[-1].at - recent[0].at)

    def _last(self, seconds: float) -> list[Point]:
        until = self.points[-1].at if self.points else 0.0
        return [point for point in self.points if until - point.at <= seconds]


@dataclass(slots=True)
class Histories:
    """The history of each process of the newest view."""

    _of: dict[Key, History] = field(default_factory=dict)

    def note(self, view: FleetView) -> None:
        """Take another view; forget who is not in it."""
        there = {key_of(target): target for target in view.targets}
        self._of = {key: self._of.get(key) or History() for key in there}
        for key, target in there.items():
            point = _point(target)
            if point is not None:
                self._of[key].note(point)

    def of(self, target: TargetView) -> History:
        """Return what is remembered of a process."""
        return self._of.get(key_of(target)) or History()


def key_of(target: TargetView) -> Key:
    """Return what tells a process from all others."""
    return target.pid, target.start_ticks


def _point(target: TargetView) -> Point | None:
    if target.glance is not None and target.glanced is not None:
        return Point(target.glanced, target.glance.rss, target.glance.cycles)
    report = target.report
    if report is None or report.resident is None or target.looked is None:
        return None
    return Point(target.looked, report.resident.total)


def sum_of(series: Iterable[Sequence[int]]) -> list[int]:
    """Return the sums of several series, each as far back as the shortest goes: their last values belong together."""
    known = [one for one in series if one]
    length = min(map(len, known), default=0)
    return [sum(values) for values in zip(*(one[len(one) - length :] for one in known), strict=True)] if length else []


def sparkline(values: Sequence[int], columns: int) -> str:
    """Return the last values as a line of blocks between the lowest and the highest; what hardly changes is flat."""
    shown = values[-columns:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high - low < _FLAT * high or high == low:
        return _BLOCKS[0] * len(shown)
    return "".join(_BLOCKS[(value - low) * (len(_BLOCKS) - 1) // (high - low)] for value in shown)
