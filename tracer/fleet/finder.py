"""Asking discovery in a thread of its own: it may have to wait for somebody, and the turns go on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from gomem.tracer.discovery.changes import Changes
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.process.abandonable import AbandonableWorker


class Finder:
    """Asks a discovery that has been started. For one thread."""

    def __init__(self, discovery: Discovery, patience: float) -> None:
        """`patience`: seconds that its end may take."""
        self._discovery = discovery
        self._patience = patience
        self._worker = AbandonableWorker("gomem-discovery")
        self._answers: list[Changes | Exception] = []

    def changes(self, seconds: float) -> Iterator[Changes]:
        """Return who came and went; if discovery does not answer within so many seconds, another time.

        Raises what it raised.
        """
        if not self._worker.busy:
            self._worker.begin(self._ask)
            self._worker.wait(seconds)
        while self._answers:
            answer = self._answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def close(self) -> None:
        """End; a thread that has to wait does when it is back."""
        self._worker.wait(self._patience)
        self._worker.leave()

    def _ask(self) -> None:
        try:
            changes = self._discovery.poll(0.0)
        except Exception as error:
            self._answers.append(error)
        else:
            if changes:
                self._answers.append(changes)
