"""What a person sees on a terminal, and what a pipe gets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.exporters.units import size
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.parked import Parked, parked
from tests.support.processes import rss, running
from tests.support.terminal import on_a_terminal

COLOUR = re.compile(r"\x1b\[(?:\d+;)*3\d")


@pytest.fixture(scope="module")
def target() -> Iterator[Parked]:
    with parked(build("parked", "1.25.5"), live=24, garbage=0.5, goroutines=20, big=4) as one:
        yield one


def test_a_terminal_counts_down_with_rss_and_heap_and_forgets_it(target: Parked) -> None:
    truth = target.memstats()
    shown = on_a_terminal("trace", "--pid", target.pid, "--duration", 3, "--backend", "procfs", columns=100)
    assert shown.status == 0
    left = [int(found[1]) for line in shown.replaced if (found := re.match(r"gomem: (\d+) s left", line))]
    assert len(left) == len(shown.replaced) >= 2
    assert left == sorted(set(left), reverse=True)
    assert f"Go heap in use {size(truth['HeapInuse'])}" in shown.replaced[-1]
    assert f"RSS {size(rss(target.pid))}" in shown.replaced[-1]
    live = re.search(r"the live heap is ([^.;]+\.?\d* \w+)", " ".join(shown.screen))
    assert live is not None
    assert f"live heap {live[1]}" in shown.replaced[-1]
    assert shown.screen[0].startswith(f"gomem: watching process {target.pid}")
    assert shown.screen[1].startswith("parked")
    assert not any(" left" in line for line in shown.screen)


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}], ids=["dumb", "unknown"])
def test_a_terminal_that_cannot_erase_gets_no_countdown(target: Parked, env: dict[str, str]) -> None:
    shown = on_a_terminal("trace", "--pid", target.pid, "--duration", 1.2, "--backend", "procfs", env=env)
    assert shown.status == 0
    assert shown.replaced == []
    assert "\r\x1b" not in shown.written


def test_a_pipe_gets_no_countdown(target: Parked) -> None:
    done = gomem("trace", "--pid", target.pid, "--duration", 1.2, "--backend", "procfs")
    assert done.status == 0
    assert "\r" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_the_page_of_a_process_fits_the_terminal(target: Parked, columns: int) -> None:
    truth = target.memstats()
    shown = on_a_terminal("snapshot", "--pid", target.pid, columns=columns, env={"NO_COLOR": "1"})
    assert shown.status == 0
    assert max(map(len, shown.screen)) <= columns
    page = "\n".join(shown.screen)
    for name in ("HeapInuse", "HeapReleased", "Sys"):
        assert re.search(rf"\b{name} {re.escape(size(truth[name]))}(?=   |$)", page, re.MULTILINE), name
    assert "Go heap" in page


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"CLICOLOR_FORCE": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_a_pipe_has_colours_when_they_are_asked_for_and_a_file_never(
    target: Parked, env: dict[str, str], coloured: bool, tmp_path: Path
) -> None:
    done = gomem("snapshot", "--pid", target.pid, env=env)
    assert done.status == 0
    assert bool(COLOUR.search(done.stdout)) is coloured
    assert gomem("snapshot", "--pid", target.pid, "-o", tmp_path / "page", env=env).status == 0
    assert "\x1b" not in (tmp_path / "page").read_text()


def test_threads_are_those_that_the_kernel_counts() -> None:
    """A cgo program has an M without a thread, for a thread of C that calls Go."""
    with parked(build("parked", "1.25.5", mode="cgo"), live=8) as target:
        status = Path(f"/proc/{target.pid}/status").read_text()
        threads = re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)
        page = gomem("snapshot", "--pid", target.pid).stdout
    assert threads is not None
    assert f"OS threads {threads[1]}\n" in page.replace("   ", "\n") + "\n"
    ms = re.search(r"\bMs (\d+)", page)
    assert ms is not None
    assert int(ms[1]) > int(threads[1])


@pytest.mark.bpf
def test_of_a_moment_nobody_tells_by_how_much_it_slowed_the_process(tmp_path: Path) -> None:
    """A start of a few milliseconds is all probes; a second of 50,000 memory calls tells."""
    assert gomem("trace", "--format", "json", "-o", tmp_path / "moment", "--", build("tiny", "1.25.5")).status == 0
    moment = json.loads((tmp_path / "moment").read_text())
    assert sum(probe["hits"] for probe in moment["overhead"]["probes"]) > 0
    if moment["duration_seconds"] < 0.08:
        assert moment["overhead"]["target_slowdown_estimate"] is None
    with running(build("callstorm", "1.25.5")) as storm:
        assert storm.stdin is not None
        assert storm.stdout is not None
        storm.stdin.write(b"50000\n")
        storm.stdin.flush()
        storm.stdout.readline()
        longer = gomem("trace", "--pid", storm.pid, "--duration", 1, "--backend", "bpf", "--format", "json").report()
    assert longer["overhead"]["target_slowdown_estimate"] > 0.02
