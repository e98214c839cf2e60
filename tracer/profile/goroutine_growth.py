"""Which go statements' goroutines have become more, from the groups of a first look and of a last. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from gomem.tracer.profile.goroutine_groups import LEAST_LOOKS
from gomem.tracer.report.goroutine_growth import MOST_CREATORS, FirstAndLast, GoroutineGrowth, GrownCreator
from gomem.tracer.report.goroutines import GoroutineGroup, GoroutineLook, Place

_NOWHERE = Place("")


def growth_of(
    first: Sequence[GoroutineGroup], last: Sequence[GoroutineGroup], looks: Sequence[GoroutineLook]
) -> GoroutineGrowth:
    """Return how the groups by creator of the `last` look differ from those of the `first`; `looks` are all."""
    before = {group.creator: group.stack_bytes for group in first}
    rows = [_row(group, before.get(group.creator, 0)) for group in last]
    rows.sort(key=lambda row: (-row.sums.grown, row.sums.stack_first - row.sums.stack_last, row.function, row.line))
    kept, others = rows[:MOST_CREATORS], rows[MOST_CREATORS:]
    return GoroutineGrowth(
        seconds=round(looks[-1].seconds - looks[0].seconds, 3),
        looks=len(looks),
        whole=_sum(row.sums for row in rows),
        creators=kept,
        more_creators=len(others),
        others=_sum(row.sums for row in others),
    )


def too_near(looks: Sequence[GoroutineLook], parts: int) -> int | None:
    """Return which inner look is nearer to one beside it than the whole time divided by `parts`; None: there is none.

    In as short a time a group that grows need not have grown.
    """
    times = [look.seconds for look in looks]
    least = (times[-1] - times[0]) / parts
    gaps = [after - before for before, after in pairwise(times)]
    return next((at for at in range(1, len(times) - 1) if min(gaps[at - 1], gaps[at]) < least), None)


def _row(group: GoroutineGroup, stack_before: int) -> GrownCreator:
    place = group.creator or _NOWHERE
    stayed = group.stayed
    return GrownCreator(
        function=place.function,
        file=place.file,
        line=max(place.line, 0),
        sums=FirstAndLast(group.at_looks[0], group.goroutines, stack_before, group.stack_bytes),
        some_stay=all(after > before for before, after in pairwise(stayed)) if len(stayed) >= LEAST_LOOKS else None,
        only_grows=group.only_grows,
    )


def _sum(rows: Iterable[FirstAndLast]) -> FirstAndLast:
    told = list(rows)
    return FirstAndLast(
        sum(row.goroutines_first for row in told),
        sum(row.goroutines_last for row in told),
        sum(row.stack_first for row in told),
        sum(row.stack_last for row in told),
    )
