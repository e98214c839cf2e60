"""Who allocated how much, by the stacks of refills. Pure.

An mcache that has no slot of a size left takes another span (refill), for the allocation that came last: a sample of
all objects that were allocated from the span before. The runtime itself counts the objects of each size class. So a
call has that share of them which the samples say, and its error is that of the samples: each is one draw, however many
objects it stands for. Large objects are seen one by one.

Samples that come after the same number of objects each time may keep time with calls that take turns. Then the same
stack comes again and again, more often than samples by chance would have it, and the error is greater by that.

Where probes are on in bursts only, the samples of a burst come from the same few loops. Then the error is that of the
bursts, by how much they differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.refills import ROW_LARGE, RefillSum
from gomem.tracer.layout.layout import Layout
from gomem.tracer.runtime.allocated import Allocated

Floats = NDArray[np.float64]
_LARGEST = 1 << 62
# What keeps time: so many samples, nearly all of one stack, that stand for the same number of objects each.
_LEAST_SAMPLES, _ONE_STACK, _SAME = 8, 0.95, 0.01


@dataclass(frozen=True, slots=True)
class SlotSizes:
    """Bytes: `sizes` of the size classes, the first of which (0) is for large objects, which have whole `page`s."""

    sizes: tuple[int, ...]
    page: int

    @classmethod
    def of(cls, layout: Layout) -> SlotSizes:
        """Return those of a release. Raises LayoutError where they are not known."""
        return cls(layout.constants("class_to_size"), layout.constant("page_size"))


@dataclass(frozen=True, slots=True)
class Site:
    """What one call stack has allocated of objects of `size` bytes; 0: large ones, of any size.

    `stack` has return addresses, the innermost first; () of those that found no room, None of objects that no sample
    was seen of. The errors are standard errors, in objects and in bytes; 0 where all was counted.
    """

    stack: tuple[int, ...] | None
    size: int
    objects: int
    bytes: int
    objects_error: int = 0
    bytes_error: int = 0


_Key = tuple[tuple[int, ...], int]  # a stack, and a span class


class Bursts:
    """How the samples of each stack are spread over bursts."""

    def __init__(self) -> None:
        """Begin before the first burst."""
        self._taken: dict[_Key, int] = {}
        self._sites: dict[_Key, list[int]] = defaultdict(lambda: [0, 0, 0])  # sums of n, n^2, n m over bursts
        self._classes: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])  # bursts, and sums of m, m^2

    def add(self, sums: Iterable[RefillSum]) -> None:
        """Take all that was seen until the end of a burst: n samples of each stack, m of each size class."""
        fresh: dict[_Key, int] = {}
        of_class: dict[int, int] = defaultdict(int)
        for one in sums:
            key = one.stack, one.span_class
            if (more := one.samples - self._taken.get(key, 0)) > 0:
                fresh[key] = more
                of_class[one.span_class >> 1] += more
                self._taken[key] = one.samples
        for key, count in fresh.items():
            together = of_class[key[1] >> 1]
            self._sites[key] = _plus(self._sites[key], (count, count**2, count * together))
        for number, count in of_class.items():
            self._classes[number] = _plus(self._classes[number], (1, count, count**2))

    def error(self, one: RefillSum, coverage: float) -> float:
        """Return the standard error of the share that a stack has of its size class.

        `coverage`: how much of that was seen. A ratio estimator over clusters: its variance is that of the residuals
        n - p m, times what was not seen. Of that nothing is known where one burst alone saw the class.
        """
        bursts, whole, squares = self._classes[one.span_class >> 1]
        unseen = min(max(1 - coverage, 0.0), 1.0)
        if bursts < 2:
            return unseen
        count, squared, crossed = self._sites[one.stack, one.span_class]
        share = count / whole
        residuals = max(squared - 2 * share * crossed + share**2 * squares, 0.0)
        return float(np.sqrt(unseen * residuals * bursts / (bursts - 1))) / whole


def _plus(some: Sequence[int], more: Sequence[int]) -> list[int]:
    return [before + one for before, one in zip(some, more, strict=True)]


def sites(
    sums: Sequence[RefillSum],
    runtime: Allocated | None,
    sizes: SlotSizes,
    bursts: Bursts | None = None,
    changes: Mapping[int, int] | None = None,
) -> list[Site]:
    """Return what each stack has allocated, of each size.

    `runtime`: what the runtime has counted in the same time; None: not known, and samples stand for no more than they
    say. `bursts`: where the samples are not all that there were. `changes`: by span class, how often a sample was of
    another stack than the one before; None: not known, as if they came by chance.
    """
    widened = _widened(sums, changes) if changes is not None else {}
    classes: dict[int, list[RefillSum]] = defaultdict(list)
    for one in sums:
        if one.samples and one.span_class >> 1 < len(sizes.sizes):
            classes[one.span_class >> 1].append(one)
    found: list[Site] = []
    for number, size in enumerate(sizes.sizes):
        some = classes[number]
        if number == ROW_LARGE:
            found += _large(some, runtime, sizes.page, bursts)
        else:
            total = None if runtime is None else int(runtime.small[number])
            found += _small(some, total, size, bursts, widened)
    return found


def extended(last: Allocated, then: Sequence[RefillSum], now: Sequence[RefillSum], sizes: SlotSizes) -> Allocated:
    """Return what the runtime has counted until the moment of `now`, if it could be read last at the moment of `then`.

    Since then the samples alone tell, each what it stands for.
    """
    more = _plain(now, sizes) - _plain(then, sizes)
    small = np.concatenate((last.small[:1], last.small[1:] + more[1:]))
    large = sum(_of_large(now, "samples")) - sum(_of_large(then, "samples"))
    pages = sum(_of_large(now, "slots")) - sum(_of_large(then, "slots"))
    return Allocated(small, last.tiny, last.large + large, last.large_bytes + pages * sizes.page)


def in_rhythm(sums: Sequence[RefillSum], sizes: SlotSizes) -> list[int]:
    """Return the sizes, bytes, whose samples cannot tell one call that allocates from several that take turns.

    Spans of one length are left after the same number of objects each time. If nearly all samples are of one stack
    then, that may be the only one, or the one that comes last each time.
    """
    return sorted(
        {
            sizes.sizes[row >> 1]
            for row, some in _by_row(sums).items()
            if row >> 1 < len(sizes.sizes) and _is_regular(row, some) and _of_one_stack(some)
        }
    )


def _by_row(sums: Iterable[RefillSum]) -> dict[int, list[RefillSum]]:
    rows: dict[int, list[RefillSum]] = defaultdict(list)
    for one in sums:
        rows[one.span_class].append(one)
    return rows


def _is_regular(row: int, some: Sequence[RefillSum]) -> bool:
    """Tell whether nearly all samples of a span class stand for the same number of objects, and for more than one."""
    samples, slots = sum(one.samples for one in some), sum(one.slots for one in some)
    whole = samples - sum(one.fresh for one in some)
    if row >> 1 == ROW_LARGE or samples < _LEAST_SAMPLES or whole < _ONE_STACK * samples or slots < 2 * whole:
        return False
    # The square of the coefficient of variation.
    return whole * sum(one.squares for one in some) / slots**2 - 1 < _SAME


def _of_one_stack(some: Sequence[RefillSum]) -> bool:
    return max(one.samples for one in some) >= _ONE_STACK * sum(one.samples for one in some)


def _widened(sums: Iterable[RefillSum], changes: Mapping[int, int]) -> dict[int, float]:
    """Return by span class how many times larger the variance of its shares is, as samples follow each other in runs.

    By chance, m samples with shares p change m (1 - sum of p^2) times. Of a chain whose neighbours are correlated by r,
    that is 1 - r of it, and the variance of its mean is (1 + r) / (1 - r) times as large.
    """
    found = {}
    for row, some in _by_row(sums).items():
        samples = sum(one.samples for one in some)
        by_chance = samples - sum(one.samples**2 for one in some) / max(samples, 1)
        if by_chance >= 1 and _is_regular(row, some):
            found[row] = max(2 * by_chance / (changes.get(row, 0) + 1) - 1, 1.0)
    return found


def _of_large(sums: Iterable[RefillSum], name: str) -> Iterator[int]:
    return (getattr(one, name) for one in sums if one.span_class >> 1 == ROW_LARGE)


def _plain(sums: Iterable[RefillSum], sizes: SlotSizes) -> NDArray[np.int64]:
    """Return the objects of each size class that samples stand for by themselves, shape (68,); none at large ones."""
    found = np.zeros(len(sizes.sizes), np.int64)
    classes: dict[int, list[RefillSum]] = defaultdict(list)
    for one in sums:
        classes[one.span_class >> 1].append(one)
    for number, some in classes.items():
        if ROW_LARGE < number < len(found):
            found[number] = min(int(_weights(some, None)[0].sum()), _LARGEST)
    return found


def _small(
    some: list[RefillSum], total: int | None, size: int, bursts: Bursts | None, widened: Mapping[int, float]
) -> Iterator[Site]:
    """Yield what the stacks of one size class have allocated, of the `total` that the runtime has counted."""
    if not some:
        if total:
            yield Site(None, size, total, total * size)
        return
    weights, squares = _weights(some, total if bursts is None else None)
    count = float(sum(one.samples for one in some))
    values, errors = _shares(weights, squares, count, None if total is None else max(float(total), count))
    errors = np.hypot(errors, _of_runs(some, squares, widened) * float(values.sum() / max(weights.sum(), 1.0)))
    errors = np.minimum(_at_least(errors, some, bursts, values, weights), values.sum())
    for one, objects, error in zip(some, _whole(values), _whole_each(errors), strict=True):
        yield Site(one.stack, size, objects, min(objects * size, _LARGEST), error, min(error * size, _LARGEST))


def _weights(some: Sequence[RefillSum], total: int | None) -> tuple[Floats, Floats]:
    """Return how many objects the samples of each stack stand for, and the sums of their squares.

    Those of fresh samples nobody has seen. All of them together are what the others leave of the `total`; where that is
    not known, each is half of an average one: a collection takes a span away at any moment.
    """
    fresh = sum(one.fresh for one in some)
    known = sum(one.slots for one in some)
    each = 0.0
    if fresh:
        whole = sum(one.samples for one in some) - fresh
        each = known / whole / 2 if total is None and whole else ((total or 0) - known) / fresh
        each = max(each, 1.0)
    weights = [one.slots + one.fresh * each for one in some]
    squares = [one.squares + one.fresh * each**2 for one in some]
    return np.array(weights, np.float64), np.array(squares, np.float64)


def _large(some: list[RefillSum], runtime: Allocated | None, page: int, bursts: Bursts | None) -> Iterator[Site]:
    """Yield what the stacks of large objects have allocated: as counted, or if that was not all, shares of all."""
    samples = np.array([one.samples for one in some], np.float64)
    pages = np.array([one.slots for one in some], np.float64)
    squares = np.array([one.squares for one in some], np.float64)
    if bursts is None or not some:
        for one in some:
            yield Site(one.stack, 0, min(one.samples, _LARGEST), min(one.slots * page, _LARGEST))
        unseen = (runtime.large, runtime.large_bytes) if runtime is not None else (0, 0)
        objects, held = unseen[0] - int(samples.sum()), unseen[1] - int(pages.sum()) * page
        if objects > 0:
            yield Site(None, 0, objects, max(held, 0))
        return
    count = float(samples.sum())
    objects_of = None if runtime is None else max(float(runtime.large), count)
    pages_of = None if runtime is None else max(runtime.large_bytes / page, float(pages.sum()))
    counts, count_errors = _shares(samples, samples, count, objects_of)
    held_by, held_errors = _shares(pages, squares, count, pages_of)
    count_errors = _at_least(count_errors, some, bursts, counts, samples)
    held_errors = _at_least(held_errors, some, bursts, held_by, pages)
    rows = zip(
        some, _whole(counts), _whole(held_by), _whole_each(count_errors), _whole_each(held_errors * page), strict=True
    )
    for one, objects, of_pages, objects_error, bytes_error in rows:
        yield Site(one.stack, 0, objects, min(of_pages * page, _LARGEST), objects_error, bytes_error)


def _shares(weights: Floats, squares: Floats, count: float, total: float | None) -> tuple[Floats, Floats]:
    """Return the shares of `total` (None: of what they weigh) that go with weights, and their standard errors.

    A ratio estimator of `count` draws, whose variance is that of the residuals: those of a share p are (1 - p) w for
    its own draws, and p w for the others. One draw more is added: what has none may have a part that small, as well.
    """
    whole = float(weights.sum())
    scale = 1.0 if total is None or whole == 0 else total / whole
    share = weights / max(whole, 1.0)
    residuals = (1 - share) ** 2 * squares + share**2 * (float(squares.sum()) - squares)
    one = whole / max(count, 1.0)
    return weights * scale, np.sqrt(residuals + one**2) * scale


def _of_runs(some: Sequence[RefillSum], squares: Floats, widened: Mapping[int, float]) -> Floats:
    """Return by how much runs of samples make the errors greater, in what the samples weigh.

    That is of the shares that the stacks of one span class have of it: the samples of others are no part of its runs.
    """
    rows = np.array([one.span_class for one in some])
    counts = np.array([one.samples for one in some], np.float64)
    found = np.zeros(len(some))
    for row, times in widened.items():
        here = rows == row
        if here.any():
            share, own = counts[here] / counts[here].sum(), squares[here]
            variance = (1 - share) ** 2 * own + share**2 * (own.sum() - own)
            found[here] = np.sqrt(variance * (times - 1))
    return found


def _at_least(errors: Floats, some: Sequence[RefillSum], bursts: Bursts | None, values: Floats, seen: Floats) -> Floats:
    """Return the errors, those of the bursts where these are greater: of shares of `values`, of which some was seen."""
    if bursts is None:
        return errors
    whole = float(values.sum())
    coverage = float(seen.sum()) / max(whole, 1.0)
    return np.maximum(errors, whole * np.array([bursts.error(one, coverage) for one in some]))


def _whole(values: Floats) -> list[int]:
    """Return rounded values whose sum is the rounded sum."""
    edges = np.rint(np.minimum(np.cumsum(values), float(_LARGEST))).astype(np.int64)
    found: list[int] = np.diff(edges, prepend=0).tolist()
    return found


def _whole_each(values: Floats) -> list[int]:
    found: list[int] = np.ceil(np.minimum(values, float(_LARGEST))).astype(np.int64).tolist()
    return found
