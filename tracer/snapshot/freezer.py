"""The process that stops a target's threads and lets them go: freeze.py beside it starts it, nothing else should.

It is a process of its own because only the kernel can be trusted to undo a stop. It holds the threads by PTRACE_SEIZE,
and the kernel lets every thread go when its tracer ends, however that comes about. So gomem may be killed (this process
sees its pipe close), this process may be killed, and it may be stopped itself: a timer then ends it with SIGKILL, which
works on a stopped process as well. It imports nothing of gomem, and is there in some 20 ms.

Arguments: an open fd of /proc/PID, the pid, for how many seconds the threads may be held, and 1 if they may be held
under a seccomp filter, else 0 (see `gomem.tracer.snapshot.freeze`). It writes one JSON
object a line: first {"threads", "seconds", "uninterruptible"} or {"error", "detail"}; then, when its standard input
ends or the time is up, it lets go and writes {"frozen_seconds", "expired"}.

Source: ptrace(2), kernel/ptrace.c (exit_ptrace), kernel/signal.c (ptrace_stop), kernel/exit.c (wait_task_stopped).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
PTRACE_EVENT_STOP = 128
_WALL = 0x4000_0000
_CLOCK_MONOTONIC = 1
_SECCOMP_FILTER = "2"  # proc_pid_status(5)
# What the threads may take to stop, as a part of the time that they may be held.
_STOPPING_SHARE = 0.5
# What a thread in an uninterruptible sleep may take to leave it. It cannot reach its program without stopping first.
_PATIENCE_WITH_SLEEP = 0.02
# The timer's margin, for a machine too busy to let go in time.
_MARGIN = 0.5
_SHORTEST_PAUSE, _LONGEST_PAUSE = 20e-6, 1e-3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Refused(Exception):
    """The threads cannot be held; `reason` is a word that `gomem.tracer.snapshot.freeze` knows."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Thread:
    """A thread that is traced by us: `signal` is one that we hold up, and deliver when we let it go."""

    tid: int
    stopped: bool = False
    signal: int = 0


def ptrace(request: int, tid: int, value: int = 0) -> int:
    """Make one ptrace call; return 0 or the errno."""
    return 0 if _libc.ptrace(request, tid, None, value) == 0 else ctypes.get_errno()


class Freezer:
    """Holds all threads of one process."""

    def __init__(self, directory: int, pid: int, seconds: float, *, filtered: bool) -> None:
        """`directory`: an fd of /proc/PID, which stays bound to the process whoever has its pid later.

        `filtered`: also a process under a seccomp filter.
        """
        self._directory = directory
        self._filtered = filtered
        self._pid = pid
        self._deadline = time.monotonic() + seconds * _STOPPING_SHARE
        self._threads: dict[int, Thread] = {}
        self.since: float | None = None

    @property
    def threads(self) -> int:
        """How many threads are held."""
        return len(self._threads)

    def freeze(self) -> int:
        """Stop all threads, those that appear meanwhile too; return how many of them the kernel still has asleep.

        Raises Refused.
        """
        asleep = 0
        while True:
            new = [tid for tid in self._tids() if tid not in self._threads and self._seize(tid)]
            if not new:
                return asleep
            for tid in new:
                self.since = self.since or time.monotonic()
                ptrace(PTRACE_INTERRUPT, tid)
            asleep = self._wait_for_all()

    def release(self) -> float:
        """Let all threads go, with the signals that came for them; return for how many seconds the first was held."""
        for thread in self._threads.values():
            if thread.stopped and ptrace(PTRACE_DETACH, thread.tid, thread.signal) == errno.ESRCH:
                _reap(thread.tid)
        # Those that never stopped are let go by the kernel when this process ends.
        self._threads.clear()
        return time.monotonic() - self.since if self.since is not None else 0.0

    def _tids(self) -> list[int]:
        try:
            tasks = os.open("task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._directory)
        except OSError as error:
            raise Refused("gone", error.strerror or "") from None
        try:
            return [int(name) for name in os.listdir(tasks)]
        except OSError as error:
            raise Refused("gone", error.strerror or "") from None
        finally:
            os.close(tasks)

    def _seize(self, tid: int) -> bool:
        """Become the tracer of a thread; False if it has ended."""
        failed = ptrace(PTRACE_SEIZE, tid)
        if failed == 0:
            # Held now, the number cannot change hands any more; before, it could.
            status = self._status(tid)
            if not status:
                ptrace(PTRACE_INTERRUPT, tid)
                raise Refused("gone", f"thread {tid} was another process's by then")
            if status.get("Seccomp") == _SECCOMP_FILTER and not self._filtered:
                raise Refused("filtered", "")  # nothing was stopped so far of those that were there
            self._threads[tid] = Thread(tid)
            return True
        status = self._status(tid)
        if failed == errno.ESRCH or not status or status.get("State", "Z")[0] in "ZX":
            return False
        tracer = status.get("TracerPid", "0")
        if tracer != "0":
            raise Refused("traced", tracer)
        if failed in (errno.EPERM, errno.EACCES):
            raise Refused("not permitted", os.strerror(failed))
        raise Refused("failed", os.strerror(failed))

    def _status(self, tid: int) -> dict[str, str]:
        try:
            fd = os.open(f"task/{tid}/status", os.O_RDONLY, dir_fd=self._directory)
        except OSError:
            return {}
        try:
            lines = os.read(fd, 1 << 16).decode(errors="replace").splitlines()
        except OSError:
            return {}
        finally:
            os.close(fd)
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def _wait_for_all(self) -> int:
        began = time.monotonic()
        pause = _SHORTEST_PAUSE
        while True:
            waiting = [thread for thread in list(self._threads.values()) if not thread.stopped and self._moves(thread)]
            if not waiting:
                return 0
            now = time.monotonic()
            if now - began > _PATIENCE_WITH_SLEEP and all(self._sleeps(thread.tid) for thread in waiting):
                return len(waiting)
            if now > self._deadline:
                states = {self._status(thread.tid).get("State", "gone") for thread in waiting}
                raise Refused("slow", f"{len(waiting)} of {self.threads} threads: {', '.join(sorted(states))}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _moves(self, thread: Thread) -> bool:
        """Tell whether a thread has not stopped yet; note it if it has, forget it if it has ended."""
        options = os.WSTOPPED | os.WEXITED | os.WNOHANG | _WALL
        try:
            # Without WNOWAIT the kernel would forget the signal that a thread has stopped for, and if this process
            # were killed then, nobody would deliver it.
            state = os.waitid(os.P_PID, thread.tid, options | os.WNOWAIT)
        except ChildProcessError:
            del self._threads[thread.tid]
            return False
        if state is None:
            return True
        if state.si_code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
            _reap(thread.tid)
            del self._threads[thread.tid]
            return False
        thread.stopped = True
        thread.signal = state.si_status if state.si_status >> 8 == 0 else 0
        return False

    def _sleeps(self, tid: int) -> bool:
        return self._status(tid).get("State", "X")[0] == "D"


def _reap(tid: int) -> None:
    """Collect a thread that ended in our hands: until then it is a zombie, and an exec of the program waits for it."""
    try:
        os.waitpid(tid, os.WNOHANG | _WALL)
    except ChildProcessError:
        return


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("pad", ctypes.c_char * 48),
    )


class _Timer(ctypes.Structure):
    _fields_ = (("interval", ctypes.c_long * 2), ("first", ctypes.c_long * 2))


def end_after(seconds: float) -> None:
    """Let the kernel end this process with SIGKILL after `seconds`, stopped or not. Raises OSError."""
    event = _SigEvent(signo=signal.SIGKILL, notify=0)
    timer = ctypes.c_void_p()
    if _libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create")
    spec = _Timer(first=(int(seconds), int(seconds % 1 * 1e9)))
    if _libc.timer_settime(timer, 0, ctypes.byref(spec), None):
        raise OSError(ctypes.get_errno(), "timer_settime")


def _say(**words: object) -> None:
    try:
        os.write(1, json.dumps(words).encode() + b"\n")
    except BrokenPipeError:
        return


def _ended(seconds: float) -> bool:
    """Wait until standard input ends; False if it did not within `seconds`."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return bool(poll.poll(max(seconds, 0) * 1000))


def main() -> None:
    """Stop, wait, let go."""
    directory, pid, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE):
        # The keys that end or stop gomem are gomem's to answer; it closes the pipe then.
        signal.signal(number, signal.SIG_IGN)
    try:
        end_after(seconds + _MARGIN)
    except OSError as error:
        # Without the timer nothing would end a stop that this process does not live to end.
        _say(error="failed", detail=f"{error.strerror} refused: {os.strerror(error.errno or 0)}")
        return
    freezer = Freezer(directory, pid, seconds, filtered=sys.argv[4] == "1")
    began = time.monotonic()
    try:
        asleep = freezer.freeze()
    except Refused as refusal:
        freezer.release()
        _say(error=refusal.reason, detail=refusal.detail)
        return
    ready = time.monotonic()
    _say(threads=freezer.threads, seconds=ready - began, uninterruptible=asleep)
    ended = _ended(began + seconds - ready)
    _say(frozen_seconds=freezer.release(), expired=not ended)


if __name__ == "__main__":
    main()
