"""What follows from refills: against allocations that were made up, of which all is known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from gomem.tracer.events.refills import ROW_LARGE, RefillSum
from gomem.tracer.model.refills import Bursts, Site, SlotSizes, extended, in_rhythm, sites
from gomem.tracer.runtime.allocated import Allocated

ONE = Bursts()  # of which nobody can tell how others would differ
SIZES = SlotSizes((0, 8, 16, 64), 8192)
CLASS, SLOTS = 3, 128
NOSCAN = CLASS << 1 | 1


@dataclass
class Mcache:
    """One that hands out slots as runtime/mcache.go does, and what a probe on refill sees of it."""

    random: Random
    slots: int = 0
    used: int = 0
    seen: dict[tuple[int, ...], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0, 0]))

    def allocate(self, stack: tuple[int, ...]) -> None:
        if self.used == self.slots:
            samples = self.seen[stack]
            gone = [1, 0, self.slots, self.slots**2] if self.slots else [1, 1, 0, 0]
            samples[:] = [before + more for before, more in zip(samples, gone, strict=True)]
            # One that was swept has some slots left.
            self.slots, self.used = self.random.choice((SLOTS, self.random.randint(1, SLOTS))), 0
        self.used += 1

    def collect(self) -> None:
        self.slots = self.used = 0

    def sums(self) -> list[RefillSum]:
        return [RefillSum(stack, NOSCAN, *figures) for stack, figures in self.seen.items()]


def counted(objects: int, large: int = 0, large_bytes: int = 0) -> Allocated:
    small = np.zeros(len(SIZES.sizes), np.int64)
    small[CLASS] = objects
    return Allocated(small, 0, large, large_bytes)


def made_up(seed: int, objects: int, weights: Sequence[int], *, collections: float) -> tuple[Mcache, Counter[int]]:
    """Allocate at random from sites 1, 2 ... with those weights; `collections`: the chance of one before an object."""
    random = Random(seed)
    mcache, truth = Mcache(random), Counter[int]()
    for site in random.choices(range(1, len(weights) + 1), weights, k=objects):
        if random.random() < collections:
            mcache.collect()
        mcache.allocate((site, 99))
        truth[site] += 1
    return mcache, truth


def by_site(found: Sequence[Site]) -> dict[int, Site]:
    return {one.stack[0]: one for one in found if one.stack}


@pytest.mark.parametrize("collections", [0.0, 0.001, 0.02])
def test_estimates_miss_by_what_their_errors_say(collections: float) -> None:
    misses = []
    for seed in range(60):
        mcache, truth = made_up(seed, 20_000, (60, 25, 10, 5), collections=collections)
        found = sites(mcache.sums(), counted(20_000), SIZES)
        assert sum(one.objects for one in found) == 20_000
        assert all(one.bytes == one.objects * 64 for one in found)
        for site, one in by_site(found).items():
            assert one.objects_error > 0
            misses.append((one.objects - truth[site]) / one.objects_error)
    within = np.abs(np.array(misses))
    assert np.max(within) < 5
    # Two thirds of what is normal lie within one standard error; ours has one draw more, for what has none.
    assert 0.62 < np.mean(within < 1) < 0.95
    # And none is systematic.
    assert abs(np.mean(misses)) < 0.2


def test_the_errors_are_small_where_there_are_many_samples() -> None:
    mcache, truth = made_up(1, 200_000, (3, 1), collections=0.0005)
    for site, one in by_site(sites(mcache.sums(), counted(200_000), SIZES)).items():
        assert one.objects_error < 0.1 * truth[site]


def test_a_site_alone_has_all_objects_of_its_size_but_for_one_draw() -> None:
    mcache, _ = made_up(3, 50_000, (1,), collections=0.0)
    (one,) = sites(mcache.sums(), counted(50_000), SIZES)
    samples = sum(each.samples for each in mcache.sums())
    assert one.objects == 50_000
    assert one.objects_error == pytest.approx(50_000 / samples, rel=0.01)


def test_objects_of_a_size_without_a_refill_are_of_no_site() -> None:
    assert sites([], counted(7), SIZES) == [Site(None, 64, 7, 7 * 64)]
    assert sites([], counted(0), SIZES) == []


def test_where_only_some_time_was_watched_the_rest_is_divided_in_the_same_way() -> None:
    mcache, truth = made_up(5, 40_000, (2, 1), collections=0.0)
    found = by_site(sites(mcache.sums(), counted(400_000), SIZES, ONE))
    for site, one in found.items():
        assert abs(one.objects - 10 * truth[site]) < 4 * one.objects_error


def test_large_objects_are_those_that_were_counted() -> None:
    some = [RefillSum((1,), ROW_LARGE, 3, 0, 30, 300), RefillSum((2,), ROW_LARGE, 1, 0, 2, 4)]
    found = sites(some, counted(0, 4, 32 * 8192), SIZES)
    assert found == [Site((1,), 0, 3, 30 * 8192), Site((2,), 0, 1, 2 * 8192)]
    unseen = sites(some, counted(0, 5, 40 * 8192), SIZES)[-1]
    assert unseen == Site(None, 0, 1, 8 * 8192)


def test_large_objects_of_some_of_the_time_are_shares_of_all() -> None:
    some = [RefillSum((1,), ROW_LARGE, 30, 0, 300, 3000), RefillSum((2,), ROW_LARGE, 10, 0, 20, 40)]
    one, other = sites(some, counted(0, 400, 3200 * 8192), SIZES, ONE)
    assert (one.objects, other.objects) == (300, 100)
    assert (one.bytes, other.bytes) == (3000 * 8192, 200 * 8192)
    assert one.objects_error == 400 - 40  # of what that one burst has not seen nobody knows anything
    assert other.bytes_error == (3200 - 320) * 8192


def test_without_the_runtimes_counts_samples_stand_for_what_they_say() -> None:
    (one,) = sites([RefillSum((1,), NOSCAN, 10, 0, 1280, 10 * 128**2)], None, SIZES)
    assert one.objects == 1280
    (one,) = sites([RefillSum((1,), NOSCAN, 12, 2, 1280, 10 * 128**2)], None, SIZES)
    assert one.objects == 1280 + 2 * 64


def test_a_process_that_ends_has_what_was_read_last_and_what_samples_say_since() -> None:
    then = [RefillSum((1,), NOSCAN, 10, 0, 1280, 0)]
    now = [RefillSum((1,), NOSCAN, 15, 0, 1920, 0), RefillSum((2,), ROW_LARGE, 2, 0, 20, 200)]
    found = extended(counted(2000, 1, 8192), then, now, SIZES)
    assert found.small[CLASS] == 2000 + 640
    assert (found.large, found.large_bytes) == (3, 21 * 8192)


def test_figures_that_a_process_has_forged_are_borne() -> None:
    odd = [RefillSum((1,), 251, 1, 0, 65535, 1 << 63), RefillSum((2,), NOSCAN, 1 << 63, 0, 1 << 63, (1 << 64) - 1)]
    for bursts in (None, ONE):
        for runtime in (None, counted(1)):
            assert all(one.objects >= 0 and one.bytes >= 0 for one in sites(odd, runtime, SIZES, bursts))


def test_of_bursts_the_error_is_how_much_they_differ() -> None:
    """Each burst sees one of two loops: what 40 bursts say is 40 draws, however many samples they have."""
    random, misses = Random(7), []
    for _ in range(60):
        bursts, seen = Bursts(), Counter[int]()
        for _ in range(40):
            seen[random.choices((1, 2), (3, 1))[0]] += random.randint(50, 150)
            bursts.add(
                [RefillSum((site,), NOSCAN, count, 0, count * 128, count * 128**2) for site, count in seen.items()]
            )
        sums = [RefillSum((site,), NOSCAN, count, 0, count * 128, count * 128**2) for site, count in seen.items()]
        one = by_site(sites(sums, counted(100_000_000), SIZES, bursts))[1]
        misses.append((one.objects - 75_000_000) / one.objects_error)
        assert 3_000_000 < one.objects_error < 12_000_000
    assert 0.5 < np.mean(np.abs(misses) < 1) < 0.85


def test_bursts_that_are_alike_say_as_much_as_their_samples() -> None:
    bursts = Bursts()
    for burst in range(1, 11):
        some = [(1, 30 * burst), (2, 10 * burst)]
        sums = [RefillSum((site,), NOSCAN, count, 0, count * 128, count * 128**2) for site, count in some]
        bursts.add(sums)
    alike, whole = (by_site(sites(sums, counted(400_000), SIZES, one))[1] for one in (bursts, None))
    assert alike == whole


def test_spans_of_one_length_and_one_stack_may_hide_others() -> None:
    def regular(stack: int, samples: int, fresh: int = 0) -> RefillSum:
        whole = samples - fresh
        return RefillSum((stack,), NOSCAN, samples, fresh, whole * 128, whole * 128**2)

    assert in_rhythm([regular(1, 100)], SIZES) == [64]
    assert in_rhythm([regular(1, 100), regular(2, 3)], SIZES) == [64]
    assert in_rhythm([regular(1, 100), regular(2, 30)], SIZES) == []
    assert in_rhythm([regular(1, 100, fresh=30)], SIZES) == []
    assert in_rhythm([regular(1, 5)], SIZES) == []
    irregular = RefillSum((1,), NOSCAN, 100, 0, 50 * 128 + 50 * 60, 50 * 128**2 + 50 * 60**2)
    assert in_rhythm([irregular], SIZES) == []
    each = RefillSum((1,), NOSCAN, 100, 0, 100, 100)  # a span has room for one: all are seen
    assert in_rhythm([each], SIZES) == []
    assert in_rhythm([RefillSum((1,), ROW_LARGE, 100, 0, 1000, 10_000)], SIZES) == []


def in_turns(seed: int, moves: int) -> tuple[list[RefillSum], int]:
    """Return what is seen of two sites in turns, on spans of one length, by a thread that is moved so often."""
    random = Random(seed)
    samples, changes, stack = Counter[int](), 0, random.choice((1, 2))
    for at in range(1000):
        if at and at % (1000 // (moves + 1)) == 0:
            before, stack = stack, random.choice((1, 2))
            changes += stack != before
        samples[stack] += 1
    return [RefillSum((one,), NOSCAN, count, 0, count * 128, count * 128**2) for one, count in samples.items()], changes


def test_samples_that_keep_time_with_calls_have_greater_errors() -> None:
    misses, plain = [], []
    for seed in range(60):
        sums, changes = in_turns(seed, 20)
        found = by_site(sites(sums, counted(128_000), SIZES, None, {NOSCAN: changes}))
        misses.append((found[1].objects - 64_000) / found[1].objects_error)
        plain.append((found[1].objects - 64_000) / by_site(sites(sums, counted(128_000), SIZES))[1].objects_error)
    assert 0.55 < np.mean(np.abs(misses) < 1) < 0.9
    assert np.max(np.abs(misses)) < 4
    assert np.mean(np.abs(plain) < 1) < 0.3


def test_samples_by_chance_have_the_errors_of_chance() -> None:
    random = Random(4)
    stacks = random.choices((1, 2), (3, 1), k=4000)
    sums = [RefillSum((one,), NOSCAN, count, 0, count * 128, count * 128**2) for one, count in Counter(stacks).items()]
    changes = sum(one != other for one, other in pairwise(stacks))
    found, by_chance = (by_site(sites(sums, None, SIZES, None, each)) for each in ({NOSCAN: changes}, None))
    assert found[1].objects_error == pytest.approx(by_chance[1].objects_error, rel=0.1)
