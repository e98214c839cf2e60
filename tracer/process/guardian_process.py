"""The process that does for gomem what gomem must not do itself: guardian.py beside it starts it, nothing else should.

**It holds the descriptors of probes.** A probe is there as long as a descriptor of it is open, also while gomem is
stopped (SIGSTOP, a debugger, a frozen cgroup) and nobody minds what it costs. So this process has the only ones, and
closes those that are dear when it hears nothing from gomem for a while. It may be stopped itself: a timer then ends it
with SIGKILL, which works on a stopped process, and on one that the freezer of cgroup v2 holds (that of v1 holds also
who is being killed).

**It tries whether processes answer.** Whoever looks at a process may have to wait for a lock of it (mmap_lock), which a
thread can hold for ever: it reads its own memory through /proc, and that is a file whose file system does not answer.
A child tries, and is left behind if it does not come back.

**It reads files whose file system may not answer.** A read that the server of a FUSE file system has taken and never
answers ends by no signal, and a thread that waits for it keeps its whole process from ending. A child reads, into a
file in memory that gomem gives along, and is left behind in the same way.

**It takes no probe off while that would wait.** The kernel puts probes on and takes them off under the same lock of
each process that has mapped the file, in a sleep that no signal ends, and nobody on the machine can fork meanwhile
(kernel/events/uprobes.c: register_for_each_vma, dup_mmap_sem). So all processes are tried first. When gomem has ended
and one does not answer, this process lives on until it does.

**It takes no probe off under a debugger.** A debugger that sets a breakpoint on the instruction of a probe keeps the
kernel's breakpoint as what was there before, and puts that back when it leaves: with the probe still on, that is right;
with the probe gone, the process dies of SIGTRAP. So probes stay on a process as long as somebody traces it.

It gives up all capabilities but those to look at other processes, and imports nothing of gomem.

Arguments: the fd of a socket (AF_UNIX, SOCK_SEQPACKET), for how many seconds gomem may be silent, and how many a
process may take to answer. A message is a letter, a number, and a pid or 0; see `Letter`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

MESSAGE = struct.Struct("=cQQ")
PIECE = struct.Struct("=QQQ")  # the device of a file, where to begin, and how many bytes; behind the message
MOST_AT_ONCE = 64  # descriptors in a message; the kernel takes 253


class Letter:
    """What messages say.

    To the guardian: ALIVE, HOLD and HOLD_DEAR (with the pid that the probes are on), RELEASE, TRY (that pid), TRY_ALL
    (every process of the machine, if that was not done just now, else that pid), READ (with a PIECE, and the
    descriptors of the file, O_PATH, and of the memory to write to at the same place). The rest come from it.

    HELD, RELEASED, KEPT (for now: a debugger is there), ANSWERS, SILENT (with the pid that does not answer) and DONE
    (with 0 or an errno in place of a pid) have the number of the message that they answer. LET_GO has the number of
    what was dear, and in place of a pid when it was closed (CLOCK_MONOTONIC, ns).
    """

    ALIVE, HOLD, HOLD_DEAR, RELEASE, TRY, TRY_ALL, READ = b".", b"H", b"D", b"R", b"T", b"A", b"F"
    HELD, RELEASED, KEPT, ANSWERS, SILENT, DONE, LET_GO = b"h", b"r", b"k", b"a", b"s", b"f", b"x"


# After so many times the silence that gomem is allowed this process does not live to mind it.
_KILLED_AFTER = 2.0
_MOST_CHILDREN = 16
_MOST_PARDONS = 5  # times that a child may take as long again, because it does not wait
_MOST_SILENT = 64  # children that have been left behind
_READ_PATIENCE = 2.0  # seconds for _STEP bytes of a file
_STEP = 1 << 18
_MOST_READERS = 4  # children that read files
_MOST_SILENT_READERS = 16  # of them that have been left behind, so that they leave room for those that try
_MOST_SILENT_OF_DEVICE = 4  # so that one file system leaves room for others
_FRESH = 2.0  # seconds for which it counts that all processes have answered: dear probes come and go often
_RETRY, _LONGEST_RETRY = 0.5, 10.0  # seconds between tries to take probes off
_UNDER_DEBUGGER = 1.0  # seconds between looks whether a debugger has left
_FILTERED_SINCE = (6, 10)  # the first Linux that puts probes on one process only
_CLOCK_MONOTONIC = 1
_HIGHEST_DESCRIPTOR = 1 << 20
_CAPABILITY_VERSION_3, _PR_SET_NO_NEW_PRIVS = 0x20080522, 38
_KEPT_CAPABILITIES = 1 << 2 | 1 << 19  # DAC_READ_SEARCH, SYS_PTRACE: pagemap and command line of any process

_FILTERED = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2]) >= _FILTERED_SINCE

_libc = ctypes.CDLL(None, use_errno=True)


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("pad", ctypes.c_char * 48),
    )


class _Times(ctypes.Structure):
    _fields_ = (("interval", ctypes.c_long * 2), ("first", ctypes.c_long * 2))


class Executioner:
    """A timer of the kernel that kills this process, unless it is put off.

    Where a seccomp filter refuses such timers there is none, and nobody minds that this process is stopped itself.
    """

    def __init__(self) -> None:
        """Make it."""
        event = _SigEvent(signo=signal.SIGKILL, notify=0)
        self._timer = ctypes.c_void_p()
        self._there = not _libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer))

    def put_off(self, seconds: float) -> None:
        """Let it come after so many seconds from now; 0: never."""
        if self._there:
            times = _Times(first=(int(seconds), int(seconds % 1 * 1e9)))
            _libc.timer_settime(self._timer, 0, ctypes.byref(times), None)


@dataclass
class Held:
    """Descriptors that are held; `dear`: to be closed when gomem is silent.

    `pid`: what their probes are on; 0 for those that are on no process, whose closing waits for nobody.
    """

    dear: bool
    pid: int
    fds: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Close them."""
        while self.fds:
            os.close(self.fds.pop())


class Child:
    """Somebody who can be left behind while he waits. `number`: whom to answer; None for one of our own."""

    sleeps = b"D"  # the states of /proc/PID/stat in which it waits for what never comes

    def __init__(
        self, number: int | None, patience: float, work: Callable[[int], int], keep: Sequence[int] = ()
    ) -> None:
        """Begin `work`, which is given a descriptor to write what it has come to (u64), and returns an exit status.

        The child keeps that and the descriptors `keep`. `patience`: seconds without a word.
        """
        self.number = number
        self.at = 0  # what it has come to
        self.status = 0  # when it has been forgotten
        self._looks_at, told = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            _work(work, told, keep)
        os.close(told)
        os.read(self._looks_at, 8)  # it has let go of what is held here
        os.set_blocking(self._looks_at, False)
        self._pidfd = os.pidfd_open(self._child)
        self._patience = patience
        self._pardons = 0
        self._since = time.monotonic()

    @property
    def pidfd(self) -> int:
        """Readable when it is over."""
        return self._pidfd

    @property
    def due(self) -> float:
        """When it is to be left behind, time.monotonic()."""
        return self._since + self._patience

    def is_over(self) -> bool:
        """Tell whether it came back."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def waits(self) -> bool:
        """Tell whether it is in a sleep that counts, not only without a CPU on a machine that is busy."""
        try:
            with open(f"/proc/{self._child}/stat", "rb") as file:
                waits = file.read().rpartition(b") ")[2][:1] in self.sleeps
        except OSError:
            return True
        if not waits and self._pardons < _MOST_PARDONS:
            self._pardons += 1
            self._since = time.monotonic()
            return False
        return True

    def has_moved(self) -> bool:
        """Tell whether it has come further since it was asked last; then it has time again."""
        before = self.at
        with suppress(BlockingIOError):
            while words := os.read(self._looks_at, 4096):
                self.at = struct.unpack("=Q", words[len(words) // 8 * 8 - 8 :][:8])[0]
        if self.at != before:
            self._since = time.monotonic()
        return self.at != before

    def kill(self) -> None:
        """Ask the kernel to end it, which it does when the wait is one that a signal ends."""
        os.kill(self._child, signal.SIGKILL)

    def reap(self) -> bool:
        """Forget it if it is over; tell whether."""
        pid, status = os.waitpid(self._child, os.WNOHANG)
        if pid == 0:
            return False
        self.status = os.waitstatus_to_exitcode(status)
        os.close(self._pidfd)
        os.close(self._looks_at)
        return True


class Trial(Child):
    """A child that looks at one process, or at all, as gomem will."""

    def __init__(self, number: int | None, pid: int, patience: float) -> None:
        """Begin. `pid`: 0 for all processes."""
        self._pid = pid
        super().__init__(number, patience, lambda told: _look_at(pid, told))

    @property
    def tried_all(self) -> bool:
        """Whether it looks at all processes."""
        return not self._pid

    @property
    def silent_pid(self) -> int:
        """The process that it waits for."""
        return self._pid or self.at


class Reader(Child):
    """A child that reads a piece of a file."""

    sleeps = b"DS"  # a request that the server has not taken yet is waited for in a sleep that signals end

    def __init__(self, asked: Asked) -> None:
        """Begin."""
        file, memory = asked.fds
        self.asked = asked
        super().__init__(asked.number, _READ_PATIENCE, lambda told: _read(asked, told), (file, memory))


@dataclass(frozen=True, slots=True)
class Asked:
    """A piece of a file that somebody waits for."""

    number: int
    pid: int  # who executes the file
    device: int
    start: int
    size: int
    fds: tuple[int, int]

    def close(self) -> None:
        """Let go of the file and the memory; neither waits: the file is open as O_PATH."""
        for fd in self.fds:
            os.close(fd)


def _work(work: Callable[[int], int], told: int, keep: Sequence[int]) -> None:
    """Be a child of this process."""
    status = errno.EIO
    try:
        first = 3
        for fd in sorted((told, *keep)):
            os.closerange(first, fd)
            first = fd + 1
        os.closerange(first, _HIGHEST_DESCRIPTOR)
        os.write(told, struct.pack("=Q", 0))
        status = work(told)
    finally:
        os._exit(status)


def _read(asked: Asked, told: int) -> int:
    """Copy a piece of a file into memory; return 0 or an errno. What the file does not have is left out."""
    file, memory = asked.fds
    try:
        opened = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        at, end = asked.start, asked.start + asked.size
        while at < end and (part := os.pread(opened, min(_STEP, end - at), at)):
            os.pwrite(memory, part, at)
            at += len(part)
            os.write(told, struct.pack("=Q", at))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _look_at(pid: int, told: int) -> int:
    """Take the locks that a look takes: for a page map, and for a command line, which is in the process's memory."""
    for one in [pid] if pid else _all_pids():
        os.write(told, struct.pack("=Q", one))
        for name in ("pagemap", "cmdline"):
            with suppress(OSError):
                file = os.open(f"/proc/{one}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.read(file, 8)
                finally:
                    os.close(file)
    return 0


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getppid()]


def is_debugged(pid: int) -> bool:
    """Tell whether somebody traces a process (ptrace) that has the breakpoints of probes on `pid` in its code.

    A tracer in a PID namespace that is not below ours has no number here, and is known only while it stops a thread.
    No lock is taken that the process could hold.
    """
    if _FILTERED:
        return _is_traced(pid)
    # Before Linux 6.10 the breakpoints are in all processes that have mapped the file.
    program = _program_of(str(pid))
    others = [name for name in os.listdir("/proc") if name.isdigit() and program and _program_of(name) == program]
    return _is_traced(pid) or any(_is_traced(int(other)) for other in others)


def _program_of(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _is_traced(pid: int) -> bool:
    """Tell whether a thread of a process has a tracer."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(_has_tracer(f"/proc/{pid}/task/{thread}/status") for thread in threads)


def _has_tracer(status: str) -> bool:
    try:
        with open(status, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    fields = dict(line.split(None, 2)[:2] for line in lines if line.startswith((b"TracerPid:", b"State:")))
    return fields.get(b"State:") == b"t" or fields.get(b"TracerPid:", b"0") != b"0"


class Readings:
    """The pieces of files that are read, or are to be."""

    def __init__(self, say: Callable[[bytes, int, int], None]) -> None:
        """`say` answers: a letter, the number of what was asked, and the letter's number."""
        self.under_way: list[Reader] = []
        self._say = say
        self._asked: deque[Asked] = deque()
        self._silent: list[Reader] = []

    def ask(self, asked: Asked) -> None:
        """Read a piece when it is its turn."""
        self._asked.append(asked)

    def begin(self) -> None:
        """Begin what waits. While too many wait for a file system already, nobody asks it anything else."""
        while self._asked and len(self.under_way) < _MOST_READERS:
            asked = self._asked.popleft()
            of_device = sum(one.asked.device == asked.device for one in self._silent)
            if of_device < _MOST_SILENT_OF_DEVICE and len(self._silent) < _MOST_SILENT_READERS:
                self.under_way.append(Reader(asked))
            else:
                self._say(Letter.SILENT, asked.number, asked.pid)
            asked.close()

    def settle(self) -> None:
        """Take those that are over, and leave those behind that do not come back."""
        self._silent = [reader for reader in self._silent if not reader.reap()]
        for reader in list(self.under_way):
            if reader.is_over():
                reader.reap()
                self._say(Letter.DONE, reader.asked.number, abs(reader.status))
            elif not reader.has_moved() and time.monotonic() >= reader.due and reader.waits():
                reader.kill()
                self._silent.append(reader)
                self._say(Letter.SILENT, reader.asked.number, reader.asked.pid)
            else:
                continue
            self.under_way.remove(reader)


class Trials:
    """The children that look at processes, some at a time, and those that were left behind."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds that a process may take to answer."""
        self.under_way: list[Trial] = []
        self._patience = patience
        self._asked: deque[tuple[int, int]] = deque()  # numbers and pids that wait for their trial
        self._silent: list[Trial] = []
        self._all_answered = float("-inf")  # when all processes did last

    def ask(self, number: int, pid: int) -> None:
        """Let a message wait for its trial; `pid`: 0 for all processes."""
        self._asked.append((number, pid))

    def whom_to_try(self, pid: int) -> int:
        """Return 0, for all processes, unless they have all answered just now."""
        return pid if time.monotonic() - self._all_answered < _FRESH else 0

    def begin(self) -> list[tuple[int, int]]:
        """Begin those that wait, as many as there may be at a time.

        Returns the numbers and pids of those that get none, because too many were left behind.
        """
        refused = []
        while self._asked and len(self.under_way) < _MOST_CHILDREN:
            number, pid = self._asked.popleft()
            if len(self._silent) >= _MOST_SILENT:
                refused.append((number, pid))
            else:
                self.under_way.append(Trial(number, pid, self._patience))
        return refused

    def begin_own(self, pid: int) -> None:
        """Begin one that no message asked for, at once."""
        self.under_way.append(Trial(None, pid, self._patience))

    def over(self) -> Iterator[tuple[Trial, bool]]:
        """Take those that came back, and leave those behind that do not; yield each with whether it came back."""
        self._silent = [trial for trial in self._silent if not trial.reap()]
        for trial in list(self.under_way):
            if trial.is_over():
                self.under_way.remove(trial)
                trial.reap()
                if trial.tried_all:
                    self._all_answered = time.monotonic()
                yield trial, True
            elif not trial.has_moved() and time.monotonic() >= trial.due and trial.waits():
                self.under_way.remove(trial)
                trial.kill()
                self._silent.append(trial)
                yield trial, False


class Holds:
    """The probes that are held, and those that leave: when all answer, and no debugger is there."""

    def __init__(self, trials: Trials, say: Callable[[bytes, int, int], None]) -> None:
        """`say` takes a letter, the number of what it is about, and what is in place of a pid."""
        self._trials = trials
        self._say = say
        self._held: dict[int, Held] = {}
        self._leaving: list[tuple[int, bytes, Held]] = []  # number, what to say of it, and what is to be closed
        self._debugged: list[tuple[int, bytes, Held]] = []  # the same, when the debugger has left
        self._debugged_at = 0.0  # when to see whether it has
        self._tries = False  # whether all answer, so that what leaves can be closed
        self._retry_at, self._retry_after = 0.0, _RETRY

    def __bool__(self) -> bool:
        return bool(self._held or self._leaving or self._debugged)

    def any_dear(self) -> bool:
        """Tell whether there are some to be closed when gomem is silent."""
        return any(held.dear for held in self._held.values())

    def hold(self, number: int, dear: bool, pid: int, fds: list[int]) -> None:
        """Hold descriptors, or more of them, under a number."""
        self._held.setdefault(number, Held(dear, pid)).fds += fds

    def release(self, number: int) -> None:
        """Close what is held under a number as soon as that waits for nobody; nothing where none is."""
        if number in self._held:
            self._let_go_of(number, Letter.RELEASED)

    def release_all(self) -> None:
        """Close all as soon as that waits for nobody."""
        for number in list(self._held):
            self.release(number)

    def let_go_of_the_dear(self) -> None:
        """Close those that are dear, as soon as that waits for nobody."""
        for number in [number for number, held in self._held.items() if held.dear]:
            self._let_go_of(number, Letter.LET_GO)

    def due(self) -> list[float]:
        """Return when there is something to do, time.monotonic()."""
        again = [self._retry_at] if self._leaving and not self._tries else []
        return [*again, self._debugged_at] if self._debugged else again

    def begin(self) -> None:
        """Have those processes tried that what leaves would wait for."""
        if self._debugged and time.monotonic() >= self._debugged_at:
            self._leaving, self._debugged = self._leaving + self._debugged, []
        if self._leaving and not self._tries and time.monotonic() >= self._retry_at:
            pids = {self._trials.whom_to_try(held.pid) for _, _, held in self._leaving}
            self._trials.begin_own(pids.pop() if len(pids) == 1 else 0)
            self._tries = True

    def tried(self, answers: bool) -> None:
        """Close what leaves if they answer, else try again later."""
        self._tries = False
        if answers:
            self._close_what_leaves()
        else:
            self._retry_at = time.monotonic() + self._retry_after
            self._retry_after = min(2 * self._retry_after, _LONGEST_RETRY)

    def _let_go_of(self, number: int, letter: bytes) -> None:
        held = self._held.pop(number)
        if held.pid:
            self._leaving.append((number, letter, held))
        else:
            self._close(number, letter, held)

    def _close_what_leaves(self) -> None:
        debugged = {pid: is_debugged(pid) for pid in {held.pid for _, _, held in self._leaving}}
        leaving = [one for one in self._leaving if not debugged[one[2].pid]]
        kept = [one for one in self._leaving if debugged[one[2].pid]]
        for number, letter, _ in kept:
            if letter == Letter.RELEASED:
                self._say(Letter.KEPT, number, 0)
        self._debugged += kept
        self._debugged_at = time.monotonic() + _UNDER_DEBUGGER
        self._leaving = []
        self._retry_at, self._retry_after = 0.0, _RETRY
        for number, letter, held in leaving:
            self._close(number, letter, held)

    def _close(self, number: int, letter: bytes, held: Held) -> None:
        held.close()
        self._say(letter, number, time.monotonic_ns() if letter == Letter.LET_GO else 0)


class Guardian:
    """Serves whoever is at the other end of a socket."""

    def __init__(self, other: socket.socket, silence: float, patience: float) -> None:
        """`silence`: seconds between two messages; `patience`: seconds that a process may take to answer."""
        self._other: socket.socket | None = other
        self._silence = silence
        self._heard = time.monotonic()
        self._trials = Trials(patience)
        self._readings = Readings(self._say)
        self._holds = Holds(self._trials, self._say)
        self._executioner = Executioner()

    def run(self) -> None:
        """Serve until the other end is closed, and until nothing is held any more."""
        while self._other is not None or self._holds:
            self._put_off()
            self._wait()
            self._settle()
            self._begin()

    def _put_off(self) -> None:
        minds = self._other is not None and self._holds.any_dear()
        self._executioner.put_off(self._silence * _KILLED_AFTER if minds else 0)

    def _wait(self) -> None:
        poll = select.poll()
        if self._other is not None:
            poll.register(self._other, select.POLLIN)
        for child in self._under_way():
            poll.register(child.pidfd, select.POLLIN)
        ready = poll.poll(max(self._next_due() - time.monotonic(), 0.0) * 1000 + 1)
        other = self._other
        if other is None:
            return
        if any(fd == other.fileno() for fd, _ in ready):
            self._hear(other)
        elif time.monotonic() - self._heard > self._silence:
            self._holds.let_go_of_the_dear()

    def _under_way(self) -> list[Child]:
        return [*self._trials.under_way, *self._readings.under_way]

    def _next_due(self) -> float:
        due = [*(child.due for child in self._under_way()), *self._holds.due()]
        if self._holds.any_dear():
            due.append(self._heard + self._silence)
        return min(due, default=time.monotonic() + 3600)

    def _hear(self, other: socket.socket) -> None:
        raw, fds, _, _ = socket.recv_fds(other, MESSAGE.size + PIECE.size, MOST_AT_ONCE)
        self._heard = time.monotonic()
        if len(raw) < MESSAGE.size:
            other.close()
            self._other = None
            self._holds.release_all()
            return
        letter, number, pid = MESSAGE.unpack(raw[: MESSAGE.size])
        if letter in (Letter.HOLD, Letter.HOLD_DEAR):
            self._holds.hold(number, letter == Letter.HOLD_DEAR, pid, fds)
            self._put_off()
            self._say(Letter.HELD, number)
        elif letter == Letter.RELEASE:
            self._holds.release(number)
        elif letter in (Letter.TRY, Letter.TRY_ALL):
            self._trials.ask(number, self._trials.whom_to_try(pid) if letter == Letter.TRY_ALL else pid)
        elif letter == Letter.READ:
            device, start, size = PIECE.unpack(raw[MESSAGE.size :])
            self._readings.ask(Asked(number, pid, device, start, size, (fds[0], fds[1])))

    def _begin(self) -> None:
        """Begin the trials and readings that wait, as many as there may be at a time."""
        self._readings.begin()
        for number, pid in self._trials.begin():
            self._say(Letter.SILENT, number, pid)
        self._holds.begin()

    def _settle(self) -> None:
        """Take the trials and readings that are over, and leave those behind that do not come back."""
        self._readings.settle()
        for trial, answers in self._trials.over():
            if trial.number is None:
                self._holds.tried(answers)
            else:
                self._say(Letter.ANSWERS if answers else Letter.SILENT, trial.number, trial.silent_pid)

    def _say(self, letter: bytes, number: int, pid: int = 0) -> None:
        if self._other is None:
            return
        try:
            self._other.send(MESSAGE.pack(letter, number, pid), socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionError):
            return  # who does not read is stopped, or will be seen to have ended


def give_up_capabilities() -> None:
    """Keep only what looking at processes needs, as far as we have it, and gain nothing. See capget(2), prctl(2)."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    now = ctypes.create_string_buffer(24)
    _libc.capget(header, now)
    words = list(struct.unpack("=6I", now.raw))
    words[:3] = [word & _KEPT_CAPABILITIES for word in words[:3]]
    words[2] = 0
    words[3:] = [0, 0, 0]
    _libc.capset(header, struct.pack("=6I", *words))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main() -> None:
    """Serve."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        # The keys that end or stop gomem are gomem's to answer; it closes the socket then.
        signal.signal(number, signal.SIG_IGN)
    give_up_capabilities()
    os.chdir("/")  # a child that is left behind keeps no file system busy but that for which it waits
    try:
        Guardian(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]), float(sys.argv[3])).run()
    except ConnectionError:
        return


if __name__ == "__main__":
    main()
