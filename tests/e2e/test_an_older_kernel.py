"""What is tried on each change on an older kernel than this machine's, in a virtual machine: see tests/kernels."""

from __future__ import annotations

import pytest

from tests.kernels.debian import KERNELS, KernelMissing
from tests.kernels.features import FEATURES
from tests.kernels.results import FALLS_BACK, WORKS, outcome
from tests.kernels.trial import tried
from tests.support.requirements import absent, program

_LONGEST = 900.0  # seconds; two minutes are usual


@pytest.mark.timeout(_LONGEST + 60)
def test_events_on_linux_6_1_are_exact_and_whole() -> None:
    program("qemu-system-x86_64", "qemu-system-x86")
    program("busybox", "busybox-static")
    features = [feature for feature in FEATURES if feature.always]
    try:
        found = tried(next(kernel for kernel in KERNELS if kernel.name == "6.1"), features, _LONGEST)
    except KernelMissing as missing:
        absent(f"Linux 6.1 cannot be had: {missing}")
    states = {feature.name: outcome(feature, found) for feature in features}
    assert all(state in (WORKS, FALLS_BACK) for state, _ in states.values()), states
    assert states["events of the runtime: none lost, drift 0"] == (FALLS_BACK, "by perf-event uprobes")
