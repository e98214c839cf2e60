"""What a connection is doing, since when, and until when."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from enum import Enum

from gomem.exporters.http.limits import Limits

_SECONDS_OF_UNREAD = 1.0


class Phase(Enum):
    """What a connection is doing."""

    GREETING = 1  # the TLS handshake
    READING = 2  # a request's head
    IDLE = 3  # between requests
    ANSWERING = 4
    WRITING = 5  # waiting for the client to read
    LEAVING = 6  # all was said; what still comes is thrown away
    CLOSING = 7  # until what was said has gone out


class PhaseTimer:
    """The phase that a connection is in, with its deadline. Lives on the loop's thread."""

    def __init__(self, limits: Limits, too_late: Callable[[], None]) -> None:
        """Begin with GREETING, whose deadline is asyncio's. `too_late` is called at the others."""
        self.phase = Phase.GREETING
        self.since = time.monotonic()  # when the phase began
        self._limits = limits
        self._too_late = too_late
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def asks_nothing(self) -> bool:
        """Whether the connection waits for its client to say what he wants."""
        return self.phase in (Phase.GREETING, Phase.READING, Phase.IDLE)

    def overdue(self) -> float:
        """Return how many seconds longer the phase has lasted than it may where others want the place; or < 0."""
        patience = {
            Phase.ANSWERING: math.inf,  # this takes as long as we take
            Phase.WRITING: self._limits.eviction_writing_seconds,
        }.get(self.phase, self._limits.eviction_seconds)
        return time.monotonic() - self.since - patience

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.since = time.monotonic()
        if self._alarm is not None:
            self._alarm.cancel()
        limits = self._limits
        seconds = {
            Phase.READING: limits.head_seconds, Phase.IDLE: limits.idle_seconds, Phase.WRITING: limits.write_seconds,
            Phase.LEAVING: _SECONDS_OF_UNREAD, Phase.CLOSING: limits.write_seconds,
        }.get(phase)  # fmt: skip
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(seconds, self._too_late) if seconds is not None else None

    def end(self) -> None:
        """Stay in CLOSING, with no deadline: the connection is gone."""
        self.phase = Phase.CLOSING
        if self._alarm is not None:
            self._alarm.cancel()
