"""What a kernel says of memory that this project's own machine cannot show: swap, names of mappings."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernels.guest import DISK
from tests.support.builds import build
from tests.support.command import obeys_the_rules, report_of
from tests.support.occupant import occupant
from tests.support.parked import parked

_PROCESS_MADVISE, _MADV_PAGEOUT = 440, 21


@contextmanager
def swap_on(disk: Path) -> Iterator[None]:
    if not disk.is_block_device():
        pytest.skip(f"{disk} is no disk for swap")
    subprocess.run(["busybox", "mkswap", str(disk)], check=True, capture_output=True)
    subprocess.run(["busybox", "swapon", str(disk)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["busybox", "swapoff", str(disk)], check=True, capture_output=True)


def page_out(pid: int, start: int, size: int) -> None:
    """Ask the kernel to take pages of another process."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    vector = (ctypes.c_size_t * 2)(start, size)
    done = libc.syscall(_PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, _MADV_PAGEOUT, 0)
    os.close(pidfd)
    assert done > 0, os.strerror(ctypes.get_errno())


def rollup(pid: int, name: str) -> int:
    """Return a figure of smaps_rollup, bytes."""
    line = next(
        line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith(f"{name}:")
    )
    return int(line.split()[1]) * 1024


def test_what_is_in_swap_is_not_in_ram() -> None:
    with occupant("touched") as process, swap_on(DISK):
        before = report_of("snapshot", "--pid", process.pid)
        assert before["resident"]["swap"] == rollup(process.pid, "Swap") == 0
        (start,), (end,) = process.place
        page_out(process.pid, int(start), int(end - start))
        after = report_of("snapshot", "--pid", process.pid)
        assert after["resident"]["swap"] == rollup(process.pid, "Swap") > 0.9 * process.said["resident"]
        assert after["resident"]["total"] == rollup(process.pid, "Rss")
        assert before["resident"]["total"] - after["resident"]["total"] > 0.9 * process.said["resident"]
        obeys_the_rules(after)


def test_the_names_that_go_gives_its_mappings_are_what_gomem_takes_them_for() -> None:
    with parked(build("parked", "1.27.3"), live=24) as target:
        maps = Path(f"/proc/{target.pid}/maps").read_text()
        report = report_of("snapshot", "--pid", target.pid)
    if "[anon: Go: " not in maps:
        pytest.skip("the kernel keeps no names of anonymous mappings (CONFIG_ANON_VMA_NAME, since Linux 5.17)")
    assert "[anon: Go: heap]" in maps
    assert "mapping-names-disagree" not in {limit["id"] for limit in report["limits"]}
    obeys_the_rules(report)
