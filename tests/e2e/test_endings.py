"""How a process ended, and how gomem ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.command import executable, gomem, outcome, started
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.processes import running
from tests.support.requirements import absent

BACKENDS = pytest.mark.parametrize("backend", [pytest.param("bpf", marks=pytest.mark.bpf), "strace", "procfs"])
OOM_KILLS = {1: "memory.oom_control", 2: "memory.events"}
KILLED = 128 + signal.SIGKILL


def traced(file: Path, *command: object, backend: str = "auto", code: int = 0) -> dict[str, Any]:
    """Trace a command, which ends with `code`, into a file; return the report."""
    done = gomem("trace", "--backend", backend, "--format", "json", "-o", file, "--", *command)
    assert done.status == code, done.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    return report


@pytest.mark.parametrize(
    ("script", "code", "signal_name"),
    [
        ("exit 0", 0, None), ("exit 3", 3, None), ("exit 77", 77, None), ("exit 127", 127, None),
        ("kill -KILL $$", KILLED, "SIGKILL"), ("kill -SEGV $$", 128 + signal.SIGSEGV, "SIGSEGV"),
        ("sleep 0.3; exit 9", 9, None),
    ],
)  # fmt: skip
def test_gomem_exits_as_the_command_did_and_says_so(
    script: str, code: int, signal_name: str | None, tmp_path: Path
) -> None:
    report = traced(tmp_path / "report", "sh", "-c", f"ulimit -c 0; {script}", backend="procfs", code=code)
    end = report["ending"]
    assert end["signal"] == signal_name
    assert end["exit_code"] == (None if signal_name else code)
    assert end["oom"] is None, "nobody but itself killed it"
    page = gomem("trace", "--backend", "procfs", "--", "sh", "-c", f"ulimit -c 0; {script}")
    assert page.status == code
    said = f"Killed by {signal_name}" if signal_name else f"Exited with code {code}"
    assert page.stdout.splitlines()[1].startswith(said)


@BACKENDS
def test_a_command_that_lives_a_moment_has_its_peak_rss_and_its_events(backend: str, tmp_path: Path) -> None:
    report = traced(tmp_path / "report", build("tiny", "1.25.5"), "-hold", "0s", backend=backend)
    # The same program under a parent that is small: what wait4 says then is the truth.
    by_shell = subprocess.run(
        ["/bin/sh", "-c", '"$0" -hold 0s >&2; exec cat', build("tiny", "1.25.5")],
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    assert by_shell.stderr == b"hello\n"
    assert 1 << 20 < report["ending"]["peak_rss"] < 8 << 20
    assert report["ending"]["cpu_seconds"] > 0
    if backend != "procfs":
        assert report["events"]["mmap"]["count"] > 10
        assert report["events"]["mmap"]["bytes"] > 64 << 20


def test_the_report_on_standard_output_is_alone_there() -> None:
    command = ["sh", "-c", "echo hi; echo there >&2"]
    done = gomem("trace", "--format", "json", "--backend", "procfs", "--", *command)
    assert json.loads(done.stdout)["process"]["cmdline"] == command
    assert "hi\n" in done.stderr
    assert "there\n" in done.stderr
    assert "standard output goes to standard error" in done.stderr
    kept = gomem("trace", "--backend", "procfs", "--", *command)
    assert kept.stdout.startswith("hi\n"), "a page for people comes behind what the command wrote"


def test_a_command_that_is_killed_while_it_is_read_ends_gomem_alike(tmp_path: Path) -> None:
    file = tmp_path / "report"
    words = ("--backend", "procfs", "--format", "json", "-o", file)
    with started("trace", *words, "--", build("churn", "1.25.5"), "-mb", "8") as trace:
        assert trace.stderr is not None
        assert trace.stdout is not None
        line = trace.stderr.readline()
        trace.stdout.readline()  # the command's: it runs
        os.kill(int(line.split("process ")[1].split(")")[0]), signal.SIGTERM)
        done = outcome(trace)
    assert done.status == 128 + signal.SIGTERM
    assert json.loads(file.read_text())["ending"]["signal"] == "SIGTERM"


@BACKENDS
def test_how_a_process_ended_that_was_only_watched(backend: str) -> None:
    for way, code, name in ((b"exit 4", 4, None), (b"kill -KILL $$", None, "SIGKILL")):
        with (
            running("/bin/sh") as process,
            started("trace", process.pid, "-d", 100, "--backend", backend, "--format", "json") as trace,
        ):
            assert trace.stderr is not None
            while "watching" not in trace.stderr.readline():
                assert trace.poll() is None
            assert process.stdin is not None
            process.stdin.write(way + b"\n")
            process.stdin.close()
            process.stdin = None
            process.wait()
            report = outcome(trace).report()
        end = report["ending"]
        if end["exit_code"] is None and end["signal"] is None:
            absent("this kernel does not tell others how a process ended")
        assert (end["exit_code"], end["signal"], end["oom"]) == (code, name, None)


@BACKENDS
def test_the_oom_killer_and_its_cgroup_are_named(backend: str, tmp_path: Path) -> None:
    with memory_cgroup(limit=48 << 20) as (directory, _):
        eater = [sys.executable, "-S", "-c", "x = bytearray(b'1') * (200 << 20)"]
        report = traced(tmp_path / "report", *joining(directory), *eater, backend=backend, code=KILLED)
    oom = report["ending"]["oom"]
    assert report["ending"]["signal"] == "SIGKILL"
    assert oom is not None
    if not oom["proven"]:
        absent("the kernel's log cannot be read here")
    assert (oom["by"], oom["cgroup"], oom["limit"]) == ("cgroup", f"/{directory.name}", 48 << 20)
    assert report["ending"]["peak_rss"] > 40 << 20


def test_a_kill_by_hand_beside_a_victim_of_the_oom_killer_is_not_laid_to_it(tmp_path: Path) -> None:
    """The victim is a child in the same cgroup, so that the cgroup's counter rises while the process is watched."""
    with memory_cgroup(limit=48 << 20) as (directory, version):
        script = f"{sys.executable} -S -c 'bytearray(200 << 20)'; test $? = 137 && kill -KILL $$"
        command = [*joining(directory), "/bin/sh", "-c", script]
        report = traced(tmp_path / "report", *command, backend="procfs", code=KILLED)
        assert "oom_kill 1\n" in (directory / OOM_KILLS[version]).read_text(), "the oracle: there was a victim"
    oom = report["ending"]["oom"]
    assert report["ending"]["signal"] == "SIGKILL"
    assert oom is None or not oom["proven"]


@pytest.mark.parametrize("backend", [pytest.param("bpf", marks=pytest.mark.bpf), "strace"])
def test_what_failed_just_before_the_end_is_told_after_a_wrapper_has_executed_the_program(
    backend: str, tmp_path: Path
) -> None:
    tiny = build("tiny", "1.25.5")
    command = ("bash", "-c", f"ulimit -v 500000; exec {tiny} -hold 1s")
    report = traced(tmp_path / "report", *command, backend=backend, code=2)
    assert [chapter["process"]["cmdline"][0] for chapter in report["chapters"]] == ["bash"]
    last = report["ending"]["failed_calls"][-1]
    assert (last["call"], last["error"]) == ("mmap", "ENOMEM")
    assert last["bytes"] >= 64 << 20
    assert report["events"]["mmap"]["failed"] >= 1
    page = gomem("trace", "--backend", backend, "--", *command)
    assert page.status == 2
    assert "failed with ENOMEM" in page.stdout.split("In ")[0]


@BACKENDS
def test_a_command_is_followed_through_its_wrappers_to_the_program(backend: str, tmp_path: Path) -> None:
    tiny = build("tiny", "1.25.5")
    command = ("bash", "-c", f"exec env A=b {tiny} -hold 3s")
    report = traced(tmp_path / "report", *command, backend=backend)
    assert report["process"]["exe"] == str(tiny)
    assert report["process"]["go_version"] == "go1.25.5"
    assert report["memstats"]["HeapInuse"] > 0
    assert report["ending"]["exit_code"] == 0
    first = report["chapters"][0]
    assert first["process"]["cmdline"][0] == "bash"
    assert first["memstats"] is None
    assert len(report["chapters"]) == 2 or backend == "procfs"


def test_a_recording_of_each_program(tmp_path: Path) -> None:
    tiny = build("tiny", "1.25.5")
    file = tmp_path / "x.rec"
    done = gomem("record", "-o", file, "--", "sh", "-c", f"sleep 0.5; exec {tiny} -hold 3s")
    assert done.status == 0, done.stderr
    first = gomem("replay", file, "--format", "json").report()
    second = gomem("replay", tmp_path / "x.2.rec", "--format", "json").report()
    assert first["process"]["go_version"] is None
    assert second["process"]["go_version"] == "go1.25.5"
    assert second["ending"]["exit_code"] == 0
    assert "x.2.rec" in done.stderr


def test_what_gomem_could_not_do_is_told_from_what_the_command_did() -> None:
    assert gomem("trace", "--", "/no/such/program").refusal(127)
    assert gomem("trace", "--", "/etc/passwd").refusal(126)
    assert gomem("trace", "-d", "x", "--", "true").refusal(125)
    assert executable()
