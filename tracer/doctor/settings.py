"""What `gomem doctor` says of this machine's settings; what works is tried: see trials.py here and in bpf.

Each check is a function of text that the kernel gave, so that other machines' answers can be tested here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from gomem.tracer.kernel.cgroup import hierarchy_mounts, memory_membership
from gomem.tracer.machine.checks import Check
from gomem.tracer.machine.rights import INITIAL_NAMESPACES, Own, grant, hidden_by_proc, own
from gomem.tracer.proc.mounts import MOUNT_PROCFS, NO_PROCFS, Mount, has_procfs, parse_mountinfo

# What README's table of permissions lists, and what stands in for it.
_NEEDED = (
    ("CAP_SYS_PTRACE",), ("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"), ("CAP_BPF", "CAP_SYS_ADMIN"),
    ("CAP_PERFMON", "CAP_SYS_ADMIN"),
)  # fmt: skip
_USED = ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_NET_ADMIN")
_MACHINES = ("x86_64",)
_UNKNOWN = "unknown: there is no /proc/sys"
_PERF_EVENTS_FREE = 1  # perf_event_paranoid up to which a user may trace processes of his own


def kernel_checks() -> list[Check]:
    """Ask this machine about its settings; takes some milliseconds, never raises.

    Without a /proc there are few answers.
    """
    kernel = check_kernel(os.uname().release, os.uname().machine)
    if not has_procfs():
        return [kernel, Check("/proc", False, NO_PROCFS, MOUNT_PROCFS), check_sysfs()]
    me = own()
    mounts = parse_mountinfo(_text("/proc/self/mountinfo") or "")
    return [
        kernel,
        check_capabilities(me),
        check_user_namespace(me.user_namespace),
        check_pid_namespace(_link("/proc/self/ns/pid")),
        check_procfs(mounts),
        check_hidepid(me),
        check_sysfs(),
        check_cgroups(mounts, _text("/proc/self/cgroup") or "", _is_on_top),
        check_yama(_setting("/proc/sys/kernel/yama/ptrace_scope"), me),
        check_perf_paranoid(_setting("/proc/sys/kernel/perf_event_paranoid"), me),
        check_lockdown(_text("/sys/kernel/security/lockdown")),
    ]


def check_kernel(release: str, machine: str) -> Check:
    """Tell the kernel's version. What it can do is tried, as distributions bring features to older kernels."""
    detail = f"Linux {release} ({machine})"
    if machine not in _MACHINES:
        return Check("kernel", False, f"{detail}: gomem knows amd64 only")
    return Check("kernel", True, detail)


def check_capabilities(me: Own) -> Check:
    """Tell which of the capabilities that gomem uses are there; what that means is tried."""
    have = [name for name in _USED if name in me.effective]
    missing = [group[0] for group in _NEEDED if not me.effective.intersection(group)]
    detail = ", ".join(have) or "none of those that gomem uses"
    if not missing:
        return Check("capabilities", True, detail)
    return Check("capabilities", None, f"{detail}; missing: {', '.join(missing)}", grant(missing, me))


def check_user_namespace(link: str) -> Check:
    """Judge in which user namespace gomem runs; `link` as /proc/self/ns/user reads."""
    name, initial = "user namespace", _is_initial("user", link)
    if initial is not False:
        return Check(name, initial, "the initial one" if initial else "unknown: /proc/self/ns/user cannot be read")
    what = f"{link}: not the initial one, where BPF and other users' memory are out of reach"
    return Check(name, False, what, "run outside the user namespace (no rootless container)")


def check_pid_namespace(link: str) -> Check:
    """Judge in which PID namespace gomem runs; `link` as /proc/self/ns/pid reads."""
    name, initial = "pid namespace", _is_initial("pid", link)
    if initial is not False:
        return Check(name, initial, "the initial one" if initial else "unknown: /proc/self/ns/pid cannot be read")
    fix = "to see the host's processes: docker run --pid=host, or hostPID: true"
    return Check(name, None, f"{link}: pids are those of this container", fix)


def _is_initial(kind: str, link: str) -> bool | None:
    found = re.fullmatch(r"\w+:\[(\d{1,20})\]", link)
    return int(found[1]) == INITIAL_NAMESPACES[kind] if found else None


def check_procfs(mounts: list[Mount]) -> Check:
    """Judge whether /proc has more than the directories of processes."""
    proc = [mount for mount in mounts if mount.point == "/proc"][-1:]
    if any("subset=pid" in (*mount.options, *mount.super_options) for mount in proc):
        detail = "subset=pid: processes only, without /proc/sys; some answers below are unknown for that"
        return Check("/proc", None, detail, MOUNT_PROCFS)
    return Check("/proc", True, "shows the processes of our own PID namespace")


def check_sysfs() -> Check:
    """Judge /sys. gomem needs little of it."""
    if os.path.isdir("/sys/kernel"):
        return Check("/sys", True, "mounted")
    what = "not mounted: perf-event uprobes (before Linux 6.6) and cgroups below it are out of reach"
    return Check("/sys", None, what, "mount -t sysfs sysfs /sys")


def check_cgroups(mounts: list[Mount], own_cgroup: str, visible: Callable[[Mount], bool]) -> Check:
    """Tell where the cgroups that account for memory are mounted, and `visible`.

    `own_cgroup` is the text of /proc/self/cgroup.
    """
    membership = memory_membership(own_cgroup)
    if membership is None:
        return Check("memory cgroup", None, "this kernel has none: no cgroup figures")
    points = [mount.point for mount in hierarchy_mounts(mounts, membership.version) if visible(mount)]
    version = f"cgroup v{membership.version}"
    if not points:
        what = f"{version} is not mounted here: figures only of targets that have it mounted"
        return Check("memory cgroup", None, what, "mount the host's /sys/fs/cgroup")
    return Check("memory cgroup", True, f"{version} at {points[-1]}")


def check_hidepid(me: Own) -> Check:
    """Judge whether /proc hides other users' processes."""
    if not me.hidepid:
        return Check("/proc hidepid", True, "off: all processes are visible")
    # hidepid=ptraceable (4) shows only what may be traced; the others spare those who may trace.
    hidden = hidden_by_proc(me)
    detail = f"{me.hidepid}: other users' processes are hidden without CAP_SYS_PTRACE"
    return Check("/proc hidepid", not hidden, detail, hidden)


def check_yama(scope: str | None, me: Own) -> Check:
    """Judge the Yama security module, which guards /proc/PID/mem; `scope` is None where it is not built in.

    "" means that /proc does not tell.
    """
    if not scope:
        return Check("Yama", None, "not in this kernel" if scope is None else _UNKNOWN)
    detail = f"kernel.yama.ptrace_scope = {scope}"
    if scope == "3":
        return Check(
            "Yama",
            False,
            f"{detail}: nobody may read another process's memory",
            "set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d and reboot (3 can't be undone)",
        )
    if scope == "0" or "CAP_SYS_PTRACE" in me.effective:
        return Check("Yama", True, detail)
    fix = f"gomem lacks CAP_SYS_PTRACE: {grant(['CAP_SYS_PTRACE'], me)}"
    return Check("Yama", False, f"{detail}: only our own children may be read", fix)


def check_perf_paranoid(level: str | None, me: Own) -> Check:
    """Judge kernel.perf_event_paranoid, which those with CAP_PERFMON pass; "" means that /proc does not tell."""
    if level == "":
        return Check("perf events", None, _UNKNOWN)
    if level is None:
        return Check("perf events", False, "this kernel has none", "needs CONFIG_PERF_EVENTS")
    detail = f"kernel.perf_event_paranoid = {level}"
    free = level.lstrip("-").isdigit() and int(level) <= _PERF_EVENTS_FREE
    if free or me.effective & {"CAP_PERFMON", "CAP_SYS_ADMIN"}:
        return Check("perf events", True, detail)
    return Check("perf events", False, detail, f"gomem lacks CAP_PERFMON: {grant(['CAP_PERFMON'], me)}")


def check_lockdown(text: str | None) -> Check:
    """Judge kernel lockdown, e.g. "none [integrity] confidentiality"; None where it is not built in."""
    if text is None:
        return Check("lockdown", None, "not in this kernel, or securityfs is not mounted")
    found = re.search(r"\[(\w+)\]", text)
    mode = found[1] if found else "unknown"
    if mode == "confidentiality":
        return Check(
            "lockdown", False, f"{mode}: BPF may not read memory", "boot with lockdown=integrity, or --backend strace"
        )
    return Check("lockdown", True, mode)


def _setting(path: str) -> str | None:
    """Return a setting's text, None where this kernel has none, "" where /proc has no settings."""
    return _text(path) if os.path.isdir("/proc/sys") else ""


def _is_on_top(mount: Mount) -> bool:
    """Tell whether nothing else is mounted over a mount."""
    try:
        return os.stat(mount.point).st_dev == mount.device
    except OSError:
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
