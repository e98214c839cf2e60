"""Telling the events of a batch apart, cheaply also where a batch has few of them.

A process that is quiet makes a few events many times a second, and then NumPy's cost per call is all that counts:
comparing a column with an EventKind takes it six times as long as with an int, np.isin twenty times, and joining two
arrays of EVENT eight times as long as joining the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.record import EVENT, EventBatch, EventKind

_BYTES = np.dtype((np.void, EVENT.itemsize))

KindTable = NDArray[np.bool_]


def table(*kinds: EventKind) -> KindTable:
    """Return what tells of events whether their kind is one of these: `table(...)[batch["kind"]]`."""
    made = np.zeros(1 << 16, np.bool_)
    made[list(kinds)] = True
    return made


def rows_among(batch: EventBatch, kinds: KindTable) -> NDArray[np.intp]:
    """Return the rows of the events of some kinds."""
    rows: NDArray[np.intp] = kinds[batch["kind"]].nonzero()[0]
    return rows


def kinds_in(batch: EventBatch) -> frozenset[int]:
    """Return the numbers of the kinds that a batch has."""
    return frozenset(np.bincount(batch["kind"]).nonzero()[0].tolist())


def picked(batch: EventBatch, rows: NDArray[np.intp]) -> EventBatch:
    """Return a copy of some events."""
    return np.ascontiguousarray(batch).view(_BYTES)[rows].view(EVENT)


def joined(batches: Sequence[EventBatch]) -> EventBatch:
    """Return one batch or more as one."""
    if len(batches) == 1:
        return batches[0]
    return np.concatenate([np.ascontiguousarray(batch).view(_BYTES) for batch in batches]).view(EVENT)
