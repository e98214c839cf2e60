"""What gomem may do: the capabilities that each of its tasks needs, and letting go of all others.

Measured on Linux 6.18 with one capability taken away at a time (docs/security.md has the table). Capabilities belong
to threads: a thread starts with those of the thread that made it and keeps them when that one lets go of its own. So
`drop` comes before any thread is started, and checks that no thread has more than it should.

Sources: capabilities(7), prctl(2), core(5), include/uapi/linux/capability.h and securebits.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
from enum import Enum
from pathlib import Path

from msgspec import Struct

from gomem.tracer.errors import GomemError
from gomem.tracer.machine.capabilities import CAPABILITIES, capability_names, capability_number
from gomem.tracer.proc.small_files import parse_status

# include/uapi/linux/capability.h: _LINUX_CAPABILITY_VERSION_3 speaks of 64 capabilities in two words each.
_VERSION_3 = 0x20080522
_WORD = 0xFFFFFFFF
# include/uapi/linux/prctl.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
# include/uapi/linux/securebits.h, each with its lock: NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE
_SECUREBITS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7
# core(5): a program that core dumps are piped to gets one even at 0 bytes; at 1 there is none of either kind.
_NO_CORE = 1

_LIBC = ctypes.CDLL(None, use_errno=True)


class PrivilegeError(GomemError):
    """A privilege could not be given up."""


class Task(Enum):
    """What is still to be done, and the capabilities without which the kernel refuses it.

    Each is needed for processes of other users; to look at processes of the same user with no capability that we have
    not, none is.
    """

    # ptrace_may_access(), and the modes of /proc/PID/mem and pagemap, which belong to the target's user
    LOOK = frozenset({"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"})
    # Loading BPF programs and opening raw tracepoints. Once they are loaded, maps, ring buffers and further
    # uprobe_multi links need only their file descriptors (bpf_uprobe_multi_link_attach of kernel/trace/bpf_trace.c)
    LOAD_PROGRAMS = frozenset({"CAP_BPF", "CAP_PERFMON"})
    # Each further uprobe where it takes a perf event, before Linux 6.6
    ATTACH_BY_PERF_EVENTS = frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"})
    # Binding the process connector's socket; once bound it needs nothing
    LISTEN_TO_PROCESSES = frozenset({"CAP_NET_ADMIN"})
    # Binding ports below 1024; once bound they need nothing
    BIND_LOW_PORT = frozenset({"CAP_NET_BIND_SERVICE"})


def needed_for(*tasks: Task) -> frozenset[str]:
    """Return the names ("CAP_BPF") of the capabilities that the tasks need together."""
    return frozenset().union(*(task.value for task in tasks))


class Held(Struct, frozen=True):
    """The capabilities of one thread, by name."""

    thread: int
    permitted: frozenset[str]
    effective: frozenset[str]
    bounding: frozenset[str]


def held(thread: int | None = None) -> Held:
    """Return what a thread of this process has now; by default the calling one."""
    number = thread if thread is not None else _own_thread()
    text = Path(f"/proc/self/task/{number}/status").read_bytes()
    masks = {
        name.decode(): int(value, 16)
        for name, _, value in (line.partition(b":") for line in text.splitlines())
        if name.startswith(b"Cap")
    }
    effective = parse_status(text).cap_effective or 0
    names = (frozenset(capability_names(mask)) for mask in (masks["CapPrm"], effective, masks["CapBnd"]))
    return Held(number, *names)


def drop(keep: frozenset[str]) -> None:
    """Let go for good of every capability but those in `keep` that we have; call it before threads are started.

    Nothing that is executed afterwards has any. Raises PrivilegeError if this thread could not, or if another thread
    of this process has more than `keep` (its own are beyond our reach).
    """
    unknown = sorted(name for name in keep if name not in _known())
    if unknown:
        raise ValueError(f"no capabilities: {', '.join(unknown)}")
    remaining = held().permitted & keep
    # The order matters: the first two need CAP_SETPCAP, which goes with the third.
    _bound(keep)
    _lock_securebits()
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, tolerate=errno.EINVAL)
    _set_capabilities(remaining)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _check(keep)


def drop_here() -> None:
    """Give up all capabilities in the calling thread; the others keep theirs. Raises PrivilegeError."""
    _set_capabilities(frozenset())


def limit_resources(open_files: int) -> None:
    """Leave no core dump, which would hold what was read from targets, and allow `open_files` as far as we may."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE, _NO_CORE))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_files if hard == resource.RLIM_INFINITY else min(open_files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _known() -> set[str]:
    return {f"CAP_{name}" for name in CAPABILITIES}


def _own_thread() -> int:
    return int(os.readlink("/proc/thread-self").rpartition("/")[2])


def _bound(keep: frozenset[str]) -> None:
    """Take the others out of the bounding set. Without CAP_SETPCAP it stays, and no_new_privs must do."""
    for number in range(64):
        present = _LIBC.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)
        if present < 0:
            return  # beyond the last that this kernel knows
        name = f"CAP_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else ""
        if present and name not in keep:
            _prctl(_PR_CAPBSET_DROP, number, tolerate=errno.EPERM)


def _lock_securebits() -> None:
    """Give user id 0 no meaning of its own in whatever is executed. Needs CAP_SETPCAP; without it, as above."""
    _prctl(_PR_SET_SECUREBITS, _SECUREBITS, tolerate=errno.EPERM)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _set_capabilities(names: frozenset[str]) -> None:
    mask = sum(1 << capability_number(name) for name in names)
    words = (_Words * 2)(_Words(mask & _WORD, mask & _WORD, 0), _Words(mask >> 32, mask >> 32, 0))
    if _LIBC.capset(ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(words)) != 0:
        raise _refused("capset", ctypes.get_errno())


def _prctl(option: int, argument: int, tolerate: int = 0) -> None:
    words = [ctypes.c_ulong(word) for word in (argument, 0, 0, 0)]
    if _LIBC.prctl(option, *words) != 0 and ctypes.get_errno() != tolerate:
        raise _refused(f"prctl {option}", ctypes.get_errno())


def _refused(call: str, number: int) -> PrivilegeError:
    return PrivilegeError(
        f"cannot give up privileges: {call}: {os.strerror(number).lower()}", "a seccomp profile may forbid it"
    )


def _check(keep: frozenset[str]) -> None:
    for entry in os.listdir("/proc/self/task"):
        try:
            found = held(int(entry))
        except OSError:
            continue  # it ended meanwhile
        more = found.permitted - keep
        if more:
            raise PrivilegeError(
                f"thread {entry} of gomem still has {', '.join(sorted(more))}",
                "it was started before privileges were given up: this is a bug of gomem, please report it",
            )
