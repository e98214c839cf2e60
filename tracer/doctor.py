"""What `gomem doctor` says of kernel, capabilities, /proc and strace; the BPF checks are the bpf package's own.

Each check is a function of text that the kernel gave, so that other machines' answers can be tested here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tracer.checks import Check
from tracer.kernel.cgroup import hierarchy_mounts, memory_membership
from tracer.kernel.mounts import MOUNT_PROCFS, NO_PROCFS, Mount, has_procfs, parse_mountinfo
from tracer.kernel.pagemap import scan, zero_frames
from tracer.kernel.procfs import parse_status

# include/uapi/linux/capability.h, in the order of their numbers
_CAPABILITY_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = _CAPABILITY_NAMES.split()
# include/linux/proc_ns.h: the inode numbers of the namespaces that the kernel starts with
_INITIAL = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC}
_UNKNOWN = "unknown: there is no /proc/sys"
_PERF_EVENTS_FREE = 1  # perf_event_paranoid up to which a user may trace processes of his own


def kernel_checks() -> list[Check]:
    """Ask this machine everything; takes some milliseconds, never raises.

    Without a /proc there are few answers.
    """
    kernel = check_kernel(os.uname().release, os.uname().machine)
    if not has_procfs():
        return [kernel, Check("/proc", False, NO_PROCFS, MOUNT_PROCFS), check_sysfs(), check_strace()]
    capabilities = parse_status(Path("/proc/self/status").read_bytes()).cap_effective or 0
    mounts = parse_mountinfo(_text("/proc/self/mountinfo") or "")
    return [
        kernel,
        *check_capabilities(capabilities),
        check_namespace("user", _link("/proc/self/ns/user")),
        check_namespace("pid", _link("/proc/self/ns/pid")),
        check_procfs(mounts),
        check_hidepid(mounts, capabilities),
        check_sysfs(),
        check_cgroups(mounts, _text("/proc/self/cgroup") or "", _is_on_top),
        check_tracefs(mounts),
        check_pagemap(),
        check_pagemap_scan(),
        check_yama(_setting("/proc/sys/kernel/yama/ptrace_scope"), capabilities),
        check_perf_paranoid(_setting("/proc/sys/kernel/perf_event_paranoid"), capabilities),
        check_lockdown(_text("/sys/kernel/security/lockdown")),
        check_strace(),
    ]


def capability_names(mask: int) -> list[str]:
    """Return the names ("CAP_BPF") of the capabilities set in `mask`, by number where they have none here."""
    numbers = [number for number in range(mask.bit_length()) if mask >> number & 1]
    return [f"CAP_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else f"CAP_{number}" for number in numbers]


def check_kernel(release: str, machine: str) -> Check:
    """Judge the kernel's version: which of gomem's ways it allows."""
    found = re.match(r"(\d{1,5})\.(\d{1,5})", release)
    if not found:
        return Check("kernel", None, f"{release} ({machine}): a version that gomem can't read")
    version = int(found[1]), int(found[2])
    detail = f"Linux {release} ({machine})"
    if version >= (6, 7):
        return Check("kernel", True, f"{detail}: uprobe_multi links, PAGEMAP_SCAN")
    if version >= (6, 6):
        return Check("kernel", True, f"{detail}: uprobe_multi links; residency is read from pagemap")
    if version >= (5, 8):
        return Check("kernel", True, f"{detail}: perf-event uprobes; residency is read from pagemap")
    return Check("kernel", False, f"{detail}: no BPF ring buffer", "needs Linux 5.8 for BPF; snapshots and strace work")


def check_capabilities(mask: int) -> list[Check]:
    """Judge each of the capabilities that matter to gomem."""
    have = set(capability_names(mask))
    admin = "CAP_SYS_ADMIN" in have
    fix = "run as root; in a pod: securityContext.capabilities.add: [BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH]"

    def judge(name: str, use: str, by_admin: bool, optional: bool) -> Check:
        if name in have:
            return Check(name, True, use)
        if by_admin and admin:
            return Check(name, True, f"{use} (CAP_SYS_ADMIN stands in)")
        return Check(name, None if optional else False, f"missing: {use}", "" if optional else fix)

    return [
        judge("CAP_BPF", "loads BPF programs", by_admin=True, optional=False),
        judge("CAP_PERFMON", "attaches probes", by_admin=True, optional=False),
        judge("CAP_SYS_PTRACE", "reads memory and maps of other users' processes", by_admin=False, optional=False),
        judge("CAP_SYS_ADMIN", "perf-event uprobes, page frame numbers", by_admin=False, optional=True),
        judge("CAP_SYS_RESOURCE", "locks memory for BPF maps before Linux 5.11", by_admin=False, optional=True),
    ]


def check_namespace(kind: str, link: str) -> Check:
    """Judge in which user or PID namespace gomem runs; `link` as /proc/self/ns/KIND reads."""
    found = re.fullmatch(r"\w+:\[(\d{1,20})\]", link)
    initial = bool(found) and int(found[1]) == _INITIAL[kind] if found else False
    name = f"{kind} namespace"
    if not found:
        return Check(name, None, f"unknown: /proc/self/ns/{kind} cannot be read")
    if initial:
        return Check(name, True, "the initial one")
    if kind == "user":
        return Check(
            name,
            False,
            f"{link}: not the initial one, where BPF and other users' memory are out of reach",
            "run outside the user namespace (no rootless container)",
        )
    return Check(
        name,
        None,
        f"{link}: pids are those of this container",
        "to see the host's processes: docker run --pid=host, or hostPID: true",
    )


def check_procfs(mounts: list[Mount]) -> Check:
    """Judge whether /proc has more than the directories of processes."""
    if "subset=pid" in _options_of_procfs(mounts):
        detail = "subset=pid: processes only, without /proc/sys; some answers below are unknown for that"
        return Check("/proc", None, detail, MOUNT_PROCFS)
    return Check("/proc", True, "shows the processes of our own PID namespace")


def check_sysfs() -> Check:
    """Judge /sys, of which little is needed."""
    if os.path.isdir("/sys/kernel"):
        return Check("/sys", True, "mounted")
    what = "not mounted: perf-event uprobes (before Linux 6.6) and cgroups below it are out of reach"
    return Check("/sys", None, what, "mount -t sysfs sysfs /sys")


def check_cgroups(mounts: list[Mount], own: str, visible: Callable[[Mount], bool]) -> Check:
    """Tell where the cgroups that account for memory are mounted, and `visible`.

    `own` is the text of /proc/self/cgroup.
    """
    membership = memory_membership(own)
    if membership is None:
        return Check("memory cgroup", None, "this kernel has none: no cgroup figures")
    points = [mount.point for mount in hierarchy_mounts(mounts, membership.version) if visible(mount)]
    version = f"cgroup v{membership.version}"
    if not points:
        what = f"{version} is not mounted here: figures only of targets that have it mounted"
        return Check("memory cgroup", None, what, "mount the host's /sys/fs/cgroup")
    return Check("memory cgroup", True, f"{version} at {points[-1]}")


def _options_of_procfs(mounts: list[Mount]) -> list[str]:
    """Return the options of what is mounted at /proc, the last one if several lie on top of each other."""
    proc = [mount for mount in mounts if mount.point == "/proc"][-1:]
    return [option for mount in proc for option in (*mount.options, *mount.super_options)]


def check_hidepid(mounts: list[Mount], capabilities: int) -> Check:
    """Judge whether /proc hides other users' processes."""
    hidden = next((option for option in _options_of_procfs(mounts) if option.startswith("hidepid=")), None)
    if hidden in (None, "hidepid=0", "hidepid=off"):
        return Check("/proc hidepid", True, "off: all processes are visible")
    # hidepid=ptraceable (4) shows only what may be traced; the others spare those who may trace.
    may_trace = "CAP_SYS_PTRACE" in capability_names(capabilities)
    return Check(
        "/proc hidepid",
        may_trace,
        f"{hidden}: other users' processes are hidden without CAP_SYS_PTRACE",
        "" if may_trace else "run as root, or in the group of the mount's gid= option",
    )


def check_tracefs(mounts: list[Mount]) -> Check:
    """Tell where tracefs is mounted; gomem attaches to raw tracepoints, which need none."""
    mount = next((mount for mount in mounts if mount.kind == "tracefs"), None)
    if mount is None:
        return Check("tracefs", None, "not mounted, and not needed: raw tracepoints have no files")
    return Check("tracefs", True, f"{mount.point} (not needed: raw tracepoints have no files)")


def check_pagemap() -> Check:
    """Judge /proc/PID/pagemap, on ourselves."""
    try:
        os.close(os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return Check(
            "pagemap",
            False,
            f"/proc/self/pagemap: {error.strerror}: residency only per mapping, from smaps",
            "run as root",
        )
    if len(zero_frames()) == 0:
        return Check("pagemap", True, "readable; page frame numbers are hidden without CAP_SYS_ADMIN")
    return Check("pagemap", True, "readable, with page frame numbers")


def check_pagemap_scan() -> Check:
    """Judge the PAGEMAP_SCAN ioctl, on a page of ours that is certainly resident."""
    page = os.sysconf("SC_PAGESIZE")
    probe = np.ones(2 * page, dtype=np.uint8)
    start = -(-probe.ctypes.data // page) * page
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found, _ = scan(fd, start, start + page)
        finally:
            os.close(fd)
    except OSError as error:
        return Check(
            "PAGEMAP_SCAN", None, f"{error.strerror}: pagemap is read page by page instead", "needs Linux 6.7 or later"
        )
    works = found.bytes == page
    return Check("PAGEMAP_SCAN", works, "works" if works else "does not see a page that is resident")


def check_yama(scope: str | None, capabilities: int) -> Check:
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
    if scope == "0" or "CAP_SYS_PTRACE" in capability_names(capabilities):
        return Check("Yama", True, detail)
    return Check("Yama", False, f"{detail}: only our own children may be read", "needs CAP_SYS_PTRACE (run as root)")


def check_perf_paranoid(level: str | None, capabilities: int) -> Check:
    """Judge kernel.perf_event_paranoid, which those with CAP_PERFMON pass; "" means that /proc does not tell."""
    if level == "":
        return Check("perf events", None, _UNKNOWN)
    if level is None:
        return Check("perf events", False, "this kernel has none", "needs CONFIG_PERF_EVENTS")
    detail = f"kernel.perf_event_paranoid = {level}"
    privileged = {"CAP_PERFMON", "CAP_SYS_ADMIN"} & set(capability_names(capabilities))
    free = level.lstrip("-").isdigit() and int(level) <= _PERF_EVENTS_FREE
    if privileged or free:
        return Check("perf events", True, detail)
    return Check("perf events", False, detail, "needs CAP_PERFMON (run as root)")


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


def check_strace() -> Check:
    """Judge the strace in PATH, the backend for machines without BPF."""
    path = shutil.which("strace")
    if path is None:
        return Check("strace", None, "not installed (only needed without BPF)", "apt-get install strace")
    try:
        run = subprocess.run([path, "-V"], capture_output=True, timeout=5, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("strace", False, f"{path}: {error}")
    return judge_strace(path, run.stdout.decode("utf-8", errors="replace"))


def judge_strace(path: str, version_text: str) -> Check:
    """Judge strace by what `strace -V` prints."""
    found = re.search(r"version (\d{1,5})\.(\d{1,5})", version_text)
    if not found:
        return Check("strace", False, f"{path}: prints no version", "apt-get install strace")
    return Check("strace", True, f"{path} {found[1]}.{found[2]} (stops the target at every system call)")


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
