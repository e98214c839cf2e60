"""Values by function, as `go tool pprof -top` has them.

Source: newGraph and CreateNodes in pprof's internal/graph/graph.go, TextItems in its internal/report/report.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from gomem.exporters.profile.frames import Frame, frames_by_location
from gomem.exporters.profile.sample_type import Sums, sums_of
from gomem.tracer.report.profile import Profile, Sample, error_label

Integers = NDArray[np.int64]

_AT_ONCE = 2048  # samples: of a hundred frames each these take some ten megabytes


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function: `flat` is the value of stacks that end in it, `cumulative` of those that it is in, once for each.

    `inlined` is "inline" where all its calls are inlined into their callers, "partial-inline" where some are. The
    errors are standard errors, where samples tell theirs: those of the stacks as if they were independent. 0: counted.
    """

    name: str
    flat: int
    cumulative: int
    inlined: str = ""
    flat_error: float = 0.0
    cumulative_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Functions:
    """The functions of a profile by one of its values, and the sums of that.

    `estimated`: some of the samples tell a standard error of the value.
    """

    rows: tuple[FunctionRow, ...]
    sums: Sums
    estimated: bool = False

    @property
    def total(self) -> int:
        """What shares are of."""
        return self.sums.whole


def by_function(profile: Profile, index: int, *, cumulative: bool = False) -> Functions:
    """Return the functions, those with the greatest flat (or cumulative) value first, whatever its sign.

    Functions whose values are 0 are left out.
    """
    sums = _Sums(_Frames(frames_by_location(profile)))
    label = error_label(profile.sample_types[index].type)
    with_value = (sample for sample in profile.samples if sample.values[index])
    while some := list(islice(with_value, _AT_ONCE)):
        errors = [_error(sample, label) for sample in some]
        sums.add([sample.stack for sample in some], [sample.values[index] for sample in some], errors)
    order: Callable[[FunctionRow], tuple[int, bytes, int]] = _by_cumulative if cumulative else _by_flat
    return Functions(tuple(sorted(sums.rows(), key=order)), sums_of(profile, index), sums.estimated)


def _error(sample: Sample, label: str) -> float:
    """Return the standard error of a sample's value, 0 where it tells none."""
    told = (each[1] for each in sample.labels if each[0] == label)
    return max((float(value) for value in told if isinstance(value, int)), default=0.0)


def _by_flat(row: FunctionRow) -> tuple[int, bytes, int]:
    return -abs(row.flat), _bytes(row.name), -abs(row.cumulative)


def _by_cumulative(row: FunctionRow) -> tuple[int, bytes, int]:
    return -abs(row.cumulative), _bytes(row.name), -abs(row.flat)


def _bytes(name: str) -> bytes:
    """Return the name as Go compares it."""
    return name.encode("utf-8", "surrogatepass")


class _Frames:
    """The frames of all locations one behind the other, the innermost first: numbers of names, and how each is called.

    Those of location i are [first[i] : first[i] + count[i]].
    """

    def __init__(self, frames: Sequence[tuple[Frame, ...]]) -> None:
        numbers: dict[str, int] = {}
        every = [frame for some in frames for frame in some]
        self.name = np.array([numbers.setdefault(frame.name, len(numbers)) for frame in every], np.int64)
        self.inlined = np.array([frame.inlined for frame in every], np.bool_)
        self.count = np.array([len(some) for some in frames], np.int64)
        self.first = np.cumsum(self.count) - self.count
        self.names = list(numbers)

    def of(self, stacks: Sequence[tuple[int, ...]]) -> tuple[Integers, Integers]:
        """Return the frames of stacks, the innermost first: which stack each is of, and its index here."""
        depth = np.fromiter(map(len, stacks), np.int64, len(stacks))
        locations = np.fromiter(chain.from_iterable(stacks), np.int64, int(depth.sum()))
        count = self.count[locations]
        begins = np.cumsum(count) - count
        index = np.repeat(self.first[locations] - begins, count)
        index += np.arange(len(index))
        return np.repeat(np.repeat(np.arange(len(stacks)), depth), count), index


class _Sums:
    """Sums by the name of the function, and how its calls were made.

    A sum is of the upper 32 bits of each value, and of the lower ones: so it is exact, whatever the values are.
    """

    def __init__(self, frames: _Frames) -> None:
        self._frames = frames
        self._flat = np.zeros((len(frames.names), 2), np.int64)
        self._cumulative = np.zeros((len(frames.names), 2), np.int64)
        self._variances = np.zeros((len(frames.names), 2))  # of both
        self.estimated = False
        self._inlined: dict[int, bool] = {}  # of caller and callee: whether all such calls are

    def add(self, stacks: Sequence[tuple[int, ...]], values: Sequence[int], errors: Sequence[float]) -> None:
        """Add the value of each stack to all functions of it, and the square of its error."""
        parts = np.array([(value >> 32, value & 0xFFFFFFFF) for value in values], np.int64)
        which, index = self._frames.of(stacks)
        name, count = self._frames.name[index], len(self._frames.names)
        once = np.unique(which * count + name)
        np.add.at(self._cumulative, once % count, parts[once // count])
        innermost = np.flatnonzero(np.diff(which, prepend=-1))
        np.add.at(self._flat, name[innermost], parts[which[innermost]])
        if any(errors):
            self.estimated = True
            variances = np.array(errors) ** 2
            np.add.at(self._variances[:, 0], name[innermost], variances[which[innermost]])
            np.add.at(self._variances[:, 1], once % count, variances[once // count])
        inner = np.flatnonzero(which[1:] == which[:-1])
        self._add_calls(which[inner], name[inner + 1] * count + name[inner], self._frames.inlined[index[inner]])

    def _add_calls(self, which: Integers, call: Integers, inlined: NDArray[np.bool_]) -> None:
        """Note which calls are inlined. In a stack that has some of them more than once, the outermost tells."""
        plain, joined = np.unique(call[~inlined]), np.unique(call[inlined])
        both = np.intersect1d(plain, joined, assume_unique=True)
        some = np.flatnonzero(np.isin(call, both))[::-1]
        _, outermost = np.unique(which[some] * len(both) + np.searchsorted(both, call[some]), return_index=True)
        told = some[outermost]
        always = np.setdiff1d(both, call[told[~inlined[told]]])
        for key in np.concatenate((np.setdiff1d(joined, both), always)).tolist():
            self._inlined.setdefault(key, True)
        self._inlined |= dict.fromkeys(np.setdiff1d(plain, always).tolist(), False)

    def rows(self) -> list[FunctionRow]:
        """Return a row for each function that has a value."""
        names = self._frames.names
        calls: dict[int, set[bool]] = {}
        for call, inlined in self._inlined.items():
            caller, callee = divmod(call, len(names))
            if caller != callee:
                calls.setdefault(callee, set()).add(inlined)
        errors: list[list[float]] = np.sqrt(self._variances).tolist()
        return [
            FunctionRow(names[at], flat, cumulative, _how_called(calls.get(at, set())), *errors[at])
            for at, (flat, cumulative) in enumerate(zip(_whole(self._flat), _whole(self._cumulative), strict=True))
            if cumulative or flat
        ]


def _whole(parts: Integers) -> list[int]:
    return [(high << 32) + low for high, low in parts.tolist()]


def _how_called(inlined: set[bool]) -> str:
    if True not in inlined:
        return ""
    return "partial-inline" if False in inlined else "inline"
