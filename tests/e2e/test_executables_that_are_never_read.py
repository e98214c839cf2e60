"""An executable whose file system takes reads and never answers them: who waits for one, no signal ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.live.kernel.test_served_file_systems import mount_point
from tests.support.builds import build
from tests.support.command import executable, gomem, obeys_the_rules, report_of
from tests.support.discovery.fuse import deaf, executed_from_fuse
from tests.support.processes import running, state, wait_until
from tests.support.requirements import absent
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.bpf

CHURN = ("-mb", "16", "-phase", "300ms", "-seconds", "600")
# Of commands that look at one process.
WORDS = [("snapshot",), ("trace", "--duration", "1"), ("record", "-o", "kept.rec", "--duration", "1")]


@pytest.fixture(scope="module")
def churn() -> Path:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")
    return build("churn", "1.25.5")


@contextmanager
def never_read(program: Path) -> Iterator[int]:
    """Run a program whose file nobody can read any more; gives its pid."""
    with executed_from_fuse(program, *CHURN) as (server, pid), deaf(server):
        yield pid


def waits(pid: int) -> bool:
    """Tell whether a process that another has started for `pid` waits in a sleep that no signal ends."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return any(state(one) == "D" for one in found[1:])


@pytest.mark.parametrize("words", WORDS)
def test_a_command_gives_up_with_an_error_that_names_the_process(
    words: tuple[str, ...], churn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with never_read(churn) as pid:
        said = gomem(*words, "--pid", pid, timeout=60).refusal(1)
    assert f"cannot read the executable of process {pid} (program): its file system (fuse)" in said
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_nobody_could_execute_is_not_started(churn: Path) -> None:
    with executed_from_fuse(churn, count=0) as (server,), deaf(server):
        path = f"/proc/{server}/root{mount_point(server)}/program"
        said = gomem("trace", "--duration", "1", "--", path, timeout=60).refusal(125)
    assert f"cannot run {path}: its file system" in said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_a_command_while_it_waits(number: int, status: int, churn: Path) -> None:
    with never_read(churn) as pid:
        command = [executable(), "trace", "--pid", str(pid)]
        # Whoever runs the tests in the background may ignore Ctrl-C, and those whom we start would, too.
        minds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=minds
        ) as tracer:
            wait_until(lambda: waits(tracer.pid), "the executable is read")
            tracer.send_signal(number)
            # Who was left behind has neither our terminal nor our pipes: their end is seen.
            stdout, stderr = tracer.communicate(timeout=20)
    assert (tracer.returncode, stdout) == (status, "")
    assert "do not answer" not in stderr
    assert "Traceback" not in stderr


def test_a_list_of_processes_has_the_others(churn: Path) -> None:
    with never_read(churn) as pid, running(churn, *CHURN) as other:
        said = gomem("ps", timeout=60)
    assert said.status == 0
    assert str(other.pid) in said.stdout
    assert str(pid) not in said.stdout
    assert "1 process, Go or not: the file systems of their executables do not answer" in said.stdout


def looks(served: Serving, pid: int) -> float:
    return served.value("gomem_looks_total", pid=str(pid)) or 0


def test_serve_follows_the_others_and_the_process_too_when_its_file_is_read(churn: Path) -> None:
    with executed_from_fuse(churn, *CHURN) as (server, pid), running(churn, *CHURN) as other:
        named = ("--pid", pid, "--pid", other.pid, "--interval", "0.5")
        with deaf(server), serving(*named) as served:
            served.until(lambda: looks(served, other.pid) >= 5, "looks at the innocent process")
            assert served.followed(other.pid)
            assert sum(value for _, value in served.samples("gomem_heap_page_bytes", pid=str(other.pid))) > 0
            assert served.value("gomem_process_state", pid=str(pid), state="unreadable") == 1
            assert "do not answer" in served.get("/")
            before = looks(served, other.pid)
            served.until(lambda: looks(served, other.pid) >= before + 5, "more of them")
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(20) == 0
        with serving(*named) as served:
            served.until(lambda: looks(served, pid) >= 2, "looks at the process")
            with deaf(server):
                before = looks(served, pid)
                served.until(lambda: looks(served, pid) >= before + 3, "what is known of its file suffices")
                assert served.followed(pid)


def test_what_is_read_of_such_a_program_is_right_and_probes_are_left_out(churn: Path) -> None:
    with executed_from_fuse(churn, *CHURN) as (_, pid):
        report = report_of("trace", "--pid", pid, "--duration", "1")
        obeys_the_rules(report)
        assert report["backend"] == "bpf"
        assert report["events"]["madvise"]["count"] > 0
        (limit,) = (one for one in report["limits"] if one["id"] == "runtime-events")
        assert "file system (fuse) that others serve" in limit["why"]
        assert report["process"]["go_version"] == "go1.25.5"
