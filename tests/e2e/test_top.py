"""`gomem top` in a real terminal, of real Go programs: what it shows, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gomem.exporters.units import short_size
from tests.support.builds import built
from tests.support.command import gomem
from tests.support.parked import Parked, parked
from tests.support.processes import rss
from tests.support.tmux import Window, window

RELEASES = ("1.25.5", "1.27.3")
COLUMNS = ("rss", "firm", "live", "garb", "free", "stack", "c", "file")


@pytest.fixture(scope="module")
def targets() -> Iterator[list[Parked]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(parked(built("parked", release), live=16 * (number + 1), goroutines=20, big=4))
            for number, release in enumerate(RELEASES)
        ]


def row(lines: list[str], pid: int) -> list[str]:
    """The cells of a process's row."""
    return next((line.split() for line in lines if line.split()[:1] == [str(pid)]), [])


def known(lines: list[str], targets: list[Parked]) -> bool:
    """Whether each process has a row with figures."""
    return all(re.fullmatch(r"[\d.]+[KMG]?", "".join(row(lines, target.pid)[2:3])) for target in targets)


def of(targets: list[Parked]) -> list[str]:
    return [word for target in targets for word in ("--pid", str(target.pid))]


def settled(shown: Window, targets: list[Parked]) -> list[str]:
    return shown.until(lambda lines: known(lines, targets), "the rows of all processes")


def test_rows_have_the_figures_of_the_kernel_and_of_memstats(targets: list[Parked]) -> None:
    with window("top", *of(targets), columns=150) as shown:
        lines = settled(shown, targets)
        head = next(line for line in lines if "PROGRAM" in line).lower().replace("v ", " ").split()
        for target in targets:
            cells = row(lines, target.pid)
            figures = dict(zip(head, cells, strict=False))
            assert figures["rss"] == short_size(rss(target.pid))
            truth = target.memstats()
            smaps = Path(f"/proc/{target.pid}/smaps_rollup").read_text()
            lazy = int(re.search(r"LazyFree:\s+(\d+)", smaps)[1]) << 10  # type: ignore[index]
            assert figures["firm"] == short_size(rss(target.pid) - lazy)
            # Live and garbage are what MemStats calls HeapAlloc; three digits of each are shown.
            both = sum(in_bytes(figures[name]) for name in ("live", "garb"))
            assert both == pytest.approx(truth["HeapAlloc"], rel=0.02)
            assert in_bytes(figures["free"]) <= truth["HeapIdle"] - truth["HeapReleased"]
        shown.press("q")
        assert shown.status() == 0
        assert shown.modes() == "0 0"


def in_bytes(figure: str) -> float:
    unit = figure[-1] if figure[-1] in "KMG" else ""
    return float(figure.removesuffix(unit)) * float(1024 ** " KMG".index(unit or " "))


def test_it_sorts_filters_opens_and_shows_each_page(targets: list[Parked]) -> None:
    first, second = sorted(targets, key=lambda target: target.pid)
    with window("top", *of(targets), columns=100, lines=30) as shown:
        settled(shown, targets)
        shown.press("P")
        shown.until(lambda lines: order(lines, targets) == [first.pid, second.pid], "rows by pid")
        shown.press("I")
        shown.until(lambda lines: order(lines, targets) == [second.pid, first.pid], "rows by pid, turned")
        shown.press("/")
        shown.press(*str(first.pid), "Enter")
        shown.until(lambda lines: order(lines, targets) == [first.pid], "what has these letters")
        shown.press("Enter")
        shown.until(lambda lines: any("in RAM/all" in line for line in lines), "the map")
        shown.press("6")
        shown.until(lambda lines: any("Goroutines by creator" in line for line in lines), "the goroutines")
        shown.press("7")
        shown.until(lambda lines: any(f"pid {first.pid}" in line for line in lines), "the report")
        shown.press("Escape")
        shown.until(lambda lines: not any("1 Map" in line for line in lines), "the end of the panel")
        shown.press("C-c")
        assert shown.status() == 0


def order(lines: list[str], targets: list[Parked]) -> list[int]:
    pids = [target.pid for target in targets]
    first = [line.split()[0] for line in lines if line.split()]
    return [int(word) for word in first if word.isdigit() and int(word) in pids]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda one: one.name)
def test_signals_end_it_and_the_terminal_is_as_it_was(number: signal.Signals, targets: list[Parked]) -> None:
    with window("top", *of(targets)) as shown:
        settled(shown, targets)
        os.kill(shown.pid(), number)
        assert shown.status() == 0
        lines = shown.until(lambda lines: {"icanon", "echo"} <= words(lines), "a terminal in its usual modes")
        assert shown.modes() == "0 0", lines


def words(lines: list[str]) -> set[str]:
    return {line.strip() for line in lines}


def test_a_closed_terminal_ends_it(targets: list[Parked]) -> None:
    with window("top", *of(targets)) as shown:
        settled(shown, targets)
        pid = shown.pid()
        shown.tmux("kill-session")
    ends(pid)


def test_killed_it_leaves_no_process_behind(targets: list[Parked]) -> None:
    with window("top", *of(targets)) as shown:
        settled(shown, targets)
        pid = shown.pid()
        os.kill(pid, signal.SIGKILL)
        assert shown.status() == 128 + signal.SIGKILL
    ends(pid)


def ends(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)


def test_what_is_no_terminal_is_told_so(targets: list[Parked]) -> None:
    said = gomem("top", *of(targets)).refusal(2)
    assert "terminal" in said
    assert "--once" in said


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_be_drawn_on_is_told_so(term: str) -> None:
    with window("top", env={"TERM": term}) as shown:
        assert shown.status() == 2
        assert any("cannot draw on this terminal" in line for line in shown.screen())


def test_once_prints_the_table(targets: list[Parked]) -> None:
    done = gomem("top", "--once", *of(targets))
    assert done.status == 0
    lines = done.stdout.splitlines()
    assert known(lines, targets)
    for target in targets:
        assert row(lines, target.pid)[2] == short_size(rss(target.pid))


def test_of_another_users_process_it_says_what_would_help(targets: list[Parked]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    done = gomem("top", "--once", *of(targets), under=["setpriv", "--reuid", "65534", "--clear-groups"])
    assert done.status in (0, 1, 77)
    assert "CAP_SYS_PTRACE" in done.stdout + done.stderr
