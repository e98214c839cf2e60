"""A process that nobody can look at keeps neither gomem waiting, nor those who run beside it, nor the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import gomem, started
from tests.support.liar import Liar, liar, silenced, trap
from tests.support.processes import running, wait_until
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.bpf


@contextmanager
def blocked() -> Iterator[Liar]:
    """Run a process that holds its own mmap_lock until the block ends."""
    with trap(build("liar", "1.25.5")) as (server, path), liar() as target:
        where = target.told("file", path, 1 << 20)
        with silenced(server):
            target.block(where)
            yield target


def forks() -> bool:
    """Tell whether a process can fork: it waits as long as the kernel has somebody's probes under way."""
    done = threading.Event()

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        done.set()

    threading.Thread(target=fork, daemon=True).start()
    return done.wait(20)


@pytest.mark.parametrize("words", [("snapshot",), ("trace", "--duration", "1"), ("record", "-o", "kept.rec")])
def test_a_command_gives_up_with_an_error(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with blocked() as target:
        said = gomem(*words, "--pid", target.pid, timeout=60).refusal(1)
        assert forks()
    assert f"process {target.pid} (liar) does not answer" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("snapshot",), ("trace", "--backend", "procfs", "--duration", "1")])
def test_a_command_ends_when_a_process_blocks_between_the_try_and_the_look(words: tuple[str, ...]) -> None:
    """The try is left out, which is as if the process had answered and then blocked. No probe is put on."""
    untried = (
        "import sys; from gomem.tracer.process.guardian import Guardian; from gomem.tracer.cli import main; "
        "Guardian.ensure_answers = lambda self, pid: None; sys.argv[0] = 'gomem'; main()"
    )
    with blocked() as target:
        said = subprocess.run(
            [sys.executable, "-c", untried, *words, "--pid", str(target.pid)], capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert said.returncode == 1
    assert said.stdout == ""
    assert f"gomem: process {target.pid} (liar) does not answer" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_list_of_processes_has_the_others() -> None:
    with blocked() as target, running(build("liar", "1.25.5")) as other:
        said = gomem("ps", timeout=60)
    assert said.status == 0
    assert str(other.pid) in said.stdout
    assert str(target.pid) in said.stdout


def test_serve_blames_the_process_and_not_its_file_system_and_ends_when_told(tmp_path: Path) -> None:
    binary = build("liar", "1.25.5")
    with blocked() as target, running(binary) as other, serving("--interval", "0.5") as server:
        wait_until(lambda: (server.value("gomem_looks_total", pid=str(other.pid)) or 0) >= 3, "looks")
        assert server.value("gomem_process_state", pid=str(target.pid), state="unreadable") == 1
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
        assert forks()


def test_serve_ends_when_told_while_a_process_that_it_has_probes_on_still_blocks() -> None:
    with trap(build("liar", "1.25.5")) as (server, path), liar() as target:
        where = target.told("file", path, 1 << 20)
        with serving("--interval", "0.5") as served, silenced(server):
            wait_until(lambda: (served.value("gomem_looks_total", pid=str(target.pid)) or 0) >= 1, "a look")
            target.block(where)
            served.process.send_signal(signal.SIGTERM)
            served.process.wait(60)  # nobody lets the process go before
            assert served.process.returncode == 0
            assert forks()


def test_a_process_that_blocks_after_it_was_followed_is_told_as_stale() -> None:
    with trap(build("liar", "1.25.5")) as (server, path), liar() as target:
        where = target.told("file", path, 1 << 20)
        with serving("--pid", target.pid, "--interval", "0.5") as served:
            served.until(lambda: served.followed(target.pid), "it is followed")
            assert readiness(served) == (200, "ready")
            with silenced(server):
                target.block(where)
                served.until(lambda: readiness(served)[0] == 503, "all figures are old")
                assert readiness(served)[1].startswith("1 of 1 targets have not been looked at")
                served.until(lambda: served.value("gomem_stale_targets") == 1, "the metric tells it, too")


def readiness(served: Serving) -> tuple[int, str]:
    """Return what /readyz says."""
    try:
        return 200, served.get("/readyz").strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_process_that_blocks_while_it_is_probed_does_not_stop_the_machine_when_gomem_is_killed() -> None:
    with trap(build("liar", "1.25.5")) as (server, path), liar() as target:
        where = target.told("file", path, 1 << 20)
        with started("trace", "--pid", target.pid, "--duration", "100") as tracer, silenced(server):
            target.block(where)
            os.kill(tracer.pid, signal.SIGKILL)
            assert forks()
            assert forks()
        wait_until(lambda: not guardians_of(tracer.pid), "the guardian has taken its probes off and ended")


def guardians_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                mark = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"guardian_process.py" in words and os.environ["GOMEM_TEST_RUN"].encode() in mark:
                found.append(int(entry.name))
    return found
