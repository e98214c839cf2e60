"""Watching for how a process ends, from while it lives: everything that a report says of its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from gomem.tracer.ending.afterlife import Afterlife, WaitStatus
from gomem.tracer.ending.oom import OomWatch
from gomem.tracer.errors import GomemError
from gomem.tracer.process.launch import Launched
from gomem.tracer.process.target import Target
from gomem.tracer.report import FailedCall, Limit, ProcessEnding

_COLLECTED_WITHIN = 2.0  # seconds; a child whose end was seen is about to be a zombie
_NOBODY_TELLS = Limit(
    "ending-unknown",
    "how the process ended: its exit code or signal",
    "its parent has collected it, and this kernel tells nobody else afterwards",
    "needs Linux 6.15; before that, the process connector tells it to gomem in the initial PID and user namespaces "
    "(CAP_NET_ADMIN before Linux 6.6); or let gomem start the command",
)


class EndWatch:
    """Holds on to one process, our child if it was `launched`. Begin it while the process lives; close it."""

    def __init__(self, pid: int, launched: Launched | None = None) -> None:
        """Begin; what may not be seen is left out."""
        self._launched = launched
        self._afterlife = Afterlife(pid) if launched is None else None
        self._oom: OomWatch | None = None
        with suppress(GomemError), Target.open(pid) as target:
            self._oom = OomWatch(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; idempotent."""
        for held in (self._afterlife, self._oom):
            if held is not None:
                held.close()

    def see(self, target: Target) -> None:
        """Note that the process, looked at just now, lives: it may have been moved to another cgroup."""
        if self._oom is not None:
            self._oom.see(target)
        if self._afterlife is not None:
            self._afterlife.listen()

    def ending(self, failed_calls: Callable[[], list[FailedCall]]) -> tuple[ProcessEnding, list[Limit]]:
        """Return how the process ended, which has just been seen to, and what nobody tells of it."""
        status = self._status()
        if status is None:
            return ProcessEnding(None, None, None, failed_calls=failed_calls()), [_NOBODY_TELLS]
        killed = status.signal_name == "SIGKILL"
        launched = self._launched
        ending = ProcessEnding(
            exit_code=status.code,
            signal=status.signal_name,
            core_dumped=status.core_dumped,
            oom=self._oom.result() if killed and self._oom is not None else None,
            peak_rss=launched.peak_rss if launched is not None else None,
            cpu_seconds=launched.cpu_seconds if launched is not None else None,
            failed_calls=failed_calls(),
        )
        return ending, []

    def _status(self) -> WaitStatus | None:
        if self._launched is None:
            return self._afterlife.status() if self._afterlife is not None else None
        self._launched.wait(_COLLECTED_WITHIN)
        status = self._launched.wait_status
        return WaitStatus.parse(status) if status is not None else None
