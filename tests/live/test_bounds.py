"""How far a process is from its limits, against the kernel: how much more it lets it do."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomem.tracer.kernel.cgroup import hierarchy_mounts, membership_of
from gomem.tracer.proc.mounts import parse_mountinfo
from gomem.tracer.report import Bound, Report
from gomem.tracer.report.findings.judging import why
from tests.support.builds import build
from tests.support.command import gomem, outcome, started
from tests.support.discovery.cgroups import remove
from tests.support.edges import PAGE, at_edge, tried
from tests.support.memory_cgroups import joining
from tests.support.processes import vm_size
from tests.support.requirements import absent
from tests.support.seen import findings, look_at, told

MB = 1 << 20
RELEASE = "1.25.5"
USER = 54_321


@contextmanager
def cgroup(controller: str, **files: str) -> Iterator[Path]:
    """Make a cgroup of a controller, in whichever hierarchy it is, and write these files of it; "_" is "."."""
    own = membership_of(Path("/proc/self/cgroup").read_text(), controller)
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    found = hierarchy_mounts(mounts, own.version, controller) if own else []
    if not found:
        absent(f"there are no cgroups of the controller {controller}")
    made = Path(found[0].point, f"gomem-test-{secrets.token_hex(4)}")
    try:
        made.mkdir()
        for name, text in files.items():
            (made / name.replace("_", ".", 1)).write_text(text)
    except OSError as error:
        absent(f"no such cgroup can be made here: {error}")
    try:
        yield made
    finally:
        remove(made)


def cpu_quota(cpus: float) -> dict[str, str]:
    """Return the files that give a cgroup so many CPUs."""
    own = membership_of(Path("/proc/self/cgroup").read_text(), "cpu")
    if own is not None and own.version == 2:
        return {"cpu_max": f"{int(cpus * 100_000)} 100000"}
    return {"cpu_cfs_quota_us": str(int(cpus * 100_000))}


def as_user(*limits: str) -> Sequence[str]:
    """Return the words that run a command as a user for whom limits hold: `--nproc=50` and the like."""
    return ["prlimit", *limits, "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]


def bound(report: Report, name: str) -> Bound:
    return next(one for one in report.bounds or () if one.name == name)


def judged(report: Report, suspect: str) -> str:
    """Return what `gomem why` says of a suspect: the outcome, and the sentence if it is ruled out."""
    one = next(one for one in why(report, "").judgements if one.suspect == suspect)
    return one.outcome if one.outcome != "ruled-out" else f"ruled-out: {one.sentence}"


def test_the_distance_to_the_limit_of_mappings_is_how_many_more_there_can_be() -> None:
    with at_edge("mappings") as process:
        tried(process, 500)
        _, before = look_at(process)
        could = tried(process)
        _, after = look_at(process)
        limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    few, full = bound(before, "vm.max_map_count"), bound(after, "vm.max_map_count")
    assert (few.limit, full.limit) == (limit, limit)
    assert few.left is not None
    assert abs(few.left - 2 * could) <= 4
    assert full.left is not None
    assert full.left <= 2
    assert "near-mapping-limit" not in findings(before)
    assert findings(after)["near-mapping-limit"].severity == "warning"
    assert judged(before, "mappings").startswith("ruled-out: mappings as a share of vm.max_map_count: ")
    assert judged(after, "mappings") == "it-is"


def test_the_distance_to_pids_max_is_how_many_threads_can_be_started() -> None:
    with cgroup("pids", pids_max="60") as directory, at_edge("threads", *joining(directory)) as process:
        tried(process, 20)
        _, before = look_at(process)
        assert bound(before, "pids.max").left == 60 - 21
        tried(process, 36)
        _, near = look_at(process)
        assert tried(process) == bound(near, "pids.max").left == 60 - 57
    assert (bound(near, "pids.max").limit, bound(near, "pids.max").cgroup) == (60, f"/{directory.name}")
    assert "near-thread-limit" not in findings(before)
    found = findings(near)["near-thread-limit"]
    assert found.title == f"57 tasks of pids.max of /{directory.name} 60: 3 more can be started"
    assert judged(before, "threads") == "ruled-out: what is used of a limit of threads: 35%; it takes 90%"
    assert judged(near, "threads") == "it-is"


@pytest.mark.skipif(os.getuid() != 0, reason="it takes root to run as another user")
def test_the_threads_of_a_user_are_counted_over_all_of_its_processes() -> None:
    with at_edge("threads", *as_user()) as other, at_edge("threads", *as_user("--nproc=50")) as process:
        tried(other, 30)
        tried(process, 10)
        _, before = look_at(process)
        left = bound(before, "RLIMIT_NPROC").left
        assert left == tried(process) == 50 - 42
        _, full = look_at(process)
    assert bound(full, "RLIMIT_NPROC").left == 0
    assert "near-thread-limit" not in findings(before)
    assert "none more can be started" in findings(full)["near-thread-limit"].title
    assert "other containers" in findings(full)["near-thread-limit"].action


@pytest.mark.skipif(os.getuid() != 0, reason="it takes root to run as another user")
def test_the_distance_to_the_limit_of_locked_memory_is_what_can_still_be_locked() -> None:
    with at_edge("locked", *as_user(f"--memlock={100 * PAGE}")) as process:
        tried(process, 50)
        _, half = look_at(process)
        tried(process, 45)
        _, near = look_at(process)
        left = bound(near, "RLIMIT_MEMLOCK").left
        assert left == tried(process) * PAGE == 5 * PAGE
    assert "near-memlock-limit" not in findings(half)
    assert "near-memlock-limit" in findings(near)
    assert judged(half, "locked-memory").endswith(": 50%; it takes 90%")
    assert judged(near, "locked-memory") == "it-is"


def test_a_limit_that_does_not_hold_for_root_is_none() -> None:
    if os.getuid() != 0:
        absent("this is no root")
    with at_edge("threads") as process:
        resource.prlimit(process.pid, resource.RLIMIT_NPROC, (1, 1))
        resource.prlimit(process.pid, resource.RLIMIT_MEMLOCK, (PAGE, PAGE))
        _, report = look_at(process)
        assert tried(process, 5) == 5
    assert bound(report, "RLIMIT_NPROC").limit is None
    assert bound(report, "RLIMIT_MEMLOCK").limit is None
    assert "near-thread-limit" not in findings(report)
    assert judged(report, "locked-memory") == "ruled-out: the limit of locked memory: no such limit holds for it"


@pytest.mark.parametrize("procs", ["5", ""])
def test_gomaxprocs_above_the_cpu_quota_is_said_and_what_go_chooses_by_itself_is_not(procs: str) -> None:
    words = ["env", *([f"GOMAXPROCS={procs}"] if procs else []), str(build("mapped", RELEASE)), "none", "0"]
    with cgroup("cpu", **cpu_quota(0.5)) as directory, told(*joining(directory), *words) as (process, _):
        _, report = look_at(process)
    assert report.cpu is not None
    assert (report.cpu.quota, report.cpu.cgroup) == (0.5, f"/{directory.name}")
    assert report.cpu.allowed == len(os.sched_getaffinity(0))
    found = findings(report).get("gomaxprocs-above-quota")
    if procs:
        assert report.cpu.gomaxprocs == 5
        assert found is not None
        assert found.title.startswith("GOMAXPROCS is 5, but the cgroup may use 0.5 CPUs")
        assert "Set GOMAXPROCS=2." in found.action
    else:
        assert report.cpu.gomaxprocs is not None
        assert report.cpu.gomaxprocs <= 2
        assert found is None


@pytest.mark.bpf
@pytest.mark.parametrize("limited", [True, False])
def test_calls_that_fail_are_told_with_errno_size_caller_and_the_limit_that_is_short(limited: bool) -> None:
    with told(build("mapped", RELEASE), "none", 0) as (process, _):
        limit = vm_size(process.pid) + 96 * MB
        if limited:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        with started("trace", "--format", "json", "-d", "60", process.pid) as tracer:
            could = [maps(process, 200 * MB), maps(process, 300 * MB)]
            tracer.send_signal(signal.SIGINT)
            report = outcome(tracer).report()
    assert could == [not limited] * 2
    said = {one["id"]: one for one in report["findings"]}
    if not limited:
        assert [one for one in report["failed_calls"] if one["call"] == "mmap"] == []
        assert "memory-calls-failed" not in said
        return
    (failed,) = (one for one in report["failed_calls"] if one["call"] == "mmap")
    assert (failed["error"], failed["count"], failed["bytes"], failed["largest"]) == ("ENOMEM", 2, 500 * MB, 300 * MB)
    assert failed["function"] == "main.reserve"
    assert "main.main" in failed["callers"]
    found = said["memory-calls-failed"]
    assert "RLIMIT_AS leaves" in found["explanation"]
    assert "mmap of 300 MiB" in found["title"]


def maps(process: subprocess.Popen[bytes], size: int) -> bool:
    """Let the target map so many bytes, and return whether the kernel allowed it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"MAP {size}\n".encode())
    process.stdin.flush()
    return process.stdout.readline() == b"true\n"


def test_the_page_has_limits_that_are_near() -> None:
    with cgroup("pids", pids_max="60") as directory, at_edge("threads", *joining(directory)) as process:
        tried(process, 40)
        page = gomem("snapshot", process.pid).stdout
    row = next(line.split() for line in page.splitlines() if line.strip().startswith("pids.max"))
    assert row[:4] == ["pids.max", "41", "60", "19"]
