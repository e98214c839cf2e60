"""Commands that are started for being watched: held before exec, then the user's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gomem.tracer.errors import UsageError
from gomem.tracer.events.after_exec import AfterExec
from gomem.tracer.events.record import EVENT, EventKind
from gomem.tracer.process.launch import Launched, find_executable, interpreter_of
from tests.support.processes import state, wait_until

ROOT = Path(__file__).resolve().parents[3]


def run(*argv: str) -> int | None:
    with Launched(argv) as launched:
        launched.resume()
        return launched.wait(60)


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_nothing_of_the_program_runs_before_it_is_let_go(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with Launched(["touch", str(made)]) as launched:
        wait_until(lambda: state(launched.pid) == "S", "its waiting for us")
        time.sleep(0.2)
        assert state(launched.pid) == "S"
        assert "touch" not in os.readlink(f"/proc/{launched.pid}/exe")
        assert launched.poll() is None
        assert not made.exists()
        launched.resume()
        assert launched.wait(60) == 0
        assert made.exists()


def test_when_resume_returns_the_program_has_been_executed() -> None:
    with Launched(["sleep", "100"]) as launched:
        launched.resume()
        assert os.readlink(f"/proc/{launched.pid}/exe") == os.path.realpath(launched.image)
        assert Path(f"/proc/{launched.pid}/cmdline").read_bytes() == b"sleep\x00100\x00"
        assert launched.wait(0.05) is None
        os.kill(launched.pid, signal.SIGTERM)
        assert launched.wait(60) == -signal.SIGTERM


def test_a_running_program_is_left_alone_when_we_are_done() -> None:
    with Launched(["sleep", "100"]) as launched:
        launched.resume()
    wait_until(lambda: state(launched.pid) == "S", "sleeping")
    os.kill(launched.pid, signal.SIGKILL)
    assert launched.wait(60) == -signal.SIGKILL


def test_the_exit_code_is_the_programs() -> None:
    assert run("sh", "-c", "exit 7") == 7


def test_a_program_that_is_never_let_go_leaves_no_trace(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with Launched(["touch", str(made)]) as launched:
        pass
    assert not Path(f"/proc/{launched.pid}").exists()
    assert not made.exists()


def test_a_program_does_not_run_when_we_die_before_letting_it_go(tmp_path: Path) -> None:
    made = tmp_path / "made"
    text = (
        "import os, signal, sys\n"
        "from gomem.tracer.process.launch import Launched\n"
        "launched = Launched(sys.argv[1:])\n"
        "print(launched.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, "touch", str(made)], capture_output=True, check=False, cwd=ROOT, timeout=120
    )
    pid = int(done.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z", "its end")
    assert not made.exists()


def test_signals_are_as_a_shell_would_leave_them(capfd: pytest.CaptureFixture[str]) -> None:
    handled = signal.signal(signal.SIGUSR1, lambda *_: None)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup: it must stay so
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        # What our own parent ignores, a shell's child ignores as well.
        plain = subprocess.run(["grep", "^SigIgn", "/proc/self/status"], capture_output=True, text=True, check=True)
        assert run("grep", "^Sig[BIC]", "/proc/self/status") == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGUSR1, handled)
        signal.signal(signal.SIGHUP, ignored)
    masks = dict(line.split(":\t") for line in capfd.readouterr().out.splitlines())
    assert int(masks["SigBlk"], 16) == 0
    assert f"SigIgn:\t{masks['SigIgn']}\n" == plain.stdout
    assert int(masks["SigIgn"], 16) & (1 << (signal.SIGHUP - 1))
    assert int(masks["SigCgt"], 16) & (1 << (signal.SIGUSR1 - 1)) == 0


def test_it_inherits_the_files_that_a_plain_child_would_and_none_of_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "ours").open("w"):
        subprocess.run(["ls", "/proc/self/fd"], close_fds=False, check=True)
        plain = capfd.readouterr().out
        assert run("ls", "/proc/self/fd") == 0
        assert capfd.readouterr().out == plain


def test_directory_environment_and_group_are_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOMEM_LAUNCH_TEST", "its value")
    assert run("sh", "-c", 'pwd; echo "$GOMEM_LAUNCH_TEST"; ps -o pgid= -p $$') == 0
    assert capfd.readouterr().out.split() == [str(tmp_path), "its", "value", str(os.getpgrp())]


def test_commands_are_found_in_path_as_the_shell_finds_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    script(tmp_path / "first/tool", "not executable", 0o644)
    wanted = script(tmp_path / "second/tool", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/first:{tmp_path}/second")
    assert find_executable("tool") == wanted
    assert find_executable(wanted) == wanted


def test_a_script_names_the_interpreter_that_will_be_mapped(tmp_path: Path) -> None:
    inner = script(tmp_path / "inner", "#! /bin/sh -e\nexit 5\n")
    outer = script(tmp_path / "outer", f"#!{inner}\n")
    with Launched([outer]) as launched:
        assert (launched.executable, launched.interpreter, launched.image) == (outer, "/bin/sh", "/bin/sh")
        launched.resume()
        assert launched.wait(60) == 5
    assert interpreter_of("/bin/sh") is None
    loop = tmp_path / "loop"
    script(loop, f"#!{loop}\n")
    assert interpreter_of(str(loop)) == str(loop)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no command"),
        (["no-such-command-anywhere"], "no such command in PATH"),
        (["/no/such/file"], "no such file"),
        (["/"], "it is a directory"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_forked(argv: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Launched(argv)


def test_a_file_without_the_executable_bit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not executable"):
        Launched([script(tmp_path / "plain", "x", 0o644)])


@pytest.mark.parametrize(
    ("text", "said"),
    [("neither ELF nor script", "Exec format error"), ("#!/no/such/interpreter\n", "No such file")],
)
def test_what_the_kernel_refuses_to_execute_is_said_and_reaped(tmp_path: Path, text: str, said: str) -> None:
    launched = Launched([script(tmp_path / "odd", text)])
    with pytest.raises(UsageError, match=said) as caught:
        launched.resume()
    assert caught.value.fix
    assert not Path(f"/proc/{launched.pid}").exists()


def test_what_happened_before_the_exec_is_dropped_once() -> None:
    rows = np.zeros(5, dtype=EVENT)
    rows["kind"] = [EventKind.BRK, EventKind.MMAP, EventKind.EXEC, EventKind.MMAP, EventKind.EXEC]
    after = AfterExec()
    assert len(after.filter(rows[:2])) == 0
    assert after.filter(rows)["kind"].tolist() == [EventKind.EXEC, EventKind.MMAP, EventKind.EXEC]
    assert len(after.filter(rows[:2])) == 2


def test_the_peak_rss_is_the_programs_and_not_that_of_who_started_it() -> None:
    ballast = bytearray(os.urandom(1 << 20)) * 150  # what a fork of ours would have had
    for program, most in ((["true"], 8 << 20), (["sh", "-c", "exit 7"], 8 << 20)):
        with Launched(program) as launched:
            launched.resume()
            launched.wait(60)
        assert launched.peak_rss is not None
        assert 0 < launched.peak_rss < most < len(ballast), program
    with Launched([sys.executable, "-S", "-c", "x = bytearray(b'1') * (64 << 20)"]) as launched:
        launched.resume()
        assert launched.wait(60) == 0
    assert launched.peak_rss is not None
    assert 64 << 20 < launched.peak_rss < 90 << 20
    assert launched.cpu_seconds is not None
    assert launched.cpu_seconds > 0


@pytest.mark.parametrize("refused", [True, False])
def test_the_kernels_refusal_of_an_executable_is_told_whichever_way_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    garbage = script(tmp_path / "garbage", "no program")
    if refused:  # as where nothing may be executed from memory
        monkeypatch.setattr("gomem.tracer.process.launch.start_small", lambda *_: None)
    with Launched([garbage]) as launched, pytest.raises(UsageError, match="Exec format error"):
        launched.resume()
    with Launched(["sh", "-c", "exit 7"]) as launched:
        launched.resume()
        assert launched.wait(60) == 7
    assert (launched.peak_rss is None) == refused
