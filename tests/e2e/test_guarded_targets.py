"""Targets under a seccomp filter that kills."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyseccomp
import pytest

from tests.bench.attack_steady import Steady
from tests.support.builds import build
from tests.support.command import Outcome, gomem, obeys_the_rules
from tests.support.processes import running, wait_until

RELEASE = "1.25.5"
# What tests/targets/steady calls, its start included, and nothing else: strace -f -c.
CALLS = """
    arch_prctl clone close epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group fcntl futex getpid
    getrusage gettid madvise mmap munmap nanosleep openat pread64 prlimit64 read rt_sigaction rt_sigprocmask
    rt_sigreturn sched_getaffinity sched_yield sigaltstack tgkill write
"""
WATCHED = ("--with", "spans", "--budget", "100")


@contextmanager
def confined(*more: str) -> Iterator[Steady]:
    """Run the target under a filter that kills it for any call but its own and `more`."""
    script = [sys.executable, "-m", "tests.e2e.test_guarded_targets", build("steady", RELEASE)]
    command = ["env", f"MORE_CALLS={' '.join(more)}", *script]
    with running(*command) as process:
        assert process.stdout is not None
        target = Steady(process.pid, process.stdout.fileno())
        wait_until(lambda: target.progress.rounds > 0, "it works")
        assert "Seccomp:\t2\n" in Path(f"/proc/{target.pid}/status").read_text()
        yield target
        process.kill()
        wait_until(lambda: target.ended, "its output ends")


def goes_on(target: Steady) -> bool:
    rounds = target.progress.rounds
    wait_until(lambda: target.ended or target.progress.rounds > rounds + 10, "it goes on")
    return not target.ended and not target.progress.wrong


@pytest.mark.bpf
def test_a_target_that_a_filter_kills_for_any_new_system_call_lives_with_our_probes() -> None:
    with confined() as target:
        outcome = gomem("trace", "--pid", target.pid, *WATCHED, "--duration", "2", "--format", "json")
        assert goes_on(target)
    report = outcome.report()
    obeys_the_rules(report)
    assert report["span_events"]["watched_seconds"] > 0


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("snapshot", "--freeze"), 1),
        (("trace", "--backend", "strace", "--duration", "1"), 1),
        (("trace", "--backend", "procfs", "--freeze", "--duration", "1", "--format", "json"), 0),
    ],
)
def test_a_target_under_a_filter_that_may_end_it_for_a_resumed_sleep_is_not_stopped(
    words: tuple[str, ...], status: int
) -> None:
    with confined() as target:
        outcome = gomem(*words, "--pid", target.pid)
        assert goes_on(target)
    assert outcome.status == status, outcome.stderr
    said = outcome.stderr if status else json.dumps(outcome.report()["limits"])
    assert "restart_syscall" in said
    assert "--stop-filtered" in said


@pytest.mark.parametrize("words", [("snapshot", "--freeze"), ("trace", "--backend", "strace", "--duration", "1")])
def test_a_target_whose_filter_lets_a_sleep_be_resumed_is_stopped_when_that_is_said(words: tuple[str, ...]) -> None:
    with confined("restart_syscall") as target:
        report = gomem(*words, "--pid", target.pid, "--stop-filtered", "--format", "json").report()
        assert goes_on(target)
    obeys_the_rules(report)
    assert report["overhead"]["frozen_seconds"] or report["backend"] == "strace"


def test_a_command_under_our_own_filter_is_traced_by_strace_where_that_filter_allows_it() -> None:
    def run(*more: str) -> Outcome:
        under = [sys.executable, "-m", "tests.e2e.test_guarded_targets", "refuses", *more]
        command = ("trace", "--backend", "strace", "--", "sleep", "0.1")
        return gomem(*command, under=under)

    assert run().status == 0
    assert "restart_syscall" in run("restart_syscall").refusal(125)


if __name__ == "__main__":
    if sys.argv[1] == "refuses":
        command = next(at for at, word in enumerate(sys.argv) if at > 1 and word.startswith("/"))
        made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        for name in ["acct", *sys.argv[2:command]]:
            made.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    else:
        command = 1
        made = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
        for name in (CALLS + os.environ["MORE_CALLS"]).split():
            made.add_rule(pyseccomp.ALLOW, name)
    made.load()
    os.execv(sys.argv[command], sys.argv[command:])
