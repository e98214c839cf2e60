"""Starting a command so that it can be watched from its very first system call.

The child is forked and waits; whoever watches attaches to its pid; then it is let go and execs.
It is the user's program, not ours: it has our terminal, directory, environment and process group, Ctrl-C
reaches it as it reaches us, and it goes on when we are done.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from gomem.tracer.errors import CannotRun, NoAnswer, NoSuchCommand, TargetError, UsageError
from gomem.tracer.proc.served import server_of
from gomem.tracer.process.served_file import ServedFile
from gomem.tracer.process.small_start import start_small

_ABANDONED = 127
_MOST_INTERPRETERS = 5  # fs/exec.c: exec_binprm gives up after as many
_SCRIPT_HEAD = 256  # bytes that the kernel looks at (BINPRM_BUF_SIZE)


class Launched:
    """A command that is forked but runs only after `resume`.

    `executable` is the file that argv[0] names (found in PATH); `image` is what will really be
    mapped: the interpreter, if it is a script, which `interpreter` then names too.
    Its standard output is ours, or the descriptor `output`.
    Raises UsageError if there is no such command or it cannot be executed, NoAnswer if its file system does not answer.
    """

    def __init__(self, argv: Sequence[str], output: int | None = None) -> None:
        if not argv:
            raise UsageError("no command given", "put it behind --, as in: gomem trace -- CMD ARGS")
        self.argv = list(argv)
        self.executable = find_executable(argv[0])
        self.interpreter = interpreter_of(self.executable)
        self.image = self.interpreter or self.executable
        self.resumed = False
        self.returncode: int | None = None  # as in subprocess: minus the signal that killed it
        self.wait_status: int | None = None  # of wait(2)
        self._usage: resource.struct_rusage | None = None

        def prepare() -> None:
            _default_signals()
            if output is not None:
                os.dup2(output, 1)

        go_read, self._go = os.pipe()
        self._failure, failure_write = os.pipe()
        with warnings.catch_warnings():
            # The child calls no more than execve and system calls: what other threads hold does not matter.
            warnings.simplefilter("ignore", DeprecationWarning)
            small = start_small(self.executable, self.argv, os.environ, go_read, failure_write, prepare)
            self._small = small is not None
            self.pid = os.fork() if small is None else small
        if self.pid == 0:
            _be_the_child(self.executable, self.argv, go_read, self._go, failure_write, prepare)
        os.close(go_read)
        os.close(failure_write)

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abandon()

    def resume(self) -> None:
        """Let it exec; return when it has. Raises UsageError or TargetError if the kernel refused."""
        if self.resumed:
            return
        self.resumed = True
        try:
            os.write(self._go, b"x")
        except BrokenPipeError:
            ended_before = True
        else:
            ended_before = False
        os.close(self._go)
        failure = os.read(self._failure, 16)
        os.close(self._failure)
        if failure:
            self.wait()
            raise _exec_error(int.from_bytes(failure, "little"), self.executable)
        if ended_before:
            raise TargetError(f"{self.argv[0]} ended before it started")

    def abandon(self) -> None:
        """End the child if it has not been let go yet; a program that runs is left alone."""
        if not self.resumed:
            self.resumed = True
            os.close(self._go)
            os.close(self._failure)
            self.wait()

    def poll(self) -> int | None:
        """Return the exit code if the program has ended, minus the signal if one killed it, else None."""
        if self.returncode is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else reaped it
                self.returncode = 0
            else:
                if pid:
                    self.returncode, self._usage = os.waitstatus_to_exitcode(status), usage
                    self.wait_status = status
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds (None: for ever) for the end; return as `poll` does."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            pidfd = -1
        try:
            while self.poll() is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                if pidfd >= 0:
                    select.select([pidfd], [], [], left if left is not None else 1.0)
                # A program that is traced turns readable before we can reap it; and there may be no pidfd.
                time.sleep(0.005)
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        return self.returncode

    @property
    def peak_rss(self) -> int | None:
        """The most that it ever had in RAM, in bytes; None before its end, or where that could not be told from ours.

        Its children that it has waited for count too: the largest of all.
        """
        return self._usage.ru_maxrss << 10 if self._usage is not None and self._small else None

    @property
    def cpu_seconds(self) -> float | None:
        """The CPU time that it used, None before its end."""
        return self._usage.ru_utime + self._usage.ru_stime if self._usage is not None else None


def find_executable(command: str) -> str:
    """Return the path of the file that execvp would take for `command`. Raises UsageError if there is none."""
    candidates = [command] if "/" in command else [os.path.join(path, command) for path in os.get_exec_path()]
    refused = ""
    for candidate in candidates:
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            refused = refused or candidate
    if refused:
        raise CannotRun(f"cannot run {refused}: not executable", f"chmod +x {refused}")
    if "/" in command and os.path.isdir(command):
        raise CannotRun(f"cannot run {command}: it is a directory")
    raise NoSuchCommand(
        f"cannot run {command}: no such " + ("file" if "/" in command else "command in PATH"),
        "give the path of the program, as in: gomem trace -- ./server",
    )


def interpreter_of(executable: str) -> str | None:
    """Return the program that will run a script (its #! line, followed through), None for a binary.

    Raises NoAnswer where its file system does not answer: it could not be executed either, nor ended then.
    """
    found = None
    for _ in range(_MOST_INTERPRETERS):
        try:
            head = _head(found or executable)
        except TimeoutError:
            raise NoAnswer(
                f"cannot run {found or executable}: its file system is served by others, who do not answer",
                "run it when they do",
            ) from None
        except (OSError, MemoryError):
            return found
        if not head.startswith(b"#!"):
            return found
        words = head[2:].split(b"\n", 1)[0].split()
        if not words:
            return found
        found = os.fsdecode(words[0])
    return found


def _head(path: str) -> bytes:
    """Return the first bytes of a file. Raises TimeoutError where others serve it and do not answer, OSError."""
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if server_of(found, "/proc/self") is None:
            with Path(f"/proc/self/fd/{found}").open("rb") as file:
                return file.read(_SCRIPT_HEAD)
        apart = ServedFile(found, 0)
        try:
            return apart.pread(_SCRIPT_HEAD, 0)
        finally:
            apart.close()
    finally:
        os.close(found)


def _be_the_child(
    executable: str, argv: list[str], go_read: int, go_write: int, failure_write: int, prepare: Callable[[], None]
) -> NoReturn:
    try:
        os.close(go_write)
        prepare()
        if os.read(go_read, 1):
            try:
                os.execve(executable, argv, os.environ)
            except OSError as error:
                os.write(failure_write, (error.errno or errno.EINVAL).to_bytes(4, "little"))
            except ValueError:  # a NUL in an argument
                os.write(failure_write, errno.EINVAL.to_bytes(4, "little"))
    finally:
        os._exit(_ABANDONED)


def _default_signals() -> None:
    """Undo what Python and gomem did to signals; what our own parent had ignored (nohup) stays ignored."""
    for number in signal.valid_signals():
        ignored_by_python = number in (signal.SIGPIPE, signal.SIGXFSZ)
        handler = signal.getsignal(number)
        if ignored_by_python or (handler is not None and not isinstance(handler, signal.Handlers)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _exec_error(number: int, executable: str) -> TargetError | CannotRun:
    what = f"cannot run {executable}: {os.strerror(number)}"
    if number == errno.ENOEXEC:
        return CannotRun(what, "is it built for this machine? a script needs a #! line")
    if number in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ELIBBAD):
        interpreter = interpreter_of(executable)
        fix = f"it asks for the interpreter {interpreter}" if interpreter else "see execve(2)"
        return CannotRun(what, fix)
    return TargetError(what)
