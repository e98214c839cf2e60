from __future__ import annotations

import pytest

from tracer.checks import Check
from tracer.doctor import (
    CAPABILITIES,
    capability_names,
    check_capabilities,
    check_cgroups,
    check_hidepid,
    check_kernel,
    check_lockdown,
    check_namespace,
    check_perf_paranoid,
    check_procfs,
    check_tracefs,
    check_yama,
    judge_strace,
)
from tracer.kernel.mounts import parse_mountinfo


def mask(*names: str) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in names)


def test_capabilities_have_the_kernels_numbers() -> None:
    # include/uapi/linux/capability.h
    numbers = {"SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "SYSLOG": 34, "PERFMON": 38, "BPF": 39}
    assert {name: CAPABILITIES.index(name) for name in numbers} == numbers
    assert capability_names(1 << 39 | 1 << 41 | 1) == ["CAP_CHOWN", "CAP_BPF", "CAP_41"]
    assert capability_names(0) == []


def test_sys_admin_stands_in_for_bpf_but_not_for_ptrace() -> None:
    verdicts = {check.name: check for check in check_capabilities(mask("SYS_ADMIN"))}
    assert verdicts["CAP_BPF"].ok is True
    assert verdicts["CAP_PERFMON"].ok is True
    assert verdicts["CAP_SYS_PTRACE"].ok is False
    assert "SYS_PTRACE" in verdicts["CAP_SYS_PTRACE"].fix
    assert verdicts["CAP_SYS_RESOURCE"].ok is None


@pytest.mark.parametrize(
    ("release", "ok", "word"),
    [
        ("6.18.44-fc", True, "PAGEMAP_SCAN"),
        ("6.6.1", True, "read from pagemap"),
        ("5.10.0-27-amd64", True, "perf-event"),
        ("5.4.0", False, "ring buffer"),
        ("weird", None, "can't read"),
    ],
)
def test_kernels_are_judged_by_what_they_can(release: str, ok: bool | None, word: str) -> None:
    check = check_kernel(release, "x86_64")
    assert (check.ok, word in check.detail) == (ok, True)


def test_namespaces_are_initial_or_not() -> None:
    assert check_namespace("user", "user:[4026531837]").ok is True
    assert check_namespace("pid", "pid:[4026531836]").ok is True
    assert check_namespace("user", "user:[4026532000]").ok is False
    assert check_namespace("pid", "pid:[4026532000]").ok is None


def proc(options: str) -> Check:
    return check_hidepid(parse_mountinfo(f"22 27 0:21 / /proc rw - proc proc rw{options}"), 0)


def test_what_lies_on_top_at_proc_counts() -> None:
    covered = parse_mountinfo(
        "22 27 0:21 / /proc rw - proc proc rw,hidepid=2\n23 22 0:22 / /proc rw - proc proc rw,subset=pid"
    )
    assert check_hidepid(covered, 0).ok is True
    assert check_procfs(covered).ok is None
    assert check_procfs(covered[:1]).ok is True


def test_what_a_proc_without_settings_cannot_tell_is_unknown() -> None:
    for check in (check_yama("", 0), check_perf_paranoid("", 0), check_namespace("pid", "")):
        assert check.ok is None
        assert "unknown" in check.detail


@pytest.mark.parametrize(
    ("own", "ok", "detail"),
    [
        ("0::/a\n", True, "v2 at /sys/fs/cgroup/unified"),
        ("4:memory:/a\n0::/\n", True, "v1 at /sys/fs/cgroup/memory"),
        ("4:cpu:/a\n", None, "has none"),
    ],
)
def test_the_cgroups_of_memory_are_told(own: str, ok: bool | None, detail: str) -> None:
    mounts = parse_mountinfo(
        "30 27 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "31 27 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
    )
    check = check_cgroups(mounts, own, lambda mount: True)
    assert (check.ok, detail in check.detail) == (ok, True)
    if ok:
        covered = check_cgroups(mounts, own, lambda mount: False)
        assert covered.ok is None
        assert "not mounted" in covered.detail


def test_hidepid_matters_only_without_ptrace() -> None:
    assert proc("").ok is True
    assert proc(",hidepid=off").ok is True
    assert proc(",hidepid=invisible").ok is False
    hidden = parse_mountinfo("22 27 0:21 / /proc rw - proc proc rw,hidepid=2")
    assert check_hidepid(hidden, mask("SYS_PTRACE")).ok is True


def test_a_missing_tracefs_is_no_fault_because_raw_tracepoints_need_none() -> None:
    assert check_tracefs([]).ok is None
    assert check_tracefs(parse_mountinfo("1 1 0:9 / /sys/kernel/tracing rw - tracefs tracefs rw")).ok is True


@pytest.mark.parametrize(
    ("scope", "capable", "ok"),
    [
        (None, False, None),
        ("0", False, True),
        ("1", False, False),
        ("1", True, True),
        ("2", True, True),
        ("3", True, False),
    ],
)
def test_yama(scope: str | None, capable: bool, ok: bool | None) -> None:
    assert check_yama(scope, mask("SYS_PTRACE") if capable else 0).ok is ok


@pytest.mark.parametrize(
    ("level", "capable", "ok"),
    [(None, True, False), ("2", False, False), ("1", False, True), ("-1", False, True), ("4", True, True)],
)
def test_perf_event_paranoid(level: str | None, capable: bool, ok: bool) -> None:
    assert check_perf_paranoid(level, mask("PERFMON") if capable else 0).ok is ok


def test_lockdown() -> None:
    assert check_lockdown(None).ok is None
    assert check_lockdown("[none] integrity confidentiality").ok is True
    assert check_lockdown("none integrity [confidentiality]").ok is False


def test_strace_versions() -> None:
    assert judge_strace("/s", "strace -- version 6.1\nCopyright").detail.startswith("/s 6.1 ")
    assert judge_strace("/s", "busybox").ok is False
