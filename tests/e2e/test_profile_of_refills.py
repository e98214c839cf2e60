"""`gomem profile --source refill` as a user types it; what it writes is read by go tool pprof."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gomem.exporters.pprof.decode import read_profile
from gomem.exporters.profile.functions import by_function
from tests.e2e.test_stopped_tracer import breakpoints
from tests.e2e.test_texts import WITHOUT_BPF
from tests.support.builds import build
from tests.support.command import Outcome, gomem, outcome, started
from tests.support.pprof import pprof, top
from tests.support.processes import running, sleeping, wait_until
from tests.support.refills import commanded

pytestmark = pytest.mark.bpf


@pytest.fixture(scope="module")
def binary() -> Path:
    return build("refills", "1.27.3", stripped=True)


def profiled(pid: int, act: Callable[[], None], *words: object) -> Outcome:
    """Run it while `act` goes on, all of which is to be seen; Ctrl-C ends it."""
    with started("profile", pid, "--source", "refill", "--budget", "100", "--duration", "5m", *words) as process:
        act()
        process.send_signal(signal.SIGINT)
        return outcome(process)


def test_go_tool_pprof_reads_from_the_file_what_the_table_shows(binary: Path, tmp_path: Path) -> None:
    file = tmp_path / "allocs.pb.gz"
    with commanded(binary) as commands:
        done = profiled(commands.pid, commands.allocate, "-o", file)
        assert (done.status, done.stdout) == (0, "")
        before = commands.own().total
        table = profiled(commands.pid, commands.allocate)
        allocated = commands.own().total - before
    for index, (name, unit) in enumerate((("alloc_objects", ""), ("alloc_space", "B"))):
        ours = by_function(read_profile(str(file)), index).rows
        theirs = top(str(file), sample_type=name, unit=unit)
        assert [(row.name, row.flat, row.cumulative) for row in ours] == [
            (row.name.removesuffix(" (inline)"), row.flat, row.cumulative) for row in theirs
        ]
        assert len(ours) > 8
    raw = pprof("-raw", str(file))
    assert "Duration:" in raw
    assert "standard error" in raw
    assert "main.newPlain" in table.stdout
    heads = next(line.split() for line in table.stdout.splitlines() if "flat%" in line)
    assert heads == ["flat", "+-", "flat%", "sum%", "cum", "+-", "cum%", "function"]
    assert f"{allocated / (1 << 20):.0f}" in table.stdout.splitlines()[0]


def test_what_grew_between_two_is_shown_with_its_error(binary: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.pb.gz", tmp_path / "two.pb.gz"]
    with commanded(binary) as commands:
        profiled(commands.pid, commands.allocate, "-o", files[0])

        def twice() -> None:
            commands.allocate()
            commands.allocate()

        profiled(commands.pid, twice, "-o", files[1])
    difference = gomem("diff", *files)
    assert difference.status == 0
    (line,) = [line.split() for line in difference.stdout.splitlines() if line.endswith("main.newForty")]
    assert line[:2] == ["+7.81", "MiB"]
    assert "+-" in difference.stdout


def test_all_formats_are_written(binary: Path, tmp_path: Path) -> None:
    with commanded(binary) as commands:
        page = profiled(commands.pid, commands.allocate, "-o", tmp_path / "flames.html")
        folded = profiled(commands.pid, commands.allocate, "--format", "folded")
    assert page.status == folded.status == 0
    assert "main.newPlain" in (tmp_path / "flames.html").read_text()
    assert any(
        line.startswith("runtime.main;main.main;main.allocate;main.newPlain ") for line in folded.stdout.splitlines()
    )


def test_a_process_that_does_nothing_is_told_to_have_allocated_nothing(binary: Path) -> None:
    with commanded(binary) as commands:
        done = gomem("profile", commands.pid, "--source", "refill", "--duration", "300ms")
    assert done.status == 0
    assert "it took no span to allocate from, and made no large object" in done.stdout


def test_a_program_without_a_profile_is_sent_here_and_has_one() -> None:
    with running(build("tiny", "1.27.3"), "-hold", "1h") as process:
        assert process.stdout is not None
        process.stdout.readline()
        said = gomem("profile", process.pid).refusal(1)
        assert f"gomem profile {process.pid} --source refill" in said
        assert gomem("profile", process.pid, "--source", "refill", "--duration", "0.2").status == 0


def test_what_makes_no_sense_together_is_refused() -> None:
    refill = ("profile", 1, "--source", "refill")
    for kind in ("goroutine", "resident"):
        assert f"nothing for --kind {kind}" in gomem(*refill, "--kind", kind).refusal(2)
    assert "--cycle does nothing for --source refill" in gomem(*refill, "--cycle", "active").refusal(2)
    assert "--freeze does nothing" in gomem(*refill, "--freeze").refusal(2)
    assert "give --source refill" in gomem("profile", 1, "--duration", "1").refusal(2)
    assert "give --source refill" in gomem("profile", 1, "--budget", "1").refusal(2)


def test_where_it_cannot_be_had_it_is_said_why(binary: Path) -> None:
    with commanded(binary) as commands:
        refused = gomem("profile", commands.pid, "--source", "refill", under=(*WITHOUT_BPF, "--")).refusal(77)
    assert "BPF is not permitted here" in refused
    with sleeping() as process:
        assert "is not a Go program" in gomem("profile", process.pid, "--source", "refill").refusal(1)


def test_a_gomem_that_is_killed_leaves_no_probe() -> None:
    unstripped = build("allocloop", "1.27.3")
    with running(unstripped, "-seconds", "300") as target:
        with started("profile", target.pid, "--source", "refill", "--budget", "100", "--duration", "5m") as process:
            wait_until(lambda: len(breakpoints(target.pid, unstripped)) == 2, "the probes are on")
            os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not breakpoints(target.pid, unstripped), "no probe is left")


def test_a_program_that_does_nothing_but_allocate_is_watched_in_bursts_within_the_budget() -> None:
    one_cpu = ("taskset", "-c", max(os.sched_getaffinity(0)))  # the others are for gomem
    with running(*one_cpu, build("allocloop", "1.27.3", stripped=True), "-seconds", "300") as target:
        done = gomem("profile", target.pid, "--source", "refill", "--duration", "4", "--sample-type", "alloc_objects")
    assert done.status == 0
    assert "within a budget of 1 %" in done.stdout
    first = next(line for line in done.stdout.splitlines() if line.endswith("main.escape"))
    assert float(first.split()[2].rstrip("%")) > 90
