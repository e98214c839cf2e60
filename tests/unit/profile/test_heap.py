"""Values of a heap profile against those that runtime/pprof computed (Go 1.27.3, amd64)."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.profile.heap import scaled

# rate, size, count: alloc_objects, alloc_space of scaleHeapSample.
BY_GO = [
    (4096, 34, 1234, 149278, 5075471),
    (4096, 201, 99999, 2088198, 419727995),
    (4096, 546, 10000001, 80129374, 43750638275),
    (4096, 1345, 1, 3, 4805),
    (4096, 2913, 2, 3, 11447),
    (4096, 6159, 3, 3, 23758),
    (4096, 12877, 7, 7, 94200),
    (4096, 26781, 100, 100, 2681980),
    (4096, 55562, 1234, 1234, 68563596),
    (4096, 115136, 99999, 99999, 11513484864),
    (4096, 238448, 10000001, 10000001, 2384480238448),
    (4096, 524554, 1, 1, 524554),
    (4096, 1085897, 2, 2, 2171794),
    (4096, 2247814, 3, 3, 6743442),
    (524288, 77, 7, 47666, 3670285),
    (524288, 289, 100, 181464, 52443251),
    (524288, 729, 1234, 888095, 647421289),
    (524288, 1637, 99999, 32077072, 52510167486),
    (524288, 3518, 10000001, 1495307048, 5260490197671),
    (524288, 7882, 1, 67, 528238),
    (524288, 16443, 2, 64, 1065104),
    (524288, 34163, 3, 47, 1624664),
    (524288, 70843, 7, 55, 3923548),
    (524288, 146766, 100, 409, 60109026),
    (524288, 303919, 1234, 2805, 852505483),
    (524288, 629207, 99999, 143092, 90034879835),
    (524288, 1302517, 10000001, 10909640, 14209991879739),
    (524288, 2864714, 1, 1, 2876902),
]


@pytest.mark.parametrize(("rate", "size", "count", "objects", "space"), BY_GO)
def test_values_are_scaled_as_go_scales_them(rate: int, size: int, count: int, objects: int, space: int) -> None:
    found = scaled(np.array([count, 0]), np.array([size, size]), rate)
    assert [column.tolist() for column in found] == [[objects, 0], [space, 0]]


@pytest.mark.parametrize("rate", [1, 0, -1])
def test_a_rate_that_samples_all_or_is_not_known_scales_nothing(rate: int) -> None:
    found = scaled(np.array([3, 5]), np.array([16, 32]), rate)
    assert [column.tolist() for column in found] == [[3, 5], [48, 160]]


def test_an_object_without_a_size_counts_nothing() -> None:
    assert [column.tolist() for column in scaled(np.array([3]), np.array([0]), 1000)] == [[0], [0]]


def test_a_rate_that_is_a_lie_gives_values_that_a_file_can_hold() -> None:
    objects, space = scaled(np.array([1 << 40]), np.array([8]), (1 << 63) - 1)
    assert 0 <= int(objects[0]) <= 1 << 62
    assert 0 <= int(space[0]) <= 1 << 62
