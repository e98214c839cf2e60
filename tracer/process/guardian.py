"""What must be done apart from this process: holding probes, and trying whether a process lets itself be looked at.

See `gomem.tracer.process.guardian_process`, which does it.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from gomem.tracer.errors import NoAnswer
from gomem.tracer.machine.privileges import PrivilegeError, drop_here
from gomem.tracer.proc.small_files import printable
from gomem.tracer.process.guardian_process import MESSAGE, MOST_AT_ONCE, PIECE, Letter

SILENCE = 1.0  # seconds that we may be stopped before dear probes are taken off
PATIENCE = 1.0  # seconds that a process may take to answer
_BEAT = 0.2
_START_UP = 10.0  # seconds for an answer, on a machine that is busy
_PROCESS = Path(__file__).with_name("guardian_process.py")


class Hold:
    """Descriptors that are held for us until `release`.

    `let_go_at` is when they were closed because we were silent, CLOCK_MONOTONIC ns; None as long as they are held.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        """`release` lets them be closed; `released` is set when they are.

        `settled` is set then, too, or when they stay until a debugger leaves: there is no use in waiting.
        """
        self.let_go_at: int | None = None
        self.held = threading.Event()
        self.released = threading.Event()
        self.settled = threading.Event()
        self._release = release

    def release(self) -> None:
        """Let them be closed soon."""
        self._release()

    def closed(self) -> None:
        """Note that they are."""
        self.released.set()
        self.settled.set()


class _Question(Struct):
    answered: threading.Event = field(default_factory=threading.Event)
    silent: int | None = None  # the process that does not answer
    errno: int | None = None  # of a reading that is done; 0: it succeeded


class Guardian:
    """Has done elsewhere what could hang or cost here. Any thread may use it; what it needs starts when it is used."""

    def __init__(self, silence: float = SILENCE, patience: float = PATIENCE) -> None:
        """`silence` and `patience`: seconds."""
        self._silence = silence
        self._patience = patience
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._attended = False  # a thread of ours minds the socket
        self._holds: dict[int, Hold] = {}
        self._questions: dict[int, _Question] = {}
        self._next = 0

    def start(self) -> None:
        """Start the process, so that it is there when it is needed; the thread of ours comes later. Raises OSError."""
        with self._lock:
            self._started()

    def hold(self, fds: Sequence[int], pid: int, *, dear: bool = False) -> Hold:
        """Hand the descriptors of probes on a process over, and return when they are held.

        Raises OSError. They are closed here in any case.

        `pid`: 0 for tracepoints, which are on no process: they are taken off whoever does not answer. `dear`: they are
        closed when we are silent. All are when we end.
        """
        with self._lock:
            try:
                other = self._used()
                number = self._number()
                hold = Hold(lambda: self._let_go_of(number))
                self._holds[number] = hold
                letter = Letter.HOLD_DEAR if dear else Letter.HOLD
                for first in range(0, len(fds), MOST_AT_ONCE):
                    socket.send_fds(other, [MESSAGE.pack(letter, number, pid)], list(fds[first : first + MOST_AT_ONCE]))
            finally:
                for fd in fds:
                    os.close(fd)
        hold.held.wait(_START_UP)
        return hold

    def ensure_answers(self, pid: int) -> None:
        """Return when a process has let somebody look at it as we are about to. Raises NoAnswer, OSError."""
        self._try(Letter.TRY, pid, "gomem would wait with it; look again when it answers, or end it")

    def ensure_all_answer(self, pid: int) -> None:
        """Return when every process of the machine has: probes may be put on `pid`. Raises NoAnswer, OSError."""
        fix = "a probe would wait for it, and nobody could fork meanwhile: see what it waits for (/proc/PID/stack)"
        self._try(Letter.TRY_ALL, pid, fix)

    def read(self, pid: int, device: int, file: int, memory: int, start: int, size: int, patience: float) -> None:
        """Have a piece of the file that `pid` executes copied to the same place of a file in memory.

        `file` (O_PATH suffices) lies on the file system of that device, and may end before. `patience`: seconds for all
        of it. Raises TimeoutError where the file system does not answer, OSError where reading fails.
        """
        with self._lock:
            other = self._used()
            number = self._number()
            question = self._questions[number] = _Question()
            message = MESSAGE.pack(Letter.READ, number, pid) + PIECE.pack(device, start, size)
            socket.send_fds(other, [message], [file, memory])
        answered = question.answered.wait(patience)
        with self._lock:
            self._questions.pop(number, None)
        if not answered or question.silent is not None:
            raise TimeoutError
        if question.errno != 0:
            failed = question.errno or errno.EIO  # nobody is left who reads
            raise OSError(failed, os.strerror(failed))

    def close(self) -> None:
        """Let all that is held be closed, and the process end when that is done. Idempotent."""
        with self._lock:
            self._end()

    def _try(self, letter: bytes, pid: int, fix: str) -> None:
        with self._lock:
            other = self._used()
            number = self._number()
            question = self._questions[number] = _Question()
            other.send(MESSAGE.pack(letter, number, pid))
        question.answered.wait(_START_UP)
        with self._lock:
            self._questions.pop(number, None)
        if question.silent is not None or not question.answered.is_set():
            raise no_answer(question.silent or pid, fix)

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _let_go_of(self, number: int) -> None:
        with self._lock:
            if number not in self._holds or self._socket is None:
                return
            try:
                self._socket.send(MESSAGE.pack(Letter.RELEASE, number, 0))
            except OSError:
                self._end()

    def _started(self) -> socket.socket:
        """Return our end of the socket, the process started if it is not there."""
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._end()
        ours, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with others:
            numbers = [str(word) for word in (others.fileno(), self._silence, self._patience)]
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_PROCESS), *numbers], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(others.fileno(),),
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        ours.settimeout(_BEAT)
        self._socket, self._attended = ours, False
        return ours

    def _used(self) -> socket.socket:
        """Return our end of the socket, with the thread that minds it."""
        ours = self._started()
        if not self._attended:
            self._attended = True
            threading.Thread(target=self._attend, args=(ours,), name="gomem-guardian", daemon=True).start()
        return ours

    def _attend(self, ours: socket.socket) -> None:
        """Say that we run, and hear what was done, until the process ends or is another."""
        with suppress(PrivilegeError):  # who may not, cannot drop anything anywhere, and is told so
            drop_here()  # this thread may be older than the moment in which gomem gives up its privileges
        due = time.monotonic()
        while True:
            now = time.monotonic()
            try:
                if now >= due:
                    ours.send(MESSAGE.pack(Letter.ALIVE, 0, 0))
                    due = now + _BEAT
                raw = ours.recv(MESSAGE.size)
            except TimeoutError:
                continue
            except OSError:
                raw = b""
            with self._lock:
                if ours is not self._socket:
                    return
                if len(raw) < MESSAGE.size:
                    self._end()
                    return
                self._hear(*MESSAGE.unpack(raw))

    def _hear(self, letter: bytes, number: int, pid: int) -> None:
        hold = self._holds.get(number)
        question = self._questions.get(number)
        if letter == Letter.HELD and hold is not None:
            hold.held.set()
        elif letter == Letter.RELEASED and hold is not None:
            del self._holds[number]
            hold.closed()
        elif letter == Letter.KEPT and hold is not None:
            hold.settled.set()
        elif letter in (Letter.ANSWERS, Letter.SILENT) and question is not None:
            question.silent = pid if letter == Letter.SILENT else None
            question.answered.set()
        elif letter == Letter.DONE and question is not None:
            question.errno = pid
            question.answered.set()
        elif letter == Letter.LET_GO and hold is not None:
            self._gone(number, hold, pid)

    def _gone(self, number: int, hold: Hold, when: int) -> None:
        del self._holds[number]
        hold.let_go_at = when
        hold.held.set()
        hold.closed()

    def _end(self) -> None:
        for number, hold in list(self._holds.items()):
            self._gone(number, hold, time.monotonic_ns())
        for question in self._questions.values():
            question.answered.set()  # nobody is left who could try: whoever asked goes on as if there were no guardian
        ours, self._socket = self._socket, None
        process, self._process = self._process, None
        if ours is not None:
            ours.close()
        if process is not None:
            # It lives on as long as it must. Who is not waited for is a zombie until we end, which is soon.
            try:
                process.wait(self._patience)
            except subprocess.TimeoutExpired:
                process.returncode = 0  # so that nobody is told of a process that was left behind


def no_answer(pid: int, fix: str) -> NoAnswer:
    """Return the error for a process that does not answer."""
    why = "one of its threads holds the lock of its memory map, and waits, perhaps for a file system"
    return NoAnswer(f"{described(pid)} does not answer: {why}", fix)


def described(pid: int) -> str:
    """Return what to call a process of which nothing is known but that it is there."""
    return f"process {pid}{_name_of(pid)}"


def _name_of(pid: int) -> str:
    try:
        return f" ({printable(Path(f'/proc/{pid}/comm').read_bytes().strip())})"  # for which no lock is taken
    except OSError:
        return ""


_appointed: list[Guardian] = []


def appoint(guardian: Guardian) -> None:
    """Let all targets and sources of this process use one guardian. Without one, looks are not tried first."""
    _appointed[:] = [guardian]


def appointed() -> Guardian | None:
    """Return the guardian of this process, None where nobody has appointed one."""
    return _appointed[0] if _appointed else None
