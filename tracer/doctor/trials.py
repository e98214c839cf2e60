"""What `gomem doctor` tries upon processes: each check does what the commands do, and tells what they would tell.

The processes are made for it: one of our own user and, if we may, one of another. They run `cat`, which waits for
input that never comes and ends with us. Where no process of another user can be made, one that is there has its
files opened, and nothing is read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted
from gomem.tracer.events.strace.source import StraceSource
from gomem.tracer.kernel.cgroup import read_memory_cgroup
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.kernel.pagemap import read_residency
from gomem.tracer.kernel.process_events import ProcessEvents
from gomem.tracer.machine.checks import Check, tried
from gomem.tracer.machine.rights import remedy_for
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.process.resuming import own_children_resume
from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.freeze import Freeze

OWN, MAPS, MEMORY, RESIDENCY = "own processes", "others' maps", "others' memory", "others' residency"
FREEZE, STRACE, EVENTS, CGROUP = "--freeze", "strace", "process events", "memory cgroup figures"
_OTHERS = (65534, 65533)  # user ids, of which one is not ours
_CHUNK = 16  # bytes of memory that are read: of an ELF header


@dataclass(frozen=True, slots=True)
class Subjects:
    """The pids that things are tried upon; None where there is none. `made`: whether the other's is ours to stop."""

    own: int | None
    others: int | None
    made: bool

    @property
    def any(self) -> int | None:
        """The one that may be stopped and probed: another user's if there is one."""
        return self.others if self.made else self.own


@contextmanager
def subjects() -> Iterator[Subjects]:
    """Make the processes to try things upon; they end with the block."""
    with ExitStack() as stack:
        mine = _made(stack, None)
        user = next(number for number in _OTHERS if number != os.geteuid())
        others = _made(stack, user) if mine is not None else None
        yield Subjects(mine, others if others is not None else _somebody_elses(), others is not None)


def _made(stack: ExitStack, user: int | None) -> int | None:
    program = shutil.which("cat")
    if program is None:
        return None
    rights = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    try:
        process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}, cwd="/",
            **rights,  # type: ignore[call-overload]
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    stack.callback(process.wait)
    stack.callback(process.kill)
    return int(process.pid)


def _somebody_elses() -> int | None:
    """Return a process of another user that has memory, None without any that /proc shows."""
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid != os.geteuid():
                with open(f"/proc/{name}/status", "rb") as file:
                    if b"VmSize:" in file.read(1 << 16):
                        return int(name)
        except OSError:
            continue
    return None


def process_checks(found: Subjects) -> list[Check]:
    """Try what concerns single processes; some 0.3 s, never raises."""
    return [
        _own(found.own),
        *_others(found),
        _freeze(found.any),
        _strace(found.any),
        _cgroup(found.own),
        _process_events(),
    ]


def _own(pid: int | None) -> Check:
    if pid is None:
        return _untried(OWN)
    return tried(OWN, lambda: f"maps, memory and residency ({_read_all(pid)})")


def _read_all(pid: int) -> str:
    """Read a process as a snapshot does; return the method of residency."""
    with Target.open(pid) as target, ProcessMemory(pid) as memory:
        mappings = read_mappings(target).mappings
        memory.read(int(mappings.start[0]), _CHUNK)
        return _residency(target)


def _residency(target: Target) -> str:
    found = read_residency(target, read_mappings(target).mappings)
    if found.denied:
        raise NotPermitted("pagemap may not be read: only sums per mapping", remedy_for(target.pid, "pagemap"))
    words = {"pagemap_scan": "PAGEMAP_SCAN", "pagemap": "pagemap, page by page", "smaps": "smaps: sums per mapping"}
    return words[found.method] + ("" if found.exact else ", without telling zero pages")


def _others(found: Subjects) -> list[Check]:
    pid = found.others
    if pid is None:
        why = "no process of another user is here, and gomem may make none"
        return [_untried(name, why) for name in (MAPS, MEMORY, RESIDENCY)]
    if not found.made:
        return [_opened(name, pid, file) for name, file in ((MAPS, "maps"), (MEMORY, "mem"), (RESIDENCY, "pagemap"))]

    def maps() -> str:
        with Target.open(pid) as target:
            return f"executable and {len(read_mappings(target).mappings)} mappings of a process of another user"

    def memory() -> str:
        with ProcessMemory(pid) as source, open(f"/proc/{pid}/maps", "rb") as file:
            return f"read {len(source.read(int(file.readline().partition(b'-')[0], 16), _CHUNK))} bytes of it"

    def residency() -> str:
        with Target.open(pid) as target:
            return _residency(target)

    return [tried(MAPS, maps), tried(MEMORY, memory), tried(RESIDENCY, residency)]


def _opened(name: str, pid: int, file: str) -> Check:
    """Try to open a file of a process that is not ours, and to read nothing of it: that could last."""
    try:
        os.close(os.open(f"/proc/{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError as error:
        return Check(name, False, f"/proc/{pid}/{file}: {error.strerror}", remedy_for(pid, file))
    except OSError as error:
        return Check(name, None, f"/proc/{pid}/{file}: {error.strerror}")
    return Check(name, True, f"/proc/{pid}/{file} of another user's process can be opened")


def _freeze(pid: int | None) -> Check:
    if pid is None:
        return _untried(FREEZE)

    def freeze() -> str:
        with Target.open(pid) as target, Freeze(target, filtered=own_children_resume()) as held:
            return f"ptrace stops a process ({held.threads} thread), which then runs on"

    return tried(FREEZE, freeze)


def _strace(pid: int | None) -> Check:
    path = shutil.which("strace")
    if path is None:
        return Check(STRACE, None, "not installed (only needed without BPF)", "apt-get install strace")
    if pid is None:
        return _untried(STRACE)

    def trace() -> str:
        source = StraceSource(pid)
        try:
            source.start()
        finally:
            source.stop()
        return f"{path} attaches (it stops the target at every system call)"

    return tried(STRACE, trace)


def _cgroup(pid: int | None) -> Check:
    if pid is None:
        return _untried(CGROUP)
    try:
        with Target.open(pid) as target:
            found = read_memory_cgroup(target)
    except (GomemError, OSError) as error:
        return Check(CGROUP, None, str(error).splitlines()[0])
    if found is None or found.cgroup.path == "/":
        return Check(CGROUP, None, "none: the root of the hierarchy counts nothing")
    if found.cgroup.memory_current is None:
        fix = "run gomem in the host's cgroup namespace, with its /sys/fs/cgroup"
        return Check(CGROUP, None, f"none of {found.cgroup.path}", fix)
    return Check(CGROUP, True, f"{found.charged} has {found.cgroup.memory_current >> 20} MiB")


def _process_events() -> Check:
    try:
        ProcessEvents.open().close()
    except BackendUnavailable as error:
        return Check(EVENTS, None, error.what, error.fix)
    return Check(EVENTS, True, "the kernel tells of new processes (gomem serve)")


def _untried(name: str, why: str = "there is no program `cat` to try it upon") -> Check:
    return Check(name, None, f"not tried: {why}")
