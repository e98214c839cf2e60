from __future__ import annotations

import os

import pytest

from gomem.tracer.errors import TargetError, TargetGone
from gomem.tracer.process.target import Target


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**40])
def test_a_number_that_is_nobodys_pid_is_no_process(pid: int) -> None:
    with pytest.raises(TargetGone, match=f"no process {pid} here"):
        Target.open(pid)


def test_our_own_facts() -> None:
    with Target.open(os.getpid()) as target:
        assert target.ns_pid > 0
        assert target.exe == os.path.realpath("/proc/self/exe")
        assert target.readlink("exe") == target.exe, "not deleted"
        assert target.uid == os.getuid()
        assert target.threads >= 1
        assert target.user_namespace == os.readlink("/proc/self/ns/user")
        assert target.start_time.endswith("Z")
        facts = target.facts()
    assert (facts.pid, facts.exe) == (os.getpid(), os.path.realpath("/proc/self/exe"))
    assert facts.cmdline


def test_a_closed_target_cannot_be_read() -> None:
    target = Target.open(os.getpid())
    target.close()
    target.close()
    with pytest.raises(TargetError):
        target.read("stat")
