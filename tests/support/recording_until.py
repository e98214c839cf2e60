"""A recording that lasts until enough was seen, however long that takes on a slow machine."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from gomem.tracer.events.record import EventBatch
from gomem.tracer.model.callers import Symbolize
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.recording.watching import Beginning
from gomem.tracer.report import Overhead
from gomem.tracer.snapshot.inspection import Snapshot

LIMIT = 120.0  # seconds that no recording needs


class Until(Recorder):
    """A recorder that ends the watching, as Ctrl-C does, when it has seen enough.

    `counts` has the events so far by kind, `looks` how many there were.
    """

    def __init__(self, path: Path, enough: Callable[[Until], bool]) -> None:
        """`enough` is asked after each batch of events."""
        super().__init__(str(path))
        self.counts: Counter[int] = Counter()
        self.looks = 0
        self._enough = enough
        self._ended = False
        self._overhead: Callable[[], Overhead] | None = None

    def hits(self, role: str) -> list[int]:
        """Return the hits of each probe of a role."""
        assert self._overhead is not None
        return [probe.hits for probe in self._overhead().probes if probe.role == role]

    def begin(self, beginning: Beginning, symbolize: Symbolize, measure: Callable[[], Overhead]) -> None:
        """Begin."""
        self._overhead = measure
        super().begin(beginning, symbolize, measure)

    def look(self, look: Snapshot, model_input: ModelInput, ended: int) -> None:
        """Take a look."""
        super().look(look, model_input, ended)
        self.looks += 1

    def events(self, batch: EventBatch, until: int, lost: int) -> None:
        """Take events."""
        super().events(batch, until, lost)
        self.counts.update(batch["kind"].tolist())
        if not self._ended and self._enough(self):
            self._ended = True
            os.kill(os.getpid(), signal.SIGINT)
