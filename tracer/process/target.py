"""The target: one process, held so that nothing else can be taken for it.

A Target is identified by pid and start time. It keeps an fd on /proc/PID, which stays bound to the process
and not to the number, and reads everything through it: once the process is gone those reads fail, whoever
has its pid by then.
"""

from __future__ import annotations

import errno
import os
import select
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType

from msgspec import Struct

from gomem.tracer.errors import GomemError, NotPermitted, TargetError, TargetExecuted, TargetGone
from gomem.tracer.machine.rights import INITIAL_NAMESPACES, hidden_by_proc, remedy_for
from gomem.tracer.proc.cgroup_paths import first_found
from gomem.tracer.proc.mounts import MOUNT_PROCFS, NO_PROCFS, has_procfs
from gomem.tracer.proc.small_files import Stat, Status, parse_stat, parse_status, printable
from gomem.tracer.proc.unasked import CACHED, IN_ROOT, NO_MAGICLINKS, FileStatus, open_cached, status_of
from gomem.tracer.process.proc_directory import SMALL, ProcDirectory, read_at
from gomem.tracer.report import ProcessFacts

_DELETED = " (deleted)"
_GONE = (errno.ESRCH, errno.ENOENT)
_REFUSED = (errno.EACCES, errno.EPERM)
_EXECS_WITHIN = 1.0  # seconds


class ExeIdentity(Struct, frozen=True):
    """The file that the process executes, and the stack it began on: an execve changes at least one."""

    device: int
    inode: int
    mtime_ns: int
    start_stack: int


class Target(ProcDirectory):
    """A live user process. Use `Target.open`; close it, or use it in a `with`."""

    def __init__(self, pid: int, directory: int, pidfd: int | None, stat: Stat) -> None:
        super().__init__(pid, directory)
        self.start_ticks = stat.start_ticks  # clock ticks after boot, field 22 of /proc/PID/stat
        self.comm = stat.comm
        self._pidfd = pidfd
        self._exe_identity: ExeIdentity | None = None

    @classmethod
    def open(cls, pid: int, start_ticks: int | None = None) -> Target:
        """Open the process `pid`; with `start_ticks`, only if it is the one that started then.

        Raises TargetGone (no such process, a zombie, or another start time), TargetError (a thread's id, a
        kernel thread) and NotPermitted (the kernel does not let us read its memory maps).
        """
        directory = _open_proc(pid)
        target: Target | None = None
        try:
            raw, _ = read_at(directory, "stat", SMALL)
            target = cls(pid, directory, _open_pidfd(pid), parse_stat(raw))
            target._check_suitable(start_ticks)
            return target
        except BaseException as error:
            if target is not None:
                target.close()
            else:
                os.close(directory)
            if isinstance(error, OSError) and error.errno in _GONE:
                raise no_such_process(pid) from None
            raise

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Target(pid={self.pid}, start_ticks={self.start_ticks}, comm={self.comm!r})"

    def close(self) -> None:
        """Let go of the process. Idempotent; nothing can be read afterwards."""
        for fd in (self._directory, self._pidfd):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._directory = -1
        self._pidfd = None

    def explain(self, error: OSError, name: str) -> Exception:
        """Turn a failed access to /proc/PID/`name` into the error that says what to do.

        FileNotFoundError stays what it is when the process lives: this kernel has no such file.
        """
        if error.errno in _REFUSED:
            return self._not_permitted(name)
        if error.errno in _GONE:
            try:
                self.check_alive()
            except GomemError as gone:
                return gone
        if error.errno == errno.ENOENT:
            # One that is killed has no program any more a moment before it is a zombie.
            return no_such_process(self.pid) if name == "exe" else error
        return TargetError(f"cannot read /proc/{self.pid}/{name} of {self._described()}: {error.strerror}")

    # Life and identity

    def stat(self) -> Stat:
        """Return what /proc/PID/stat says now. Raises TargetGone once the process was reaped."""
        try:
            return parse_stat(read_at(self._directory, "stat", SMALL)[0])
        except OSError as error:
            if error.errno in _GONE:
                raise self._gone() from None
            raise TargetError(f"cannot read /proc/{self.pid}/stat: {error.strerror}") from None

    def status(self) -> Status:
        """Return what /proc/PID/status says now."""
        return parse_status(self.read("status"))

    def check_alive(self) -> None:
        """Raise TargetGone if the process exited, is a zombie, or is not the one that was opened."""
        if self._pidfd is not None and _is_readable(self._pidfd):
            raise self._gone()
        now = self.stat()
        if now.is_dead:
            raise self._zombie(now)
        if now.start_ticks != self.start_ticks:
            raise self._replaced()

    def check_same_program(self) -> None:
        """Raise TargetGone if the process is gone, TargetExecuted if it has executed another program since."""
        self.check_alive()
        if self._exe_identity != self._read_exe_identity():
            self._check_not_ending()
            raise TargetExecuted(
                f"process {self.pid} executed another program: it was {self.exe}, it is {self._exe_now()} now",
                "run gomem again to trace the new program",
            )

    @property
    def exe_identity(self) -> ExeIdentity:
        """The program as it was when the target was opened."""
        assert self._exe_identity is not None
        return self._exe_identity

    # Facts

    @property
    def exe_file(self) -> str:
        """A path that opens the executable whatever became of its name or mount namespace."""
        return f"/proc/{self.pid}/exe"

    @cached_property
    def exe(self) -> str:
        """The path of the executable in the target's mount namespace, without the kernel's " (deleted)"."""
        link = self.readlink("exe")
        if not link.endswith(_DELETED):
            return link
        named, running = self._named(link), self.stat_file("exe")
        if named and (named.st_dev, named.st_ino) == (running.st_dev, running.st_ino):
            return link
        return link.removesuffix(_DELETED)

    def _named(self, path: str) -> FileStatus | None:
        """Return what stands under a name of the target's, which leads to a file that is in use, so cached; else None.

        A file may really be called "x (deleted)".
        """
        try:
            root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError:
            return None
        try:
            found = open_cached(root, path, os.O_PATH, IN_ROOT | NO_MAGICLINKS | CACHED)
        except (OSError, ValueError):
            return None
        finally:
            os.close(root)
        try:
            return status_of(found)
        finally:
            os.close(found)

    @cached_property
    def cmdline(self) -> list[str]:
        """The arguments, the first 64 KB of them; empty for a process that wiped them."""
        raw = self.read("cmdline")
        return [printable(word) for word in raw.removesuffix(b"\0").split(b"\0")] if raw else []

    @cached_property
    def ns_pid(self) -> int:
        """The pid that the process has in its own (innermost) PID namespace."""
        return next(reversed(self.status().ns_pids), self.pid)

    @property
    def threads(self) -> int:
        """How many threads it has now."""
        return self.stat().threads

    @cached_property
    def uid(self) -> int | None:
        """The real user id, as our user namespace numbers it."""
        return self.status().uid

    @cached_property
    def user_namespace(self) -> str:
        """The user namespace as the kernel names it, "user:[4026531837]"."""
        return self.readlink("ns/user")

    @cached_property
    def start_time(self) -> str:
        """When it started, RFC 3339 in UTC, to the second.

        The kernel's boot time plus ticks since boot: the same text however often it is asked, unless somebody
        sets the clock.
        """
        seconds = _boot_time() + self.start_ticks // os.sysconf("SC_CLK_TCK")
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")

    @cached_property
    def container_id(self) -> str | None:
        """The id of the container that it runs in, or None."""
        return self._container_and_pod[0]

    @cached_property
    def pod(self) -> str | None:
        """The uid of the Kubernetes pod that it runs in, or None."""
        return self._container_and_pod[1]

    @cached_property
    def _container_and_pod(self) -> tuple[str | None, str | None]:
        lines = printable(self.read("cgroup")).splitlines()
        return first_found(line.split(":", 2)[2] for line in lines if line.count(":") >= 2)

    def facts(self) -> ProcessFacts:
        """Return who the target is, for the report; what only the executable knows is left None."""
        return ProcessFacts(
            pid=self.pid,
            ns_pid=self.ns_pid,
            start_time=self.start_time,
            exe=self.exe,
            cmdline=self.cmdline,
            container_id=self.container_id,
            pod=self.pod,
        )

    # The ways it can fail

    def _check_suitable(self, start_ticks: int | None) -> None:
        now = self.stat()
        if start_ticks is not None and now.start_ticks != start_ticks:
            self.start_ticks = start_ticks
            raise self._replaced()
        if now.is_kernel_thread:
            raise TargetError(
                f"process {self.pid} ({self.comm}) is a kernel thread: it has no executable and no memory of its own",
                "give the pid of a user process",
            )
        tgid = self.status().tgid
        if tgid is not None and tgid != self.pid:
            raise TargetError(
                f"{self.pid} is a thread ({self.comm}) of process {tgid}, not a process", f"use --pid {tgid}"
            )
        if now.is_dead:
            raise self._zombie(now)
        self._await_end_of_exec()
        self._exe_identity = self._read_exe_identity()
        self.read("maps", 1)

    def _await_end_of_exec(self) -> None:
        """Wait, not for ever, while the process is in an execve: it has the new executable, and not its stack yet.

        Whoever started it may know of it by then. The kernel sets both addresses at the end (fs/binfmt_elf.c:
        load_elf_binary), the stack's right after the code's.
        """
        deadline = time.monotonic() + _EXECS_WITHIN
        while not (now := self.stat()).start_code and not now.is_dead and time.monotonic() < deadline:
            time.sleep(0.001)

    def _read_exe_identity(self) -> ExeIdentity:
        try:
            exe = self.stat_file("exe")
        except FileNotFoundError:
            self._check_not_ending()
            raise TargetError(f"process {self.pid} ({self.comm}) has no executable") from None
        return ExeIdentity(exe.st_dev, exe.st_ino, exe.st_mtime_ns, self.stat().start_stack)

    def _exe_now(self) -> str:
        try:
            return self.readlink("exe")
        except FileNotFoundError:
            return "another one"

    def _check_not_ending(self) -> None:
        """Raise TargetGone if the process is about to end: it has let go of its memory and its executable."""
        if self.stat().is_ending:
            raise self._gone()

    def _described(self) -> str:
        try:
            return f"process {self.pid} ({printable(os.readlink(b'exe', dir_fd=self._directory))})"
        except OSError:
            return f"process {self.pid} ({self.comm})"

    def _not_permitted(self, name: str) -> NotPermitted:
        return NotPermitted(f"cannot read {self._described()}: permission denied", remedy_for(self.pid, name))

    def _gone(self) -> TargetGone:
        try:
            successor = parse_stat(_read_path(f"/proc/{self.pid}/stat"))
        except (OSError, ValueError):
            return TargetGone(f"process {self.pid} ({self.comm}) has exited")
        if successor.start_ticks != self.start_ticks:
            return self._replaced()
        if successor.is_dead:
            return self._zombie(successor)
        return TargetGone(f"process {self.pid} ({self.comm}) has exited")

    def _zombie(self, now: Stat) -> TargetGone:
        if now.threads > 1:
            others = now.threads - 1
            still = "other thread runs" if others == 1 else "other threads run"
            return TargetGone(
                f"the main thread of process {self.pid} ({self.comm}) has ended, though {others} {still}: the kernel "
                "shows no memory of such a process"
            )
        return TargetGone(
            f"process {self.pid} ({self.comm}) is a zombie: it has exited and waits for its parent to collect it"
        )

    def _replaced(self) -> TargetGone:
        return TargetGone(
            f"process {self.pid} has exited, and another process has its pid now",
            "look for the new pid of the program (pgrep -a NAME)",
        )


def no_such_process(pid: int) -> TargetGone:
    """Return (not raise) what to say of a process that is not in /proc."""
    if not has_procfs():
        return TargetGone(f"no process {pid} can be seen: {NO_PROCFS}", MOUNT_PROCFS)
    reasons = ["pids are those of gomem's own PID namespace" if _in_container() else "", hidden_by_proc()]
    return TargetGone(f"no process {pid} here", "; ".join(filter(None, reasons)))


def _in_container() -> bool:
    """Tell whether there are processes that this PID namespace does not show."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino != INITIAL_NAMESPACES["pid"]
    except OSError:
        return False


def _open_proc(pid: int) -> int:
    if pid <= 0:
        raise no_such_process(pid)
    try:
        return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _REFUSED:
            raise NotPermitted(
                f"cannot read process {pid}: permission denied", hidden_by_proc() or remedy_for(pid, "stat")
            ) from None
        raise no_such_process(pid) from None


def _open_pidfd(pid: int) -> int | None:
    """Return a pidfd, or None where the kernel or a seccomp filter has none (the start time is checked anyway)."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _is_readable(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _read_path(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(SMALL)


def _boot_time() -> int:
    """Return the second (Unix time) at which the kernel booted: from /proc/stat, or as the kernel computes it there."""
    with suppress(FileNotFoundError), open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return int(line.split()[1])
    # The clocks are read one after the other: the later the second, the larger the difference.
    return min(-time.clock_gettime_ns(time.CLOCK_BOOTTIME) + time.time_ns() for _ in range(5)) // 1_000_000_000
