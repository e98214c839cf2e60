"""What bursts say of the whole: exact where all was seen, and honest about how far off it may be elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.events.allocations import (
    NO_SITE,
    ROW_TINY,
    ROW_ZERO,
    ROWS,
    SUM,
    AllocationCounts,
    counts_of,
    no_allocations,
)
from gomem.tracer.layout.tables import table_for
from gomem.tracer.model.allocations import TOP_SITES, TOP_TYPES, AllocationSums, Watch
from gomem.tracer.report import Allocations
from gomem.tracer.runtime.allocated import Allocated
from gomem.tracer.runtime.size_classes import SizeClasses

LAYOUT = table_for("go1.27.3", "amd64")
assert LAYOUT is not None
SIZES = SizeClasses.of(LAYOUT)
NODE, LEAF, BIG = 0x4000, 0x5000, 0x6000
CLASS_16, CLASS_48 = 2, 5
BURSTS = Watch(complete=False, bursts=0, seconds=0.1, budget=0.01, hit_seconds=1e-6)
ALL = Watch(complete=True, bursts=1, seconds=10.0, budget=1.0, hit_seconds=1e-6)
Seen = dict[tuple[int, int], tuple[int, int, int]]


def counts(types: Seen, sites: Seen | None = None) -> AllocationCounts:
    """Return counts whose rows are the sums over types."""
    rows = np.zeros(ROWS, SUM)
    for (_, row), sums in types.items():
        for name, value in zip(("count", "asked", "pages"), sums, strict=True):
            rows[name][row] += value
    return AllocationCounts(rows, types, sites=sites or {})


def plus(one: Seen, other: Seen) -> Seen:
    nothing = (0, 0, 0)
    return {
        key: tuple(a + b for a, b in zip(one.get(key, nothing), other.get(key, nothing), strict=True))  # type: ignore[misc]
        for key in one.keys() | other.keys()
    }


def runtime(tiny: int = 0, large: int = 0, large_bytes: int = 0, **small: int) -> Allocated:
    objects = np.zeros(len(SIZES.sizes), np.int64)
    for name, value in small.items():
        objects[int(name.removeprefix("c"))] = value
    return Allocated(objects, tiny, large, large_bytes)


def section(sums: AllocationSums, watch: Watch = BURSTS) -> Allocations:
    names = {NODE: "main.node", LEAF: "main.leaf", BIG: "main.big"}
    return sums.section(watch, 10.0, names.get, lambda site: (f"main.f{site}", "/src/main.go", 10 * site, 0))


def test_where_all_was_seen_nothing_is_estimated() -> None:
    sums = AllocationSums(SIZES)
    sums.begin(runtime(tiny=100, c2=50))
    sums.end(
        counts({(NODE, 10): (30, 1200, 0), (0, ROW_TINY): (7, 21, 0), (LEAF, 5): (4, 64, 0), (0, ROW_ZERO): (3, 0, 0)}),
        runtime(tiny=105, c2=56, c5=30),
    )
    found = section(sums, ALL)
    assert found.complete
    assert (found.objects, found.runtime_objects, found.coverage, found.zero_size) == (41, 41, 1.0, 3)
    assert [(row.size_class, row.scan, row.noscan, row.tiny) for row in found.classes] == [(2, 0, 4, 7), (5, 30, 0, 0)]
    # Tiny objects are of the class of their blocks, of which the runtime counts the bytes.
    assert [(row.runtime_objects, row.runtime_bytes) for row in found.classes] == [(11, 96), (30, 1440)]
    assert [(row.name, row.objects, row.bytes, row.pointers) for row in found.types] == [
        ("main.node", 30, 1440, True), ("main.leaf", 4, 64, False), (None, 7, 21, False),
    ]  # fmt: skip
    assert all(row.estimated_bytes is None for row in found.types)


def test_a_burst_stands_for_the_time_since_the_one_before_by_size_class() -> None:
    """In the first half all objects of 48 bytes are nodes, in the second half half of them; it is ten times as busy."""
    sums = AllocationSums(SIZES)
    sums.begin(runtime())
    first: Seen = {(NODE, 2 * CLASS_48): (100, 4800, 0), (LEAF, 2 * CLASS_16 + 1): (300, 4800, 0)}
    sums.add(counts(first), runtime(c5=1_000, c2=3_000))
    second: Seen = {(NODE, 2 * CLASS_48): (40, 1920, 0), (BIG, 2 * CLASS_48): (40, 1920, 0)}
    sums.add(counts(plus(first, second)), runtime(c5=11_000, c2=3_000))
    found = section(sums)
    by_name = {row.name: row for row in found.types}
    objects = {name: row.estimated_objects.value for name, row in by_name.items() if row.estimated_objects}
    assert objects == {"main.node": 6_000, "main.big": 5_000, "main.leaf": 3_000}
    held = {name: row.estimated_bytes.value for name, row in by_name.items() if row.estimated_bytes}
    assert held == {"main.node": 288_000, "main.big": 240_000, "main.leaf": 48_000}
    assert [row.name for row in found.types] == ["main.node", "main.big", "main.leaf"]


def test_large_objects_are_estimated_by_their_bytes() -> None:
    sums = AllocationSums(SIZES)
    sums.begin(runtime())
    sums.add(
        counts({(BIG, 0): (1, 990_000, 999_424), (LEAF, 1): (3, 99_000, 122_880)}),
        runtime(large=400, large_bytes=1 << 30),
    )
    found = {row.name: row for row in section(sums).types}
    big, leaf = found["main.big"], found["main.leaf"]
    assert big.estimated_bytes is not None
    assert leaf.estimated_bytes is not None
    assert big.estimated_bytes.value + leaf.estimated_bytes.value == pytest.approx(1 << 30)
    assert big.estimated_bytes.value == pytest.approx((1 << 30) * 999_424 / 1_122_304)
    assert big.estimated_objects is not None
    assert big.estimated_objects.value == 100


def test_one_burst_says_nothing_of_its_error() -> None:
    sums = AllocationSums(SIZES)
    sums.begin(runtime())
    sums.add(counts({(NODE, 2 * CLASS_48): (10, 480, 0)}), runtime(c5=1_000))
    (row,) = section(sums).types
    assert row.estimated_objects is not None
    assert (row.estimated_objects.value, row.estimated_objects.low, row.estimated_objects.high) == (1_000, None, None)


def test_the_truth_is_within_the_interval_about_as_often_as_it_says() -> None:
    """A program whose mixture changes from moment to moment; bursts look at some of the moments."""
    random = np.random.default_rng(7)
    inside = tried = 0
    for _ in range(200):
        shares = random.beta(2, 3, size=12)  # of nodes among objects of 48 bytes, in each stretch of time
        sums, total, truth = AllocationSums(SIZES), 0, 0.0
        seen: Seen = {}
        sums.begin(runtime())
        for share in shares:
            busy = int(random.integers(50_000, 150_000))
            mean = np.clip(share + random.normal(0, 0.1), 0, 1)
            total, truth = total + busy, truth + busy * mean
            nodes = int(np.clip(mean + random.normal(0, 0.1), 0, 1) * 5_000)  # what a burst sees of it
            seen = plus(seen, {(NODE, 10): (nodes, 48 * nodes, 0), (BIG, 10): (5_000 - nodes, 48 * (5_000 - nodes), 0)})
            sums.add(counts(seen), runtime(c5=total))
        estimate = next(row for row in section(sums).types if row.name == "main.node").estimated_objects
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value == pytest.approx(truth, rel=0.5)
        inside += estimate.low <= truth <= estimate.high
        tried += 1
    assert inside >= 0.95 * tried


def test_a_class_that_no_burst_has_seen_in_its_time_is_told() -> None:
    sums = AllocationSums(SIZES)
    sums.begin(runtime())
    sums.add(counts({(NODE, 10): (10, 480, 0)}), runtime(c5=1_000, c2=77))
    found = section(sums)
    assert found.unseen_classes == 77
    assert {row.size_class: row.runtime_objects for row in found.classes} == {2: 77, 5: 1_000}
    assert [row.estimated_objects is None for row in found.classes] == [True, False]


def test_of_a_process_that_has_ended_the_runtime_counted_to_the_last_burst() -> None:
    sums = AllocationSums(SIZES)
    sums.begin(runtime())
    seen: Seen = {(NODE, 10): (10, 480, 0)}
    sums.add(counts(seen), runtime(c5=1_000))
    sums.add(counts(plus(seen, {(NODE, 10): (5, 240, 0)})), None)
    assert section(sums).runtime_objects == 1_000
    assert section(sums).objects == 15
    assert section(sums, ALL).runtime_objects is None


def test_types_beyond_the_first_are_summed_up() -> None:
    sums = AllocationSums(SIZES)
    many = {(0x1000 + at, 10): (at, 48 * at, 0) for at in range(1, TOP_TYPES + 11)}
    sums.end(counts(many), None)
    found = section(sums, ALL)
    assert len(found.types) == TOP_TYPES
    assert (found.more_types, found.more_objects) == (10, sum(range(1, 11)))
    assert found.more_bytes == 48 * found.more_objects


def arrays(kept: dict[tuple[int, int], tuple[int, int, int]]) -> tuple[object, object, object]:
    """Return stacks, keys and sums of what a kernel has kept, by stack and key."""
    stacks, keys = (np.array([pair[at] for pair in kept], np.uint64) for at in (0, 1))
    return stacks, keys, np.array(list(kept.values()), SUM)


def test_counts_are_told_by_type_and_by_stack_and_our_own_hits_are_left_out() -> None:
    rows = np.zeros(ROWS, SUM)
    rows["count"][[10, 5, 253]] = 16, 2, 9
    kept = {(7, NODE << 8 | 10): (4, 40, 0), (8, NODE << 8 | 10): (3, 30, 0), (8, LEAF << 8 | 10): (2, 20, 0),
            (8, LEAF << 8 | 5): (2, 10, 0), (9, 5 << 8 | 253): (9, 9, 0)}  # fmt: skip
    others = np.array([NODE << 8 | 10], np.uint64), np.array([(5, 50, 0)], SUM)
    found = counts_of(rows, arrays(kept), others, np.array((2, 20, 0), SUM))  # type: ignore[arg-type]
    assert found.rows["count"].sum() == 18
    assert found.types == {(NODE, 10): (12, 120, 0), (LEAF, 10): (2, 20, 0), (LEAF, 5): (2, 10, 0)}
    assert found.untold == (2, 20, 0)
    assert {key: sums[0] for key, sums in found.sites.items()} == {(7, 10): 4, (8, 10): 5, (8, 5): 2, (NO_SITE, 10): 7}


def test_stacks_of_one_call_site_are_summed_up() -> None:
    found = counts({(NODE, 10): (9, 90, 0)}, {(70, 10): (4, 40, 0), (71, 10): (3, 30, 0), (NO_SITE, 10): (2, 20, 0)})
    assert found.at_sites(lambda stack: stack // 10).sites == {(7, 10): (7, 70, 0), (NO_SITE, 10): (2, 20, 0)}


def test_call_sites_are_estimated_as_types_are() -> None:
    """Site 1 makes objects of 48 bytes, site 2 those of 16 and, in the busier second half, half of the former."""
    sums = AllocationSums(SIZES)
    sums.begin(runtime())
    first: Seen = {(1, 10): (100, 4800, 0), (2, 5): (300, 4800, 0)}
    sums.add(counts(first, first), runtime(c5=1_000, c2=3_000))
    second: Seen = {(1, 10): (40, 1920, 0), (2, 10): (40, 1920, 0)}
    both = plus(first, second)
    sums.add(counts(both, both), runtime(c5=11_000, c2=3_000))
    found = section(sums)
    assert [(row.function, row.file, row.line, row.address) for row in found.sites] == [
        ("main.f2", "/src/main.go", 20, None), ("main.f1", "/src/main.go", 10, None),
    ]  # fmt: skip
    estimates = [(row.estimated_objects, row.estimated_bytes) for row in found.sites]
    assert [(one.value, other.value) for one, other in estimates if one and other] == [
        (8_000, 288_000), (6_000, 288_000),
    ]  # fmt: skip
    assert [(row.objects, row.bytes) for row in found.sites] == [(340, 6720), (140, 6720)]


def test_what_has_no_call_site_is_part_of_the_whole_and_told_apart() -> None:
    sums = AllocationSums(SIZES)
    sums.begin(runtime())
    types: Seen = {(NODE, 10): (100, 4800, 0), (0, ROW_ZERO): (5, 0, 0)}
    sites: Seen = {(1, 10): (75, 3600, 0), (NO_SITE, 10): (25, 1200, 0), (NO_SITE, ROW_ZERO): (5, 0, 0)}
    sums.add(counts(types, sites), runtime(c5=1_000))
    found = section(sums)
    (row,) = found.sites
    assert row.estimated_objects is not None
    assert row.estimated_objects.value == 750
    assert found.unsited_objects == 25


def test_call_sites_beyond_the_first_are_summed_up() -> None:
    sums = AllocationSums(SIZES)
    many: Seen = {(at, 10): (at, 48 * at, 0) for at in range(1, TOP_SITES + 11)}
    sums.end(counts(many, many), None)
    found = section(sums, ALL)
    assert len(found.sites) == TOP_SITES
    assert found.sites[0].function == f"main.f{TOP_SITES + 10}"
    assert (found.more_sites, found.more_site_objects, found.more_site_bytes) == (10, 55, 48 * 55)


def test_what_came_since_is_the_difference() -> None:
    before = counts({(NODE, 10): (3, 30, 0)})
    now = counts({(NODE, 10): (3, 30, 0), (LEAF, 5): (2, 32, 0), (0, ROW_ZERO): (1, 0, 0)})
    assert now.since(before).types == {(LEAF, 5): (2, 32, 0), (0, ROW_ZERO): (1, 0, 0)}
    assert now.since(now).types == {}
    assert no_allocations().since(no_allocations()).rows["count"].sum() == 0
