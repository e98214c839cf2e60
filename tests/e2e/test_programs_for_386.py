"""Go programs for 386: everyone who looks for Go processes is told of them, and that they are not supported."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.builds import build
from tests.support.c_programs import compiled
from tests.support.command import gomem
from tests.support.processes import running
from tests.support.serving import serving

RELEASE = "1.25.5"


@pytest.fixture(scope="module")
def pids() -> Iterator[tuple[int, int]]:
    """A Go program and another one, both for 386."""
    with (
        running(build("churn", RELEASE, goarch="386"), "-mb", "16", "-phase", "100ms") as go,
        running(compiled("pause386/pause386.c", "-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie")) as other,
    ):
        yield go.pid, other.pid


def test_ps_lists_a_go_program_for_386_and_says_that_it_is_not_supported(pids: tuple[int, int]) -> None:
    go, other = pids
    listing = json.loads(gomem("ps", "--format", "json").stdout)
    rows = {row["pid"]: row for row in listing["processes"]}
    assert other not in rows
    row = rows[go]
    assert (row["name"], row["go_version"], row["heap_in_use"]) == ("churn", f"go{RELEASE}", None)
    assert row["rss"] > 0
    (limit,) = row["limits"]
    assert limit["id"] == "go-executable"
    assert "for 386" in limit["why"]
    assert "not supported" in limit["why"]
    lines = gomem("ps").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.split()[0] == str(go))
    assert "not supported" in lines[at + 1]


def test_serve_shows_a_go_program_for_386_by_what_the_kernel_knows_and_says_why(pids: tuple[int, int]) -> None:
    go, other = pids
    with serving("--interval", "0.5") as served:
        served.until(lambda: (served.value("gomem_looks_total", pid=str(go)) or 0) > 1, "looks at the program for 386")
        assert served.samples("gomem_process_info", pid=str(other)) == []
        assert served.value("gomem_process_state", pid=str(go), state="kernel_only") == 1
        assert served.samples("gomem_process_info", pid=str(go), go_version=f"go{RELEASE}")
        assert (served.value("gomem_process_resident_bytes", pid=str(go)) or 0) > 0
        assert served.value("gomem_follows_events", pid=str(go)) == 0
        overview, page = served.get("/"), served.get(f"/targets/{go}")
    for text in (overview, page):
        assert "for 386, a 32-bit machine, which is not supported" in text
