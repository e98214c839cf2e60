"""How much room there is for stacks, and how what the CPUs have counted is added up."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.bpf.stacks import MOST_PAIRS, StackRoom, over_cpus

SUM = np.dtype([("count", "<u8"), ("bytes", "<u8")])


def test_the_kernels_memory_for_sums_does_not_grow_with_the_number_of_cpus() -> None:
    assert StackRoom(16, SUM, 2).pairs == MOST_PAIRS
    many = StackRoom(16, SUM, 512)
    assert many.pairs * SUM.itemsize * many.cpus <= 16 << 20
    assert StackRoom(16, SUM, 1 << 20).pairs == 256


@pytest.mark.parametrize("depth", [0, 3, 48, 256])
def test_a_depth_that_no_mask_bounds_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        StackRoom(depth, SUM, 2).constants()


def test_hashes_begin_with_another_number_each_time() -> None:
    room = StackRoom(16, SUM, 2)
    assert room.constants()["STACK_SEED"] != room.constants()["STACK_SEED"]


def test_what_the_cpus_have_counted_is_added_up() -> None:
    sums = np.array([[(1, 10), (2, 20)], [(3, 30), (0, 0)]], SUM)
    assert over_cpus(sums).tolist() == [(3, 30), (3, 30)]
    assert over_cpus(sums[0]).item() == (3, 30)
