"""The kernel's process connector for as long as it works, and why it does not."""

from __future__ import annotations

from collections.abc import Callable

from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.kernel.process_events import Batch, ProcessEvents


class Connector:
    """Opens the connector, and does without it when that fails."""

    def __init__(self, listen: Callable[[], ProcessEvents] | None) -> None:
        """`listen` opens it; None: it is not wanted."""
        self.why_not = ""  # it does not work, if it was wanted
        self.errors = 0
        self.overruns = 0  # times that events came faster than they were read
        self._listen = listen
        self._events: ProcessEvents | None = None

    @property
    def works(self) -> bool:
        """Whether it tells of events."""
        return self._events is not None

    def open(self) -> None:
        """Open it, unless it is not wanted or open already."""
        if self._listen is not None and self._events is None:
            try:
                self._events = self._listen()
            except BackendUnavailable as why:
                self.why_not = f"{why.what}: {why.fix}"

    def fileno(self) -> int:
        """Return what to wait at; only while it works."""
        assert self._events is not None
        return self._events.fileno()

    def read(self) -> Batch | None:
        """Return what is there; None where it does not work, from now on or before."""
        if self._events is None:
            return None
        try:
            batch = self._events.read()
        except OSError as error:
            self.errors += 1
            self.why_not = f"the process connector failed: {error.strerror}"
            self.close()
            return None
        self.overruns += batch.overrun
        return batch

    def close(self) -> None:
        """End; idempotent."""
        if self._events is not None:
            self._events.close()
            self._events = None
