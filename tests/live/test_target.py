from __future__ import annotations

import os
import shutil
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from gomem.tracer.errors import EXIT_NOT_PERMITTED, NotPermitted, TargetError, TargetGone
from gomem.tracer.process.target import Target
from tests.support.occupant import occupant
from tests.support.processes import running, state, wait_until

KTHREADD = 2
NOBODY = 65534


def test_a_running_process_is_described() -> None:
    before = time.time()
    with running("/bin/sleep", "100") as process:
        wait_until(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "the exec")
        with Target.open(process.pid) as target:
            target.check_alive()
            target.check_same_program()
            facts = target.facts()
            assert target.comm == "sleep"
            assert target.threads == 1
            assert os.path.samefile(target.exe_file, "/bin/sleep")
    assert (facts.pid, facts.exe, facts.cmdline) == (process.pid, os.path.realpath("/bin/sleep"), ["/bin/sleep", "100"])
    started = datetime.fromisoformat(facts.start_time).timestamp()
    assert before - 2 <= started <= time.time() + 1


def test_the_start_time_reads_the_same_every_time() -> None:
    with running("/bin/sleep", "100") as process:
        seen = set()
        for _ in range(20):
            with Target.open(process.pid) as target:
                seen.add((target.start_time, target.start_ticks))
            time.sleep(0.02)
    assert len(seen) == 1


def test_exit_is_noticed_by_every_read() -> None:
    with running("/bin/sleep", "100") as process, Target.open(process.pid) as target:
        process.kill()
        process.wait()
        opened = partial(target.open_file, "exe")
        for look in (target.check_alive, target.check_same_program, target.stat, target.status, opened):
            with pytest.raises(TargetGone, match="has exited"):
                look()
        with pytest.raises(TargetGone, match="has exited"):
            target.read("maps")
    with pytest.raises(TargetGone, match=f"no process {process.pid} here"):
        Target.open(process.pid)


def test_a_zombie_is_called_one() -> None:
    with running("/bin/sleep", "100") as process, Target.open(process.pid) as target:
        process.kill()
        wait_until(lambda: state(process.pid) == "Z", "the end")
        with pytest.raises(TargetGone, match="is a zombie"):
            target.check_alive()
        with pytest.raises(TargetGone, match="is a zombie"):
            Target.open(process.pid)


def test_another_start_time_is_another_process() -> None:
    with running("/bin/sleep", "100") as process, Target.open(process.pid) as target:
        with Target.open(process.pid, target.start_ticks) as same:
            same.check_alive()
        with pytest.raises(TargetGone, match="another process has its pid now"):
            Target.open(process.pid, target.start_ticks - 1)
        target.start_ticks -= 1
        with pytest.raises(TargetGone, match="another process has its pid now"):
            target.check_alive()


def test_a_pid_that_the_kernel_gave_again_is_noticed() -> None:
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last_pid, os.W_OK):
        pytest.skip("the kernel does not let us choose pids")
    with running("/bin/sleep", "100") as first:
        target = Target.open(first.pid)
        first.kill()
    with target:
        time.sleep(0.03)  # start times are in ticks of 10 ms
        for _ in range(200):
            try:
                last_pid.write_text(str(first.pid - 1))
            except OSError:
                pytest.skip("the kernel does not let us choose pids")
            with running("/bin/sleep", "100") as second:
                if second.pid != first.pid:
                    continue
                for look in (target.check_alive, target.stat, target.status, target.check_same_program):
                    with pytest.raises(TargetGone, match="another process has its pid now"):
                        look()
                with pytest.raises(TargetGone, match="another process has its pid now"):
                    target.read("maps")
                return
    pytest.skip("others took the pid each time")


def test_a_kernel_thread_is_refused_as_such() -> None:
    with pytest.raises(TargetError, match=r"2 \(kthreadd\) is a kernel thread") as raised:
        Target.open(KTHREADD)
    assert not isinstance(raised.value, TargetGone)


def test_a_thread_id_leads_to_its_process() -> None:
    with occupant("threads") as process:
        with Target.open(process.pid) as target:
            assert target.threads == process.said["threads"]
        with pytest.raises(TargetError, match=rf"is a thread .* of process {process.pid}") as raised:
            Target.open(process.said["tid"])
    assert raised.value.fix == f"use --pid {process.pid}"


def test_a_process_whose_main_thread_ended_is_told_from_a_dead_one() -> None:
    with occupant("headless") as process:
        wait_until(lambda: state(process.pid) == "Z", "the end")
        with pytest.raises(TargetGone, match=r"main thread of process .* has ended"):
            Target.open(process.pid)


def test_an_execve_is_noticed_even_of_the_same_program() -> None:
    for program in ("exec sleep 100", "exec sh -c 'read x'"):
        with running("/bin/sh", "-c", f"read x; {program}") as process:
            wait_until(lambda: b"read x" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "the exec")
            with Target.open(process.pid) as target:
                before = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                assert process.stdin is not None
                process.stdin.write(b"\n")
                process.stdin.flush()
                words = Path(f"/proc/{process.pid}/cmdline")
                wait_until(lambda: words.read_bytes() not in (before, b""), "the exec")  # noqa: B023
                target.check_alive()
                with pytest.raises(TargetError, match="executed another program"):
                    target.check_same_program()


def test_who_is_opened_in_the_middle_of_its_execve_has_executed_nothing_else() -> None:
    # Popen returns when the kernel closes its pipe, which it does before the new program has its stack.
    for _ in range(100):
        with running("sleep", "1000") as process, Target.open(process.pid) as target:
            for _ in range(20):
                target.check_same_program()


def test_a_deleted_executable_is_still_found_by_the_name_that_it_had(tmp_path: Path) -> None:
    copy = tmp_path / "pro gram"
    shutil.copy("/bin/sleep", copy)
    with running(str(copy), "100") as process:
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(copy), "the exec")
        with Target.open(process.pid) as before:
            assert (before.exe, before.readlink("exe")) == (str(copy), str(copy))
        copy.unlink()
        copy.write_bytes(b"a new release")
        with Target.open(process.pid) as target:
            assert (target.exe, target.readlink("exe")) == (str(copy), f"{copy} (deleted)")
            assert Path(target.exe_file).read_bytes() == Path("/bin/sleep").read_bytes()
            target.check_same_program()


def test_a_program_whose_name_ends_in_deleted_is_not_deleted(tmp_path: Path) -> None:
    copy = tmp_path / "sleep (deleted)"
    shutil.copy("/bin/sleep", copy)
    with running(str(copy), "100") as process:
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(copy), "the exec")
        with Target.open(process.pid) as target:
            assert (target.exe, target.readlink("exe")) == (str(copy), str(copy))


def test_arguments_without_end_are_cut() -> None:
    with running(sys.executable, "-c", "input()", *(["x" * 100_000] * 10)) as process:
        wait_until(lambda: len(Path(f"/proc/{process.pid}/cmdline").read_bytes()) > 1_000_000, "the exec")
        with Target.open(process.pid) as target:
            assert sum(map(len, target.cmdline)) <= 1 << 16


def test_pids_of_another_namespace_are_told() -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "100"]
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root and unshare")
    with running(*command) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        wait_until(lambda: children.read_text().strip() != "", "the fork")
        child = int(children.read_text())
        wait_until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n", "the exec")
        with Target.open(child) as target:
            assert (target.pid, target.ns_pid) == (child, 1)
            assert os.path.samefile(target.exe_file, "/bin/sleep")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_nobody_may_not_read_roots_process_and_is_told_what_is_missing() -> None:
    with running("/bin/sleep", "100") as process:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os._exit(_as_nobody(process.pid, writing))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == EXIT_NOT_PERMITTED, told
    assert told.startswith(f"cannot read process {process.pid} (sleep): permission denied\n")
    assert "CAP_SYS_PTRACE" in told


def _as_nobody(pid: int, report: int) -> int:
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        Target.open(pid)
    except NotPermitted as refused:
        os.write(report, str(refused).encode())
        return refused.exit_code
    except BaseException as other:
        os.write(report, repr(other).encode())
    return 0


def test_opening_and_closing_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for pid in (os.getpid(), KTHREADD, 2**31 - 1):
        for _ in range(3):
            try:
                Target.open(pid).close()
            except TargetError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before
