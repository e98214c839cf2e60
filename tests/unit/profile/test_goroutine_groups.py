from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.profile.goroutine_groups import History, Key, Seen, groups_of, only_grows
from gomem.tracer.report.goroutines import GoroutineLook

NAMES = ["select", "sleep", "running"]


def seen(groups: dict[int, int], wait: float = np.nan) -> Seen:
    """Return a look at goroutines with the group of each by its goid."""
    count = len(groups)
    goid, group = (np.array(list(some), np.int64) for some in (groups, groups.values()))
    return Seen(
        goid.astype(np.uint64), group, goid % len(NAMES), np.full(count, 2048), np.full(count, 1024),
        np.full(count, wait),
    )  # fmt: skip


def at(cycles: list[int | None]) -> list[GoroutineLook]:
    return [GoroutineLook(float(number), 0, count) for number, count in enumerate(cycles)]


looks = st.lists(st.dictionaries(st.integers(1, 40), st.integers(0, 3), max_size=30), min_size=1, max_size=6)


def lives(numbers: list[dict[int, int]]) -> list[dict[int, int]]:
    """Return looks at goroutines whose numbers do not come back when they have ended, and whose group stays."""
    alive: dict[int, int] = {}
    gone: set[int] = set()
    whole = []
    for look in numbers:
        gone |= alive.keys() - look.keys()
        alive = {goid: alive.get(goid, group) for goid, group in look.items() if goid not in gone}
        whole.append(alive)
    return whole


@given(looks)
def test_who_has_stayed_since_which_look_is_what_a_count_by_hand_says(numbers: list[dict[int, int]]) -> None:
    """A goroutine that is seen again has been there all the time: numbers of those that have ended do not come back."""
    whole = lives(numbers)
    history = History()
    for look in whole:
        history.add(seen(look))
    last = whole[-1]
    for group in range(4):
        assert history.counts(4)[group].tolist() == [sum(one == group for one in look.values()) for look in whole]
        stayed = [sum(last[goid] == group for goid in look if goid in last) for look in whole]
        assert history.stayed(4)[group].tolist() == stayed


@given(looks, st.data())
def test_a_look_that_is_forgotten_was_never_taken(numbers: list[dict[int, int]], data: st.DataObject) -> None:
    whole = lives([*numbers, {}, {50: 0, 51: 1}, {50: 0, 52: 2}])
    forgotten = data.draw(st.integers(0, len(whole) - 2))
    after = data.draw(st.integers(forgotten + 2, len(whole)))  # how many there were by then
    history, without = History(), History()
    for at, look in enumerate(whole):
        history.add(seen(look))
        if at != forgotten:
            without.add(seen(look))
        if at + 1 == after:
            history.forget(forgotten)
    assert history.counts(4).tolist() == without.counts(4).tolist()
    assert history.stayed(4).tolist() == without.stayed(4).tolist()


@pytest.mark.parametrize(
    ("counts", "stayed", "cycles", "grows"),
    [
        ([1, 2, 3], [1, 2, 3], [5, 5, 6], True),
        ([0, 2, 9], [0, 1, 9], [5, 6, 6], True),
        ([1, 2, 3], [1, 2, 3], [5, 5, 5], False),  # nothing was collected: it may all be garbage that waits
        ([1, 2, 2], [1, 2, 2], [5, 5, 6], False),
        ([1, 3, 2], [1, 2, 2], [5, 5, 6], False),
        ([1, 2, 3], [0, 0, 3], [5, 5, 6], False),  # all come and go
        ([1, 3], [1, 3], [5, 6], None),
        ([1, 2, 3], [1, 2, 3], [None, 5, 6], None),
    ],
)
def test_what_only_grows(counts: list[int], stayed: list[int], cycles: list[int | None], grows: bool | None) -> None:
    assert only_grows(counts, stayed, at(cycles)) is grows


def test_a_group_has_the_sums_of_its_goroutines_and_one_that_is_gone_is_told_too() -> None:
    history = History()
    history.add(seen({1: 0, 2: 0, 3: 1, 4: 2}))
    last = seen({1: 0, 2: 0, 5: 0, 6: 2}, wait=2.5)
    history.add(last)
    keys = [Key(reason=name) for name in ("a", "b", "c", "never")]
    a, b, c = groups_of(last, history, keys, NAMES, at([1, 1]))
    assert [one.reason for one in (a, b, c)] == ["a", "b", "c"]
    assert (a.goroutines, a.stack_bytes, a.stack_resident, a.longest_wait, a.waits_known) == (3, 6144, 3072, 2.5, 3)
    assert list(a.reasons.items()) == [("running", 2), ("sleep", 1)]
    assert (a.at_looks, a.stayed) == ([2, 3], [2, 3])
    assert (b.goroutines, b.stack_bytes, b.longest_wait, b.at_looks, b.stayed) == (0, 0, None, [1, 0], [0, 0])
    assert (c.at_looks, c.stayed) == ([1, 1], [0, 1])


def test_no_goroutines_have_no_groups() -> None:
    history = History()
    history.add(seen({}))
    assert groups_of(seen({}), history, [], NAMES, at([1])) == []
