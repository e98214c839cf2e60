"""Memory calls on a kernel that interrupts BPF programs for other threads, which leaves others of them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.inside.functions import mounted, trampolines
from tests.support.bpf.sharing import sharing
from tests.support.builds import build
from tests.support.processes import running, wait_until

pytestmark = pytest.mark.bpf

__all__ = ["mounted", "trampolines"]


def test_what_sees_them_is_changed(mounted: dict[str, Path]) -> None:
    """The mode can be changed where the kernel was built for that."""
    preempt = mounted["debugfs"] / "sched" / "preempt"
    modes = preempt.read_text().split() if preempt.exists() else []
    if "full" not in modes:
        pytest.skip(f"the kernel's preemption cannot be changed: {modes}")
    (before,) = (mode.strip("()") for mode in modes if mode.startswith("("))
    preempt.write_text("full")
    try:
        with running(build("callstorm", "1.27.3"), "-threads", "6") as process, sharing() as source:
            source.add(process.pid)
            assert process.stdin is not None
            process.stdin.write(b"100000000\n")
            process.stdin.flush()

            def changed() -> bool:
                source.poll(0.01)
                return source.seen_by != "functions"

            wait_until(changed, "tracepoints", 120)
            assert source.target(process.pid).no_room > 0
    finally:
        preempt.write_text(before)
