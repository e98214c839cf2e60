from __future__ import annotations

import pytest

from gomem.tracer.doctor.settings import (
    check_capabilities,
    check_cgroups,
    check_hidepid,
    check_kernel,
    check_lockdown,
    check_perf_paranoid,
    check_pid_namespace,
    check_procfs,
    check_user_namespace,
    check_yama,
)
from gomem.tracer.machine.capabilities import CAPABILITIES, capability_names
from gomem.tracer.machine.checks import Check
from gomem.tracer.machine.rights import Own, hidepid
from gomem.tracer.proc.mounts import parse_mountinfo

ALL = frozenset(f"CAP_{name}" for name in CAPABILITIES)


def me(*names: str, hides: str = "") -> Own:
    """Return a process of root's with these capabilities, which could have all."""
    return Own(0, 0, frozenset(f"CAP_{name}" for name in names), ALL, hidepid=hides)


def test_capabilities_have_the_kernels_numbers() -> None:
    # include/uapi/linux/capability.h
    numbers = {"SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "SYSLOG": 34, "PERFMON": 38, "BPF": 39}
    assert {name: CAPABILITIES.index(name) for name in numbers} == numbers
    assert capability_names(1 << 39 | 1 << 41 | 1) == ["CAP_CHOWN", "CAP_BPF", "CAP_41"]
    assert capability_names(0) == []


def test_what_gomem_uses_and_lacks_is_told_and_judged_by_what_is_tried() -> None:
    check = check_capabilities(me("SYS_ADMIN"))
    assert check.ok is None
    assert check.detail == "CAP_SYS_ADMIN; missing: CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH"
    assert check_capabilities(me("SYS_ADMIN", "SYS_PTRACE", "DAC_OVERRIDE")).ok is True


@pytest.mark.parametrize(("machine", "ok"), [("x86_64", True), ("aarch64", False)])
def test_kernels_are_named_and_not_judged_by_their_number(machine: str, ok: bool) -> None:
    for release in ("6.18.44-fc", "5.4.0", "weird"):
        assert (check_kernel(release, machine).ok, release in check_kernel(release, machine).detail) == (ok, True)


def test_namespaces_are_initial_or_not() -> None:
    assert check_user_namespace("user:[4026531837]").ok is True
    assert check_pid_namespace("pid:[4026531836]").ok is True
    assert check_user_namespace("user:[4026532000]").ok is False
    assert check_pid_namespace("pid:[4026532000]").ok is None


def proc(options: str) -> Check:
    return check_hidepid(me(hides=hidepid(f"22 27 0:21 / /proc rw - proc proc rw{options}")))


def test_what_lies_on_top_at_proc_counts() -> None:
    text = "22 27 0:21 / /proc rw - proc proc rw,hidepid=2\n23 22 0:22 / /proc rw - proc proc rw,subset=pid"
    covered = parse_mountinfo(text)
    assert hidepid(text) == ""
    assert check_procfs(covered).ok is None
    assert check_procfs(covered[:1]).ok is True


def test_what_a_proc_without_settings_cannot_tell_is_unknown() -> None:
    for check in (check_yama("", me()), check_perf_paranoid("", me()), check_pid_namespace("")):
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
    assert check_hidepid(me("SYS_PTRACE", hides="hidepid=2")).ok is True


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
    assert check_yama(scope, me("SYS_PTRACE") if capable else me()).ok is ok


@pytest.mark.parametrize(
    ("level", "capable", "ok"),
    [(None, True, False), ("2", False, False), ("1", False, True), ("-1", False, True), ("4", True, True)],
)
def test_perf_event_paranoid(level: str | None, capable: bool, ok: bool) -> None:
    assert check_perf_paranoid(level, me("PERFMON") if capable else me()).ok is ok


def test_lockdown() -> None:
    assert check_lockdown(None).ok is None
    assert check_lockdown("[none] integrity confidentiality").ok is True
    assert check_lockdown("none integrity [confidentiality]").ok is False
