"""`gomem trace -- CMD` sees the command's first mapping and names the runtime functions that made the reservations."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.json.schema import validate
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.requirements import program
from tests.support.toolchains import RELEASES

MB = 1 << 20
NO_ACCESS_MAP = re.compile(r"mmap\((?:NULL|0x[0-9a-f]+), (\d+), PROT_NONE, .*\) = 0x")

pytestmark = pytest.mark.bpf


def _reservations(binary: Path) -> Counter[int]:
    """Return the sizes of all address space that `binary` maps without access, as strace sees it."""
    strace = program("strace", "strace")
    done = subprocess.run([strace, "-f", "-e", "trace=mmap", binary], capture_output=True, text=True, check=True)
    return Counter(int(size) for size in NO_ACCESS_MAP.findall(done.stderr))


def _trace(directory: Path, *command: object) -> dict[str, Any]:
    """Trace a command that has standard output for itself: the report goes into a file."""
    file = directory / "report.json"
    done = gomem("trace", "--duration", 20, "--format", "json", "-o", file, "--", *command)
    assert (done.status, done.stdout) == (0, "hello\n"), done.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    validate(report)
    return report


@pytest.mark.parametrize("release", RELEASES)
def test_each_reservation_at_start_is_there_and_has_a_function_of_the_runtime(release: str, tmp_path: Path) -> None:
    report = _trace(tmp_path, build("tiny", release), "-hold", "1s")
    reserve = [row for row in report["transitions"] if row["event"] == "reserve"]
    assert reserve
    for row in reserve:
        assert (row["from"], row["to"]) == ("None", "Reserved")
        assert row["function"].startswith("runtime."), row
    by_strace = _reservations(build("tiny", release))
    assert sum(row["bytes"] for row in reserve) == sum(size * count for size, count in by_strace.items())
    assert sum(row["count"] for row in reserve) == by_strace.total()
    functions = {row["function"] for row in reserve}
    assert any("mheap" in name and "sysAlloc" in name for name in functions), "the arena hint"
    assert any("pageAlloc" in name or "scavengeIndex" in name for name in functions), "the page summaries"


@pytest.mark.parametrize("release", RELEASES)
def test_prepared_and_ready_memory_at_start_is_attributed_too(release: str, tmp_path: Path) -> None:
    report = _trace(tmp_path, build("tiny", release), "-hold", "1s")
    named = {(row["event"], row["from"], row["to"]) for row in report["transitions"] if row["function"]}
    assert ("map", "Reserved", "Prepared") in named
    assert ("alloc", "None", "Ready") in named
    grown = [row for row in report["transitions"] if row["event"] == "map" and "grow" in row["function"]]
    assert sum(row["bytes"] for row in grown) >= 4 * MB, "the heap grows by arenas of 64 MB, mapped in steps of 4 MB"


def test_a_program_that_ends_before_the_time_is_up_is_reported_with_what_it_did(tmp_path: Path) -> None:
    report = _trace(tmp_path, build("tiny", "1.25.5"))
    assert report["duration_seconds"] < 20
    assert report["events"]["mmap"]["count"] >= 10
    assert report["limits"], "that the process is gone, so that its memory could not be read"


def test_the_program_writes_and_reads_as_if_it_were_alone() -> None:
    done = gomem("trace", "--duration", "20", "-o", "/dev/null", "--", build("tiny", "1.25.5"))
    assert done.status == 0
    assert done.stdout == "hello\n"


def test_a_command_that_is_not_there_is_told_with_the_code_of_env_and_timeout() -> None:
    message = gomem("trace", "--", "/nonexistent/program").refusal(127)
    assert "/nonexistent/program" in message
