"""How many events a second the model takes, alone and behind the reconciler that puts them in order.

`python -m tests.bench.model --events 1000000`; pure, so it needs neither rights nor a target.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from gomem.tracer.events.record import EventBatch
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.model.space import AddressSpaceModel
from tests.support.samples.events import churn

BATCH = 10_000  # events, about what a poll returns under load


def symbolize(address: int) -> str:
    """Name every address, as a program with symbols does."""
    return f"runtime.f{address:x}"


def following() -> tuple[Callable[[EventBatch], None], Callable[[], int]]:
    """Return what feeds a reconciler, and what counts the pieces of its model."""
    activity = Activity(symbolize)
    reconciler = Reconciler(activity, AddressSpaceModel(callers=activity.callers), follows_states=True)

    def feed(batch: EventBatch) -> None:
        reconciler.feed(batch, int(batch["time"][-1]))

    def pieces() -> int:
        reconciler.flush()
        return len(reconciler.model.mappings.map) + len(reconciler.model.states.map)

    return feed, pieces


def modelling() -> tuple[Callable[[EventBatch], None], Callable[[], int]]:
    """Return what feeds a model alone, and what counts its pieces."""
    model = AddressSpaceModel.empty(symbolize)
    return model.apply, lambda: len(model.mappings.map) + len(model.states.map)


def counting() -> tuple[Callable[[EventBatch], None], Callable[[], int]]:
    """Return what feeds the activity alone, and what counts the rows of its log."""
    activity = Activity(symbolize)
    return activity.feed, lambda: len(activity.log()[0])


def main() -> None:
    """Print one row for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--slots", type=int, nargs="*", default=[200, 20_000, 200_000], help="places they fall on")
    asked = parser.parse_args()
    print(f"{'part':12} {'places':>8} {'CPU s':>7} {'events/s':>11} {'pieces':>9}")
    for slots in asked.slots:
        events = churn(asked.events, np.random.default_rng(1), slots)
        for part, make in (("activity", counting), ("model", modelling), ("reconciler", following)):
            feed, pieces = make()
            began = time.process_time()
            for start in range(0, len(events), BATCH):
                feed(events[start : start + BATCH])
            count = pieces()
            spent = time.process_time() - began
            print(f"{part:12} {slots:8} {spent:7.2f} {len(events) / spent:11,.0f} {count:9,}")


if __name__ == "__main__":
    main()
