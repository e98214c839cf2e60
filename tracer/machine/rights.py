"""Why the kernel refused something: what of the rights that it takes was found to be missing, and what gives them.

Whoever is refused asks here, `gomem doctor` as well, so that no text names a capability that is there, or calls a
kernel too old that is not. The answers are pure functions of `Own` and `Theirs`, which `own` and `theirs` read.

Sources: capabilities(7), user_namespaces(7); kernel/ptrace.c (__ptrace_may_access), security/commoncap.c
(cap_ptrace_access_check), security/yama/yama_lsm.c, fs/proc/base.c (proc_pid_permission, task_dump_owner),
kernel/events/core.c (perf_uprobe_event_init), drivers/connector/cn_proc.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from msgspec import Struct

from gomem.tracer.machine.capabilities import capability_names, capability_number
from gomem.tracer.proc.mounts import parse_mountinfo
from gomem.tracer.proc.small_files import colon_fields, decimal

Release = tuple[int, int]

INITIAL_NAMESPACES = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC}  # include/linux/proc_ns.h: their inodes
_INITIAL_USER_NAMESPACE = f"user:[{INITIAL_NAMESPACES['user']}]"
_SECCOMP_FILTER = "2"
_COUNTS_NO_BPF = (5, 11)  # the first Linux in which BPF's memory is the cgroup's, not a user's locked memory
# Harmless calls, and what they answer where no filter forbids them: an unknown command, a bad address, no such task.
_HARMLESS = {
    "x86_64": {
        "bpf": (321, (9999, 0, 0)),
        "perf_event_open": (298, (0, 0, -1, -1, 0)),
        "ptrace": (101, (9999, 0, 0, 0)),
    }
}
_ADMIN = "CAP_SYS_ADMIN"
_PTRACE = "CAP_SYS_PTRACE"
_READ_SEARCH, _OVERRIDE = "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"


class Right(Enum):
    """What the kernel may refuse to anybody: (what it is called, alternatives of capabilities, system calls).

    Of each tuple of capabilities one is enough, in the initial user namespace; the first is the one to ask for.
    """

    BPF = ("BPF", (("CAP_BPF", _ADMIN), ("CAP_PERFMON", _ADMIN)), ("bpf",))
    PERF_UPROBES = ("perf-event uprobes", ((_ADMIN,),), ("perf_event_open",))
    PERF_TRACEPOINTS = ("tracepoints as perf events", (("CAP_PERFMON", _ADMIN),), ("perf_event_open",))
    MOUNT = ("mounting", ((_ADMIN,),), ())
    PAGE_FRAMES = ("page frame numbers", ((_ADMIN,),), ())
    PROCESS_EVENTS = ("process events", (("CAP_NET_ADMIN",),), ())


class Own(Struct, frozen=True):
    """What this process may do, and where it is. An empty string is what /proc does not tell."""

    uid: int  # effective, as gid
    gid: int
    effective: frozenset[str]
    bounding: frozenset[str]
    user_namespace: str = _INITIAL_USER_NAMESPACE
    release: Release = (0, 0)
    last_capability: int = 40  # the highest that this kernel knows
    ptrace_scope: str = ""  # of Yama
    lockdown: str = ""
    hidepid: str = ""  # the option of our /proc, "hidepid=2"; "" where it hides nothing
    locked: int | None = None  # bytes of memory that it may lock; None: any number
    filtered: frozenset[str] = frozenset()  # system calls that a seccomp filter refuses whatever they ask for

    @property
    def is_nested(self) -> bool:
        """Whether it runs in a user namespace in which capabilities do not count for what is the machine's."""
        return self.user_namespace not in ("", _INITIAL_USER_NAMESPACE)


class Theirs(Struct, frozen=True):
    """What decides who may look into a process. None or "" is what could not be read."""

    uids: tuple[int, ...] = ()  # real, effective, saved
    gids: tuple[int, ...] = ()
    permitted: frozenset[str] = frozenset()
    user_namespace: str = ""
    owner: int | None = None  # of the file that was refused, if its mode is for its owner alone


def remedy(right: Right, me: Own | None = None) -> str:
    """Return what was found to be missing for a right that the kernel refused, and what gives it."""
    _, alternatives, calls = right.value
    me = me or own(calls)
    if right is Right.PROCESS_EVENTS and me.release >= (6, 6):
        alternatives = ()
    lacking = [_to_ask_for(group, me) for group in alternatives if not me.effective.intersection(group)]
    found = [_lacks(lacking, me)] if lacking else []
    if me.is_nested:
        found.append(_nested(me))
    if right is Right.BPF and me.lockdown == "confidentiality":
        found.append("the kernel is locked down (confidentiality): boot with lockdown=integrity or none")
    if right is Right.BPF and me.locked is not None and (0, 0) < me.release < _COUNTS_NO_BPF and not found:
        found.append(
            f"before Linux 5.11 BPF takes locked memory, of which gomem may have {me.locked >> 10} KiB: "
            "ulimit -l unlimited, LimitMEMLOCK=infinity, or CAP_SYS_RESOURCE"
        )
    return "; ".join(found) or _filter(calls, me) or _nothing_found(alternatives, me)


def remedy_for(pid: int, file: str = "", *, me: Own | None = None) -> str:
    """Return what is missing to look into a process that the kernel refused; `file`: the file of /proc/PID, if any.

    Without a file it is ptrace(2) that was refused.
    """
    return judged(theirs(pid, file), me or own(() if file else ("ptrace",)), attach=file in ("", "mem"))


def judged(them: Theirs, me: Own, *, attach: bool) -> str:
    """Return what `me` lacks to look into `them`, and what gives it. Pure."""
    by_mode = them.owner is not None and them.owner != me.uid and not me.effective & {_READ_SEARCH, _OVERRIDE}
    lacking = [_READ_SEARCH] if by_mode else []
    yama = attach and me.ptrace_scope in ("1", "2")
    others = _is_another_users(them, me)
    if _PTRACE not in me.effective and (others or yama or not by_mode):
        lacking.insert(0, _PTRACE)
    found = [_lacks(lacking, me)] if lacking else []
    if yama and not others and _PTRACE in lacking:
        found.append(f"kernel.yama.ptrace_scope is {me.ptrace_scope}, so that without it only children can be read")
    if attach and me.ptrace_scope == "3":
        found.append("kernel.yama.ptrace_scope is 3: set it to 2 or less in /etc/sysctl.d and reboot")
    if me.is_nested and them.user_namespace != me.user_namespace:
        found.append(f"{_namespace(me)}, and the process is not: run gomem outside of it (no rootless container)")
    needed = ((_PTRACE,), (_READ_SEARCH, _OVERRIDE))
    return "; ".join(found) or _filter(("ptrace",), me) or _nothing_found(needed if them.owner else needed[:1], me)


def remedy_for_file(me: Own | None = None) -> str:
    """Return what is missing to read a file whose mode, or that of a directory on its way, forbids it."""
    me = me or own()
    if not me.effective & {_READ_SEARCH, _OVERRIDE}:
        return f"its mode forbids it to user {me.uid}; {_lacks([_READ_SEARCH], me)}"
    return f"{_namespace(me)}, and the file's user is not in it" if me.is_nested else _nothing_found((), me)


def newer_kernel(since: Release, option: str = "", me: Own | None = None) -> str:
    """Return what a kernel needs that lacks something it should have `since` a release, if built with an `option`."""
    release = (me or own()).release
    wanted = f"needs Linux {since[0]}.{since[1]}"
    if release >= since:
        return f"this kernel is built without it{f' ({option})' if option else ''}"
    return f"{wanted}{f' with {option}' if option else ''}; this is {release[0]}.{release[1]}"


def hidden_by_proc(me: Own | None = None) -> str:
    """Return what is missing to see processes that /proc hides; "" where it hides none from us."""
    me = me or own()
    if not me.hidepid or _PTRACE in me.effective:
        return ""
    return f"/proc is mounted with {me.hidepid}; {_lacks([_PTRACE], me)}, or in the group of the mount's gid= option"


def grant(names: Sequence[str], me: Own | None = None) -> str:
    """Return how this process would get capabilities that it lacks."""
    me = me or own()
    short = ", ".join(name.removeprefix("CAP_") for name in names)
    if not me.bounding.issuperset(names):
        what = "it" if len(names) == 1 else "them"
        return f"add {what} to what gomem's container or service may have (in a pod: capabilities.add: [{short}])"
    return "run it as root" if me.uid else f"start it with {'that' if len(names) == 1 else 'them'}"


def _lacks(names: Sequence[str], me: Own) -> str:
    return f"gomem lacks {' and '.join(names)}: {grant(names, me)}"


def _to_ask_for(group: Iterable[str], me: Own) -> str:
    """Return the first of the capabilities that this kernel knows."""
    return next(name for name in group if capability_number(name) <= me.last_capability)


def _namespace(me: Own) -> str:
    return f"gomem runs in the user namespace {me.user_namespace}"


def _nested(me: Own) -> str:
    return f"{_namespace(me)}, where its capabilities do not count for this: run it outside (no rootless container)"


def _filter(calls: Iterable[str], me: Own) -> str:
    refused = [call for call in calls if call in me.filtered]
    return f"a seccomp filter forbids {' and '.join(refused)}: allow it in gomem's profile" if refused else ""


def _nothing_found(alternatives: Iterable[Sequence[str]], me: Own) -> str:
    held = [next(iter(sorted(me.effective.intersection(group))), "") for group in alternatives]
    having = f"gomem has {' and '.join(dict.fromkeys(filter(None, held)))}" if any(held) else "no capability is missing"
    return f"{having}: a security module (AppArmor, SELinux) may refuse it"


def _is_another_users(them: Theirs, me: Own) -> bool:
    """Tell whether ptrace_may_access() takes a capability beyond Yama: who it is, and what it could do for us."""
    return (
        any(uid != me.uid for uid in them.uids)
        or any(gid != me.gid for gid in them.gids)
        or not me.effective >= them.permitted
        or (them.owner is not None and them.owner not in them.uids)  # not dumpable
    )


def own(refused: Sequence[str] = ()) -> Own:
    """Read what this process may do; some 0.2 ms. Never raises.

    `refused`: system calls that the kernel has just answered with an error, so that no filter kills us for them.
    """
    status = colon_fields(_bytes("/proc/self/status"))
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return Own(
        uid=os.geteuid(),
        gid=os.getegid(),
        effective=_capabilities(status, "CapEff"),
        bounding=_capabilities(status, "CapBnd"),
        user_namespace=_link("/proc/self/ns/user"),
        release=_release(os.uname().release),
        last_capability=decimal(_text("/proc/sys/kernel/cap_last_cap")) or 40,
        ptrace_scope=_text("/proc/sys/kernel/yama/ptrace_scope"),
        lockdown=lockdown_mode(_text("/sys/kernel/security/lockdown")),
        hidepid=hidepid(_text("/proc/self/mountinfo")),
        locked=None if locked == resource.RLIM_INFINITY else locked,
        filtered=_filtered(refused) if status.get("Seccomp") == _SECCOMP_FILTER else frozenset(),
    )


def theirs(pid: int, file: str = "") -> Theirs:
    """Read what decides who may look into a process. Never raises."""
    status = colon_fields(_bytes(f"/proc/{pid}/status"))
    owner = None
    if file in ("mem", "pagemap"):
        try:
            owner = os.stat(f"/proc/{pid}/{file}").st_uid
        except OSError:
            owner = None
    return Theirs(
        uids=_numbers(status, "Uid"),
        gids=_numbers(status, "Gid"),
        permitted=_capabilities(status, "CapPrm"),
        user_namespace=_link(f"/proc/{pid}/ns/user"),
        owner=owner,
    )


def lockdown_mode(text: str) -> str:
    """Return the mode that is in force, of "none [integrity] confidentiality"; "" for none."""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else ""


def hidepid(mountinfo: str) -> str:
    """Return the option by which what lies on top at /proc hides processes, "" where it hides none."""
    proc = [mount for mount in parse_mountinfo(mountinfo) if mount.point == "/proc"][-1:]
    options = [option for mount in proc for option in (*mount.options, *mount.super_options)]
    hidden = next((option for option in options if option.startswith("hidepid=")), "")
    return "" if hidden in ("hidepid=0", "hidepid=off") else hidden


def _release(text: str) -> Release:
    found = re.match(r"(\d{1,5})\.(\d{1,5})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _capabilities(status: dict[str, str], name: str) -> frozenset[str]:
    try:
        return frozenset(capability_names(int(status.get(name, "0"), 16)))
    except ValueError:
        return frozenset()


def _numbers(status: dict[str, str], name: str) -> tuple[int, ...]:
    words = status.get(name, "").split()[:3]
    return tuple(number for word in words if (number := decimal(word)) is not None)


def _filtered(calls: Iterable[str]) -> frozenset[str]:
    """Return which system calls a seccomp filter refuses: they say EPERM or ENOSYS to what is merely wrong."""
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    refused = set()
    known = _HARMLESS.get(platform.machine(), {})
    for name, (number, arguments) in ((call, known[call]) for call in calls if call in known):
        ctypes.set_errno(0)
        done = library.syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in arguments))
        if done < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
            refused.add(name)
    return frozenset(refused)


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _text(path: str) -> str:
    return _bytes(path).decode("utf-8", errors="replace").strip()


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
