"""What is said of address space: what of it is in RAM, and what limits it, against the kernel's figures and acts."""

from __future__ import annotations

import resource
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from gomem.exporters.text.report import render_text
from gomem.tracer.report import Report
from tests.support.builds import build
from tests.support.seen import findings, look_at, told

MB, GB = 1 << 20, 1 << 30
PAGE = 4096
ARENA = 64 * MB


def mapped(kind: str, size: int) -> tuple[object, ...]:
    return build("mapped", "1.25.5"), kind, size


def status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def can_map(process: subprocess.Popen[bytes], word: str, size: int) -> bool:
    """Let the target map so many bytes more, and return whether the kernel allowed it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word} {size}\n".encode())
    process.stdin.flush()
    return process.stdout.readline() == b"true\n"


def at_its_limit(name: str, limited: int, left: int, word: str, uncounted: str = "") -> tuple[int, Report]:
    """Leave a program `left` bytes until a limit; return it and a report, once the kernel agrees to the page.

    Go's runtime maps memory of its own when it starts a thread or grows the heap, and ends where it cannot. Then what
    was left is not what is left, and another program is tried. As much as one likes of `uncounted` can be mapped.
    """
    for _ in range(8):
        with told(*mapped("none", 0)) as (process, _):
            limit = status(process.pid, name) + left
            resource.prlimit(process.pid, limited, (limit, limit))
            _, report = look_at(process)
            with suppress(BrokenPipeError, StopIteration, ProcessLookupError):
                could = not uncounted or can_map(process, uncounted, 64 * MB)
                too_much = can_map(process, word, left + PAGE)
                if status(process.pid, name) + left == limit:
                    assert could
                    assert not too_much
                    if can_map(process, word, left):
                        return limit, report
                    assert status(process.pid, name) + left != limit, "what is left cannot be mapped"
    pytest.fail("the runtime maps memory all the time")


def test_empty_address_space_of_a_small_program_is_no_matter_and_holds_no_ram() -> None:
    with told(*mapped("none", 0)) as (process, _):
        _, report = look_at(process)
    assert report.virtual is not None
    assert report.virtual.resident is not None
    assert report.virtual.resident.reserved == 0
    finding = findings(report)["reserved-address-space"]
    assert "No limit that is set counts it." in finding.explanation
    assert "without access" not in finding.explanation
    assert finding.actionable is False
    assert not {one for one in findings(report) if one.startswith("near-")}


def test_what_the_program_has_mapped_without_access_is_told_apart_from_what_go_reserves() -> None:
    with told(*mapped("noaccess", 80 * GB)) as (process, _):
        _, report = look_at(process)
    virtual = report.virtual
    assert virtual is not None
    assert virtual.reserved is not None
    assert virtual.reserved < 2 * GB
    assert virtual.unmanaged_no_access is not None
    assert 80 * GB <= virtual.unmanaged_no_access < 80 * GB + 16 * MB
    finding = findings(report)["reserved-address-space"]
    assert finding.title == "VSZ is 81 GiB, but 81 GiB of it is only address space"
    assert "the program or its libraries have mapped 80 GiB without access" in finding.explanation
    assert "80.0 GiB without access" in " ".join(render_text(report).split())


def test_ranges_that_are_locked_in_ram_are_not_said_to_hold_none() -> None:
    with told(*mapped("locked", 200 * MB)) as (process, _):
        _, report = look_at(process)
        locked = status(process.pid, "VmLck")
        smaps = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    virtual = report.virtual
    assert virtual is not None
    assert virtual.resident is not None
    assert report.address_limits is not None
    assert report.address_limits.locked == locked > GB
    states = ("reserved", "prepared", "ready", "unmanaged")
    total = next(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Rss:")) * 1024
    assert abs(sum(getattr(virtual.resident, state) for state in states) - total) <= MB
    assert virtual.resident.prepared >= 200 * MB
    found = findings(report)
    assert "VmLck" in found["scavenged-but-resident"].explanation
    assert "mlock" in found["scavenged-but-resident"].action
    explanation = found["reserved-address-space"].explanation
    assert "MiB are in RAM all the same (the process locks its memory: mlock)" in explanation
    assert "holds no RAM" not in explanation
    prepared = next(line for line in render_text(report).splitlines() if line.strip().startswith("prepared"))
    assert "MiB in RAM" in prepared


@pytest.mark.parametrize("left", [3 * PAGE, 16 * MB, 63 * MB])
def test_the_distance_to_rlimit_as_is_what_can_still_be_mapped(left: int) -> None:
    limit, report = at_its_limit("VmSize", resource.RLIMIT_AS, left, "MAP")
    assert report.address_limits is not None
    assert report.address_limits.address_space == limit
    found = findings(report)
    near = found["near-address-space-limit"]
    assert near.severity == "warning"
    assert near.evidence["left"] == left
    assert "another 64 MiB" in near.explanation
    assert next(iter(found)) == near.id
    assert "RLIMIT_AS counts all of it" in found["reserved-address-space"].explanation
    assert "No limit" not in found["reserved-address-space"].explanation
    assert found["reserved-address-space"].actionable is True


def test_a_limit_of_address_space_that_is_far_away_is_no_warning() -> None:
    with told(*mapped("none", 0)) as (process, _):
        limit = 2 * status(process.pid, "VmSize")
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        _, report = look_at(process)
    assert "near-address-space-limit" not in findings(report)
    assert "RLIMIT_AS counts all of it" in findings(report)["reserved-address-space"].explanation


def test_the_distance_to_rlimit_data_is_what_can_still_be_mapped_writable() -> None:
    left = 8 * PAGE
    _, report = at_its_limit("VmData", resource.RLIMIT_DATA, left, "WRITABLE", uncounted="MAP")
    near = findings(report)["near-data-limit"]
    assert near.evidence["left"] == left
    assert "near-address-space-limit" not in findings(report)


def test_what_can_be_acted_on_comes_before_what_cannot() -> None:
    """Of a large heap that is free: what holds RAM leads, what is only address space comes last."""
    with told(*mapped("memfd", 100 * MB)) as (process, _):
        _, report = look_at(process)
    found = list(findings(report))
    assert found[0] == "shared-memory"
    assert found[-1] == "reserved-address-space"
