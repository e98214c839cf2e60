"""How many CPUs per-CPU maps are for, where there is no /sys to tell."""

from __future__ import annotations

import pytest

from gomem.bpf.program import _cpus_of_mask, possible_cpus


@pytest.mark.parametrize(
    ("mask", "least"), [("3", 2), ("ff", 8), ("7fff", 15), ("ffffffff,ffffffff", 64), ("1,00000000", 33)]
)
def test_a_tasks_mask_has_room_for_all_cpus(mask: str, least: int) -> None:
    status = f"Cpus_allowed:\t{mask}\nCpus_allowed_list:\t0\n"
    assert least <= _cpus_of_mask(status) < least + 4


def test_here_it_has_no_less_room_than_the_kernel_needs() -> None:
    with open("/proc/self/status") as file:
        assert _cpus_of_mask(file.read()) >= possible_cpus()
