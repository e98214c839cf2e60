"""Who has mapped what for itself: the target says what it mapped, and the kernel's maps have it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.command import outcome, started
from tests.support.seen import told

MB = 1 << 20
GB = 1 << 30


def do(process: subprocess.Popen[bytes], word: str, size: int = 0) -> None:
    """Let the target do something, which it can."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word} {size}\n".encode())
    process.stdin.flush()
    assert process.stdout.readline() == b"true\n"


def without_access(pid: int) -> int:
    """Return the bytes that the kernel's maps have without access, of mappings of a gigabyte and more."""
    rows = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    sizes = [int(row[0].split("-")[1], 16) - int(row[0].split("-")[0], 16) for row in rows if row[1] == "---p"]
    return sum(size for size in sizes if size >= GB)


def watched(
    release: str, before: Sequence[tuple[str, int]], then: Sequence[tuple[str, int]]
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Return the report of a stripped target that does something before and while it is watched; with its findings."""
    with told(build("mapped", release, stripped=True), "none", 0) as (process, _):
        for step in before:
            do(process, *step)
        with started("trace", "--format", "json", "-d", "60", process.pid) as tracer:
            for step in then:
                do(process, *step)
            tracer.send_signal(signal.SIGINT)
            report = outcome(tracer).report()
        closed = without_access(process.pid)
    return report, {one["id"]: one for one in report["findings"]}, closed


def by_function(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {row["function"]: row["sums"] for row in report["user_mappings"]["by_caller"]}


@pytest.mark.bpf
@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_memory_and_address_space_are_told_by_the_function_that_mapped_them(release: str) -> None:
    steps = [("MAP", 8 * GB), ("TOUCHED", 96 * MB), ("MAP", 8 * GB)]
    report, found, closed = watched(release, [], steps)
    rows = by_function(report)
    reserved, cache = rows["main.reserve"], rows["main.cache"]
    assert (reserved["virtual"], reserved["no_access"], reserved["resident"]) == (16 * GB, 16 * GB, 0)
    # The runtime reserves a gigabyte nowhere, but in one piece on some machines: what is larger is the program's.
    assert closed == 16 * GB
    assert (cache["virtual"], cache["no_access"], cache["resident"]) == (96 * MB, 0, 96 * MB)
    said = found["user-mappings"]
    assert said["evidence"]["function"] == "main.cache"
    assert said["evidence"]["resident"] == 96 * MB
    assert "called by main.more, main.main" in said["explanation"]
    assert "16 GiB of it by main.reserve" in found["reserved-address-space"]["explanation"]
    assert found["reserved-address-space"]["severity"] == "info"


@pytest.mark.bpf
def test_what_was_unmapped_or_was_there_before_or_is_of_the_heap_is_nobodys() -> None:
    steps = [("TOUCHED", 96 * MB), ("DROP", 0), ("HEAP", 96 * MB)]
    report, found, _ = watched("1.27.3", [("TOUCHED", 80 * MB), ("MAP", 8 * GB)], steps)
    mine = report["user_mappings"]
    assert [row for row in mine["by_caller"] if row["sums"]["virtual"] >= MB] == []
    assert mine["unseen"]["resident"] >= 80 * MB
    assert mine["unseen"]["no_access"] >= 8 * GB
    assert "user-mappings" not in found
    # A range is there all the same, without a name.
    largest = mine["largest"][0]
    assert (largest["size"] >= 8 * GB, largest["function"]) == (True, None)
    assert "8.0 GiB of it in one range at 0x" in found["reserved-address-space"]["explanation"]
