"""gomem where /sys, /proc, or parts of them are missing: it says so, or does without; never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gomem.tracer.process.target import Target
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.processes import running
from tests.support.requirements import absent
from tests.support.serving import serving

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(300)]

# What is done in a mount namespace of its own. /proc is mounted anew: options of ours are everybody's.
WITHOUT_SYS = "umount -l /sys"
WITHOUT_BTF = "test ! -d /sys/kernel/btf || mount -t tmpfs none /sys/kernel/btf"
WITHOUT_CGROUPS = "mount -t tmpfs none /sys/fs/cgroup"
WITHOUT_TRACEFS = "for at in /sys/kernel/debug /sys/kernel/tracing; do test ! -d $at || mount -t tmpfs none $at; done"
HIDDEN = "mount -t proc -o hidepid=2 proc /proc"
SUBSET = "mount -t proc -o subset=pid proc /proc"
WITHOUT_PROC = "umount -l /proc"
# As before Linux 5.3.
WITHOUT_PIDFDS = """
import errno, os, pyseccomp, sys
made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
made.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "pidfd_open")
made.load()
os.execv(sys.argv[1], sys.argv[1:])
"""
# As before Linux 6.6 without CAP_NET_ADMIN.
WITHOUT_LISTENING = """
import errno, os, pyseccomp, sys
made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
made.add_rule(pyseccomp.ERRNO(errno.EPERM), "bind")
made.load()
os.execv(sys.argv[1], sys.argv[1:])
"""
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def lacking(what: str) -> tuple[str, ...]:
    """Return the words that run a command in a namespace of its own, where something was taken away."""
    return "unshare", "--mount", "--propagation=private", "sh", "-c", f'{what} && exec "$@"', "sh"


@pytest.fixture(scope="module")
def pid() -> Iterator[int]:
    try:
        subprocess.run([*lacking(SUBSET), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        absent("no mount namespace, or nothing may be mounted in it")
    with running(build("churn", "1.25.5"), "-mb", "16", "-phase", "300ms", "-seconds", "3000") as process:
        yield process.pid


def doctor(what: str, status: int = 0) -> dict[str, Any]:
    """Return the answers by name."""
    done = gomem("doctor", "--format", "json", under=lacking(what))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.status == status, checks
    return checks


@pytest.mark.parametrize(
    "what",
    [WITHOUT_SYS, WITHOUT_BTF, WITHOUT_CGROUPS, WITHOUT_TRACEFS, HIDDEN, SUBSET],
    ids=["no sys", "no BTF", "no cgroups", "no tracefs", "hidepid", "subset"],
)
def test_a_process_is_traced_also_there(what: str, pid: int) -> None:
    words = ("trace", "--pid", pid, "--duration", "0.3", "--backend", "bpf", "--format", "json")
    report = gomem(*words, under=lacking(what)).report()
    assert report["heap"] is not None
    assert report["backend"] == "bpf"
    with Target.open(pid) as target:
        assert report["process"]["start_time"] == target.start_time


def test_the_doctor_says_what_is_missing() -> None:
    checks = doctor(WITHOUT_SYS)
    assert "not mounted" in checks["/sys"]["detail"]
    assert "mount" in checks["/sys"]["fix"]
    assert checks["BPF programs"]["ok"] is True
    assert "not mounted" in doctor(WITHOUT_CGROUPS)["memory cgroup"]["detail"]
    checks = doctor(SUBSET)
    assert "subset=pid" in checks["/proc"]["detail"]
    assert "unknown" in checks["Yama"]["detail"]
    assert "unknown" in checks["perf events"]["detail"]
    assert "hidepid" in doctor(HIDDEN)["/proc hidepid"]["name"]
    checks = doctor(WITHOUT_PROC, status=1)
    assert checks["/proc"]["ok"] is False
    assert "mount -t proc" in checks["/proc"]["fix"]


def test_without_a_proc_every_command_says_so(pid: int) -> None:
    for words in (("trace", "--pid", pid), ("snapshot", "--pid", pid), ("serve", "--listen", "127.0.0.1:0")):
        told = gomem(*words, under=lacking(WITHOUT_PROC)).refusal(1)
        assert "/proc is not mounted" in told
        assert "mount -t proc" in told


def test_a_process_that_proc_hides_is_not_there_and_the_reason_is_told(pid: int) -> None:
    under = (*lacking(HIDDEN), *NOBODY)
    assert "hidepid" in gomem("snapshot", "--pid", pid, under=under).refusal(1)
    assert "hidepid" in gomem("serve", "--pid", pid, "--listen", "127.0.0.1:0", under=under).refusal(1)
    checks = gomem("doctor", "--format", "json", under=under)
    assert checks.status == 1
    (check,) = (one for one in json.loads(checks.stdout)["checks"] if one["name"] == "/proc hidepid")
    assert check["ok"] is False


@pytest.mark.parametrize("what", [WITHOUT_SYS, SUBSET, HIDDEN], ids=["no sys", "subset", "hidepid"])
def test_processes_are_followed_also_there(what: str, pid: int) -> None:
    with serving("--pid", pid, "--interval", "0.5", under=lacking(what)) as served:
        served.until(lambda: served.followed(pid), "it is followed")


def test_a_kernel_without_pidfds_is_told_in_a_sentence_and_states_are_seen(pid: int) -> None:
    old = ("setarch", "--uname-2.6")  # by which the kernel says that it is an old one
    under = (*old, sys.executable, "-c", WITHOUT_PIDFDS)
    said = gomem("trace", "--pid", pid, "--duration", "0.3", "--backend", "bpf", under=under).refusal(1)
    assert "no pidfds" in said
    assert re.search(r"needs Linux 5\.8; this is 2\.6; .*pidfd_open", said), said
    assert len(said.splitlines()) == 2
    report = gomem("trace", "--pid", pid, "--duration", "0.3", "--format", "json", under=under).report()
    assert report["backend"] == "procfs"
    checks = json.loads(gomem("doctor", "--format", "json", under=under).stdout)["checks"]
    assert [check["ok"] for check in checks if check["name"] == "BPF programs"] == [False]


def test_a_kernel_that_lets_nobody_hear_of_processes_is_told_in_a_sentence() -> None:
    done = gomem("doctor", "--format", "json", under=(sys.executable, "-c", WITHOUT_LISTENING))
    (check,) = (one for one in json.loads(done.stdout)["checks"] if one["name"] == "process events")
    assert check["ok"] is None
    assert check["detail"] == "the process connector is refused: Operation not permitted"
    assert "scans /proc instead" in check["fix"]
