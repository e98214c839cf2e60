"""Stopping a target for the time of a reading, so that nothing moves; it always runs on.

A process of our own (freezer.py) traces all threads of the target for that time. The kernel lets them go when that
process ends, and it ends when we let go, when we die in whatever way, and at the latest when the time is up. The target
sees no signal; a system call that it waits in goes on as after SIGSTOP and SIGCONT: transparently, but for the few that
signal(7) lists (epoll_wait among them), which return EINTR as the runtime expects of them.

A sleep with a timeout goes on by a system call that the kernel puts in its place, restart_syscall: a seccomp filter
that lacks it would end the target, or make its sleep fail. So a target under a filter is stopped only when somebody
says that it may be. Source: kernel/signal.c, restart_syscall(2).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from gomem.tracer.errors import NotPermitted, TargetError, TargetGone
from gomem.tracer.machine.rights import remedy_for
from gomem.tracer.proc.small_files import printable
from gomem.tracer.process.resuming import STOP_FILTERED, UNDER_A_FILTER
from gomem.tracer.process.target import Target

LONGEST = 2.0  # seconds that a target is stopped at the most
_HELPER = Path(__file__).with_name("freezer.py")
_START_UP = 10.0  # seconds for a helper to come up on a machine that is busy
_LAST_WORDS = 3.0


class Thaw(Struct, frozen=True):
    """How a freeze ended: for how long the target was stopped, and whether it ran on before we had finished."""

    seconds: float
    expired: bool


class Freeze:
    """A target's threads, stopped for the time of a `with` block.

    After the block `thaw` tells how long that took; None if the helper was killed.
    """

    def __init__(self, target: Target, longest: float = LONGEST, *, filtered: bool = False) -> None:
        """`longest`: after so many seconds the target runs on, finished or not. `filtered`: also under a filter."""
        self._filtered = filtered
        self.threads = 0
        self.uninterruptible = 0  # threads asleep in the kernel, which stop before they reach their program
        self.thaw: Thaw | None = None
        self._target = target
        self._longest = longest
        self._helper: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def __enter__(self) -> Self:
        """Stop the target. Raises TargetGone, NotPermitted, and TargetError where another tracer has it."""
        directory = self._target.open_file(".", os.O_RDONLY | os.O_DIRECTORY)
        words = [str(directory), str(self._target.pid), str(self._longest), str(int(self._filtered))]
        command = [sys.executable, "-I", "-S", str(_HELPER), *words]
        try:
            self._helper = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                pass_fds=(directory,), bufsize=0,
            )  # fmt: skip
        finally:
            os.close(directory)
        try:
            heard = self._hear(_START_UP + self._longest)
            if heard is None or "error" in heard:
                raise self._explain(heard)
        except BaseException:
            self._end()
            raise
        self.threads, self.uninterruptible = _count(heard, "threads"), _count(heard, "uninterruptible")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the target run on."""
        self._end()

    def _end(self) -> None:
        helper = self._helper
        if helper is None:
            return
        assert helper.stdin is not None
        assert helper.stdout is not None
        try:
            helper.stdin.close()
            words = self._hear(_LAST_WORDS) or {}
            seconds = words.get("frozen_seconds")
            if isinstance(seconds, float):
                self.thaw = Thaw(seconds, words.get("expired") is True)
            helper.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            helper.kill()
            helper.wait()
            helper.stdout.close()
            self._helper = None

    def _hear(self, seconds: float) -> dict[str, object] | None:
        """Return the helper's next line, None if it has ended or says nothing for so long."""
        assert self._helper is not None
        assert self._helper.stdout is not None
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._helper.stdout, select.POLLIN)
        while b"\n" not in self._rest:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                return None
            piece = os.read(self._helper.stdout.fileno(), 1 << 16)
            if not piece:
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        words: dict[str, object] = json.loads(line)
        return words

    def _explain(self, words: dict[str, object] | None) -> TargetError | NotPermitted:
        who = f"process {self._target.pid} ({self._target.comm})"
        if words is None:
            return TargetError(f"cannot stop {who}: gomem's own helper ended without a word")
        reason, detail = words.get("error"), words.get("detail")
        if reason == "gone":
            return TargetGone(f"{who} has exited")
        if reason == "traced":
            return TargetError(
                f"cannot stop {who}: process {detail}{_name_of(detail)} traces it already, and the kernel allows one "
                "tracer only",
                "end that tracer (a debugger, strace, gomem trace --backend strace), or leave --freeze away",
            )
        if reason == "filtered":
            return TargetError(f"{who} was not stopped: {UNDER_A_FILTER}", STOP_FILTERED)
        if reason == "not permitted":
            return NotPermitted(
                f"cannot stop {who}: permission denied",
                f"{remedy_for(self._target.pid)}; without --freeze the target is read as it runs",
            )
        return TargetError(f"cannot stop {who}: {detail}", "without --freeze the target is read as it runs")


def _count(words: dict[str, object] | None, name: str) -> int:
    value = (words or {}).get(name)
    return value if isinstance(value, int) else 0


def _name_of(pid: object) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return f" ({printable(file.read().strip())})"
    except OSError:
        return ""
