"""How a command line says which process it means, and the list of those that there are."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.command import executable, gomem
from tests.support.memory_cgroups import memory_cgroup
from tests.support.parked import parked
from tests.support.processes import rss, running, sleeping, without_capabilities


def listed() -> dict[int, dict[str, Any]]:
    done = gomem("ps", "--format", "json")
    assert done.status == 0, done.stderr
    listing = json.loads(done.stdout)
    assert listing["schema"] == "gomem.processes/1"
    return {row["pid"]: row for row in listing["processes"]}


def test_a_pid_alone_names_a_process() -> None:
    with parked(build("parked", "1.25.5"), live=8) as target:
        for words in (
            ("snapshot", target.pid),
            ("snapshot", "-p", target.pid),
            ("trace", target.pid, "-d", "200ms", "--backend", "procfs"),
            ("trace", "--backend", "procfs", "-d", "0.2", target.pid),
        ):
            report = gomem(*words, "--format", "json").report()
            assert report["process"]["pid"] == target.pid, words
            assert report["memstats"]["HeapInuse"] == target.emitted["HeapInuse"], words


def test_record_takes_a_pid_and_a_duration_too(tmp_path: Path) -> None:
    with sleeping() as process:
        done = gomem("record", process.pid, "-d", "100ms", "--backend", "procfs", "-o", tmp_path / "r")
        assert done.status == 0, done.stderr
        report = gomem("replay", tmp_path / "r", "--format", "json").report()
    assert report["process"]["pid"] == process.pid


def test_the_one_go_process_of_a_name_is_found_and_several_are_listed(tmp_path: Path) -> None:
    name = f"only-{os.getpid()}"
    program = tmp_path / name
    shutil.copy2(build("parked", "1.25.5"), program)
    with parked(program, live=8) as one:
        report = gomem("snapshot", "--exe", name, "--format", "json").report()
        assert report["process"]["pid"] == one.pid
        assert gomem("trace", "--exe", program, "-d", "0", "--format", "json").report()["process"]["pid"] == one.pid
        with parked(program, live=16) as other:
            said = gomem("trace", "--exe", name).refusal(1)
            for process in (one, other):
                assert any(str(process.pid) in line and f"-live={live}" in line for line in said.splitlines()
                           for live in (8, 16)), said  # fmt: skip
    assert "no Go process" in gomem("snapshot", "--exe", name).refusal(1)


def test_a_process_of_the_name_that_is_no_go_program_is_not_meant(tmp_path: Path) -> None:
    name = f"sleep-{os.getpid()}"
    shutil.copy2("/bin/sleep", tmp_path / name)
    with running(tmp_path / name, "1000"):
        assert "no Go process" in gomem("snapshot", "--exe", name).refusal(1)


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (("trace", "/bin/true", "-x"), "gomem trace -- /bin/true -x"),
        (("trace", "-d", "1s", "/bin/true"), "gomem trace -- /bin/true"),
        (("record", "no-such-program"), "gomem record --exe no-such-program"),
        (("snapshot", "prometheus"), "gomem snapshot --exe prometheus"),
        (("snapshot", "--", "/bin/true"), "gomem trace -- COMMAND"),
        (("trace", "1", "2"), "give one pid"),
        (("trace", "--exe", "x", "1"), "gomem trace 4711"),
        (("trace", "0"), "above 0"),
    ],
)
def test_what_could_be_a_pid_or_a_command_is_refused_with_the_way_out(words: tuple[str, ...], way_out: str) -> None:
    assert way_out in gomem(*words).refusal(2)


def test_ps_shows_what_each_process_says_of_itself() -> None:
    with (
        memory_cgroup(limit=200 << 20) as (directory, _),
        parked(build("parked", "1.25.5", stripped=True), live=24, env={"GOMEMLIMIT": "300MiB"}) as limited,
        parked(build("parked", "1.19"), live=8) as plain,
        sleeping() as other,
    ):
        (directory / "cgroup.procs").write_text(str(limited.pid))
        rows = listed()
        for target in (limited, plain):
            row = rows[target.pid]
            assert row["heap_in_use"] == target.emitted["HeapInuse"]
            assert row["go_version"] == target.release
            assert row["rss"] == pytest.approx(rss(target.pid), rel=0.02)
            assert 0 < row["heap_live"] <= row["heap_in_use"]
            assert row["limits"] == []
        assert other.pid not in rows
        assert rows[limited.pid]["memory_limit"] == 300 << 20
        assert rows[limited.pid]["cgroup_max"] == 200 << 20
        assert rows[limited.pid]["cgroup"].endswith(directory.name)
        assert rows[plain.pid]["memory_limit"] is None
        _fits_a_terminal_of_80_columns(limited.pid)


def _fits_a_terminal_of_80_columns(pid: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen([executable(), "ps"], stdin=subprocess.DEVNULL, stdout=theirs, env=env)
    os.close(theirs)
    page = b""
    try:
        while piece := os.read(ours, 1 << 16):
            page += piece
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=60) == 0
    lines = page.decode().splitlines()
    table = lines[: lines.index("")] if "" in lines else lines
    assert all(len(line) <= 80 for line in lines), lines
    row = next(line for line in table if line.split()[0] == str(pid))
    for figure in ("300 MiB", "200 MiB", "1.25.5", "parked"):
        assert figure in row


def test_ps_says_what_it_takes_to_see_the_others() -> None:
    if os.geteuid() != 0:
        pytest.skip("who is not root cannot become somebody else")
    with parked(build("parked", "1.25.5"), live=8) as target:
        nobody = ("setpriv", "--reuid=65534", "--clear-groups", *without_capabilities()[1:])
        done = gomem("ps", "--format", "json", under=nobody)
        assert done.status == 0, done.stderr
        listing = json.loads(done.stdout)
    assert target.pid not in {row["pid"] for row in listing["processes"]}
    assert any("CAP_SYS_PTRACE" in limit["fix"] for limit in listing["limits"])
