"""Stopping a target: it stands still, nothing of it is disturbed, and it always runs on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.errors import TargetError, TargetGone
from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.freeze import LONGEST, Freeze, Thaw
from gomem.tracer.snapshot.inspection import FREEZES, Inspector
from gomem.tracer.snapshot.join import accounting
from tests.support.builds import build
from tests.support.command import executable, gomem
from tests.support.parked import parked
from tests.support.processes import running, state, wait_until
from tests.support.requirements import absent, program

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from gomem.tracer.snapshot.freeze import Freeze
from gomem.tracer.process.target import Target
with Target.open(int(sys.argv[1])) as target, Freeze(target, 600) as freeze:
    print("frozen", flush=True)
    time.sleep(600)
"""
# Its thread waits in the kernel for a child, which ends with it at the latest.
SLEEPER = """
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void)
{
    pid_t self = getpid();
    for (;;)
        if (vfork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() == self)
                sleep(600);
            _exit(0);
        }
}
"""


class Waits:
    """A running tests/targets/waits."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.hear("ready")

    def hear(self, expected: str = "") -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        assert line, "the target ended"
        assert expected in line
        return line

    def counts(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        counts: dict[str, Any] = json.loads(self.hear("{"))
        return counts


@contextmanager
def waits(*flags: object) -> Iterator[Waits]:
    environment = {**os.environ, "GODEBUG": "asyncpreemptoff=1"}
    with running("env", f"GODEBUG={environment['GODEBUG']}", build("waits", "1.27.3"), *flags) as process:
        yield Waits(process)


def task_states(pid: int) -> set[str]:
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def cpu_time(pid: int) -> int:
    """Return the nanoseconds that all threads have run."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def tracer_of(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("TracerPid:")[2].split()[0])


def progress(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Return whether each that waits has got what it waited for since."""
    return all(rounds > before["rounds"][name] for name, rounds in now["rounds"].items())


def runs_on(pid: int) -> None:
    wait_until(lambda: tracer_of(pid) == 0 and "t" not in task_states(pid), "letting go")


def frozen(target: Target) -> Freeze:
    """Return a freeze that is not over before the test is, however slow the machine is."""
    return Freeze(target, 600)


class TestStandingStill:
    def test_no_thread_runs_in_the_block_and_all_run_behind_it(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            with frozen(held) as freeze:
                assert task_states(target.pid) == {"t"}
                assert freeze.threads == len(os.listdir(f"/proc/{target.pid}/task")) > 5
                before = cpu_time(target.pid)
                time.sleep(0.1)
                assert cpu_time(target.pid) == before
            assert freeze.thaw is not None
            assert freeze.thaw.seconds > 0.1
            assert not freeze.thaw.expired
            runs_on(target.pid)
            first = target.counts()
            wait_until(lambda: progress(target.counts(), first), "going on")

    def test_threads_that_are_made_meanwhile_are_stopped_too(self) -> None:
        with waits("-storm", 3) as target, Target.open(target.pid) as held:
            for _ in range(40):
                with frozen(held):
                    tasks = set(os.listdir(f"/proc/{target.pid}/task"))
                    assert task_states(target.pid) <= {"t", "Z", "X"}
                    time.sleep(0.002)
                    assert set(os.listdir(f"/proc/{target.pid}/task")) <= tasks
            runs_on(target.pid)
            assert target.counts()["net_errors"] == 0

    def test_it_ends_when_the_time_is_up(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            begin = time.monotonic()
            with Freeze(held, 0.3) as freeze:
                wait_until(lambda: "t" not in task_states(target.pid), "the end of the time")
                ended = time.monotonic()
            assert freeze.thaw is not None
            assert freeze.thaw.expired
            assert 0.25 < freeze.thaw.seconds <= ended - begin

    def test_a_thread_asleep_in_the_kernel_is_not_waited_for(self, tmp_path: Path) -> None:
        compiler = program("gcc", "gcc")
        source = tmp_path / "sleeper.c"
        source.write_text(SLEEPER)
        subprocess.run([compiler, "-w", "-o", str(tmp_path / "sleeper"), str(source)], check=True)
        with running(tmp_path / "sleeper") as process, Target.open(process.pid) as held:
            wait_until(lambda: state(process.pid) == "D", "waiting for the vforked child")
            (child,) = _children(process.pid)
            with Freeze(held) as freeze:
                assert freeze.uninterruptible == 1
            assert _children(process.pid) == [child], "what it waits for is still to come"
            assert tracer_of(process.pid) == 0
            os.kill(child, signal.SIGKILL)
            wait_until(lambda: _children(process.pid) not in ([child], []), "going on")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class TestDisturbingNothing:
    def test_a_hundred_freezes_are_not_noticed_by_what_waits(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            time.sleep(0.5)
            alone = target.counts()
            held_for = []
            for _ in range(100):
                with frozen(held) as freeze:
                    pass
                assert freeze.thaw is not None
                assert not freeze.thaw.expired
                held_for.append(freeze.thaw.seconds)
            wait_until(lambda: progress(target.counts(), alone), "going on")
            after = target.counts()
            print(f"stopped for {1e3 * sorted(held_for)[50]:.2f} ms (median), {1e3 * max(held_for):.2f} ms at most")
            print("alone ", alone)
            print("frozen", after)
            for name in ("sleep_eintr", "short_sleeps", "read_eintr", "net_errors", "other_errors"):
                assert (name, alone[name], after[name]) == (name, 0, 0)

    def test_each_signal_is_delivered_whenever_it_comes(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            thaws: list[Thaw | None] = []

            def freeze_on() -> None:
                for _ in range(40):
                    with frozen(held) as freeze:
                        pass
                    thaws.append(freeze.thaw)

            freezer = threading.Thread(target=freeze_on)
            freezer.start()
            signals = 0
            while freezer.is_alive():
                os.kill(target.pid, signal.SIGUSR1)
                target.hear("usr1")
                signals += 1
            freezer.join()
            assert len(thaws) == 40
            assert None not in thaws
            print(f"{signals} signals, each of them heard of")

    def test_a_stopped_target_stays_stopped(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            os.kill(target.pid, signal.SIGSTOP)
            wait_until(lambda: task_states(target.pid) == {"T"}, "stopping")
            with frozen(held):
                assert task_states(target.pid) == {"t"}
            wait_until(lambda: task_states(target.pid) == {"T"}, "being stopped again")
            assert tracer_of(target.pid) == 0
            os.kill(target.pid, signal.SIGCONT)
            target.counts()

    def test_stop_and_continue_signals_take_effect_behind_the_freeze(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            with frozen(held):
                os.kill(target.pid, signal.SIGSTOP)
                time.sleep(0.05)
            wait_until(lambda: task_states(target.pid) == {"T"}, "stopping")
            with frozen(held):
                os.kill(target.pid, signal.SIGCONT)
                time.sleep(0.05)
            target.counts()

    def test_a_target_that_executes_programs_all_the_time_goes_on(self, tmp_path: Path) -> None:
        script = tmp_path / "again.sh"
        script.write_text(f"echo x >> {tmp_path}/rounds\nexec sh {script}\n")
        with running("sh", script) as process:
            rounds = tmp_path / "rounds"
            wait_until(rounds.exists, "the first round")
            still, refused = 0, []
            for _ in range(30):
                before = rounds.stat().st_size
                try:
                    with Target.open(process.pid) as held, frozen(held):
                        stopped_at = rounds.stat().st_size
                        time.sleep(0.01)
                        assert rounds.stat().st_size == stopped_at
                        still += 1
                except TargetError as error:  # it executed between two steps of ours
                    refused.append(str(error))
                wait_until(lambda then=before: rounds.stat().st_size > then, "going on")  # type: ignore[misc]
            assert still > len(refused), refused
            runs_on(process.pid)


class TestRunningOn:
    def test_when_gomem_is_killed_while_the_target_stands_still(self) -> None:
        with waits() as target:
            for _ in range(3):
                holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(target.pid)], cwd=ROOT, stdout=-1)
                assert holder.stdout is not None
                assert holder.stdout.readline() == b"frozen\n"
                assert task_states(target.pid) == {"t"}
                holder.kill()
                begin = time.monotonic()
                runs_on(target.pid)
                print(f"ran on {1e3 * (time.monotonic() - begin):.1f} ms after the kill")
                holder.communicate()
            target.counts()

    def test_when_gomem_is_killed_at_any_moment(self) -> None:
        with waits("-storm", 1) as target:
            command = [executable(), "snapshot", "--freeze", "--pid", str(target.pid), "-o", os.devnull]
            begin = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            usual = time.monotonic() - begin
            chance = random.Random(1)
            for _ in range(8):
                process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
                time.sleep(usual * chance.uniform(0.5, 1))
                process.kill()
                process.wait()
                runs_on(target.pid)
            target.counts()

    def test_when_the_helper_is_killed(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            with frozen(held) as freeze:
                os.kill(tracer_of(target.pid), signal.SIGKILL)
                runs_on(target.pid)
            assert freeze.thaw is None

    def test_when_the_helper_is_stopped(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            begin = time.monotonic()
            with Freeze(held, 1.0):
                os.kill(tracer_of(target.pid), signal.SIGSTOP)
                states = task_states(target.pid)
                # On a machine that stood still the time may be up by now.
                assert states == {"t"} or time.monotonic() - begin > 1.0
                runs_on(target.pid)

    def test_a_target_killed_while_it_stands_still_ends(self) -> None:
        with waits() as target, Target.open(target.pid) as held:
            with Freeze(held):
                os.kill(target.pid, signal.SIGKILL)
                assert target.process.wait(60) == -signal.SIGKILL
            with pytest.raises(TargetGone), Freeze(held):
                pass


class TestRefusals:
    def test_a_traced_target_is_left_alone_and_its_tracer_named(self, tmp_path: Path) -> None:
        strace = program("strace", "strace")
        with waits() as target, running(strace, "-f", "-qq", "-o", tmp_path / "log", "-p", target.pid) as tracer:
            wait_until(lambda: tracer_of(target.pid) == tracer.pid, "being traced")
            message = gomem("snapshot", "--freeze", "--pid", target.pid).refusal(1)
            assert f"process {tracer.pid} (strace)" in message
            assert "--freeze" in message
            tracer.terminate()
            tracer.wait()
            target.counts()

    def test_without_the_permission_it_says_so(self) -> None:
        if os.geteuid() != 0:
            absent("this test gives up being root")
        helper = ROOT / "tracer" / "snapshot" / "freezer.py"
        with waits() as target:
            directory = os.open(f"/proc/{target.pid}", os.O_RDONLY)
            nobody: Sequence[str] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
            command = [*nobody, "/usr/bin/python3", "-I", "-S", "-", str(directory), str(target.pid), "1", "0"]
            done = subprocess.run(command, input=helper.read_bytes(), capture_output=True, pass_fds=(directory,))
            os.close(directory)
            assert json.loads(done.stdout)["error"] == "not permitted"
            assert task_states(target.pid) <= {"R", "S"}


class TestReading:
    @pytest.mark.parametrize("release", ["1.19", "1.23.9", "1.27.3"])
    def test_a_churning_heap_is_exact_in_every_figure(self, release: str) -> None:
        with running(build("churn", release), "-phase", "200ms") as process:
            assert process.stdout is not None
            process.stdout.readline()
            freezes = self._look_on(process.pid)
        assert max(freezes) <= FREEZES
        print(f"{sum(freezes)} freezes for {len(freezes)} looks")

    def _look_on(self, pid: int) -> list[int]:
        """Look at the process 20 times; return how often it was stopped for each."""
        freezes = []
        with Target.open(pid) as target, Inspector.open(target) as inspector:
            for _ in range(20):
                look = inspector.look_frozen()
                assert look.runtime is not None
                assert look.runtime.consistency.exact
                assert (look.kernel.virtual_skew, look.kernel.resident_skew, look.space.unmapped) == (0, 0, 0)
                account = accounting(look.space, look.runtime)
                assert account is not None
                assert account.unexplained == 0
                assert look.frozen_seconds is not None
                assert look.frozen_seconds < LONGEST
                freezes.append(look.runtime.consistency.attempts)
        return freezes

    def test_the_command_reports_for_how_long_the_target_was_stopped(self) -> None:
        with parked(build("parked", "1.27.3")) as target:
            stopped = gomem("snapshot", "--freeze", "--pid", target.pid, "--format", "json").report()
            assert 0 < stopped["overhead"]["frozen_seconds"] < LONGEST
            assert stopped["consistency"] == {"exact": True, "attempts": 1, "skew_bytes": 0}
            assert stopped["memstats"]["HeapAlloc"] == target.emitted["HeapAlloc"]
            running_on = gomem("snapshot", "--pid", target.pid, "--format", "json").report()
            assert running_on["overhead"]["frozen_seconds"] is None
            assert "stopped the process for" in gomem("snapshot", "--freeze", "--pid", target.pid).stdout
