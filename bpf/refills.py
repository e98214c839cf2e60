"""The roles refill and large_alloc: counted in the kernel by call stack, and read now and then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gomem.bpf import cost, syscalls
from gomem.bpf.counted_probes import CountedProbes
from gomem.bpf.probes.trial_hits import HitPrice
from gomem.bpf.program import TargetIds, possible_cpus
from gomem.bpf.stacks import StackRoom, over_cpus
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.events.refills import REFILL_SUM, ROW_LARGE, ROW_TRIAL, ROWS, RefillSum
from gomem.tracer.layout.layout import Layout

SOURCE = Path(__file__).parent / "programs" / "refills.c"
ROLES = (EventKind.REFILL, EventKind.LARGE_ALLOC)
DEPTH = 128  # return addresses of a stack: as many as Go's own profiles keep since Go 1.23
_FUNCTION = "on_refill"


class RefillProbes(CountedProbes):
    """The probes of ROLES of one program of one process, and what they have counted."""

    def __init__(self, ids: TargetIds, specs: Sequence[UprobeSpec], layout: Layout, pid: int) -> None:
        """Compile and load. Raises BackendUnavailable, NotPermitted, or LayoutError."""
        room = StackRoom(DEPTH, REFILL_SUM, possible_cpus())
        super().__init__(SOURCE, _FUNCTION, ids, specs, pid, _constants(layout), room)
        self.module.forget_compiler()

    def find_price(self) -> None:
        """Find out what a hit costs, or take what is known of other machines, if that is more.

        Trial hits come one after the other, refills among other work: the kernel's code is not at hand then.
        """
        super().find_price()
        if self.price is not None:
            known = max(cost.hit(spec) for spec in self.specs)
            self.price = HitPrice(max(self.price.hit, known), self.price.frame)

    def sums(self) -> Iterator[RefillSum]:
        """Yield what was counted until now, by stack and span class."""
        for stack, row, figures in self.stacks.all():
            if row != ROW_TRIAL:
                yield RefillSum(stack, row, *figures)
        untold = over_cpus(
            np.frombuffer(self.per_cpu("untold", REFILL_SUM.itemsize * ROWS), REFILL_SUM).reshape(-1, ROWS).T
        )
        for row in np.flatnonzero(untold["samples"]).tolist():
            if row != ROW_TRIAL:
                yield RefillSum((), row, *untold[row].tolist())

    def changes(self) -> dict[int, int]:
        """Return by span class how often a sample was of another stack than the one before it."""
        raw = syscalls.map_lookup(self.module.map_fd("order"), 0, 2 * 8 * ROWS)
        counts = np.frombuffer(raw, np.uint64)[ROWS:]
        return {row: int(counts[row]) for row in np.flatnonzero(counts).tolist()}


def _constants(layout: Layout) -> dict[str, int]:
    """Return what bpf/programs/refills.c is compiled with for a release."""
    nelems = layout.field("mspan", "nelems")
    constants = {
        "ALLOC_AT": layout.offset("mcache", "alloc"),
        "NELEMS_AT": nelems.offset,
        "NELEMS_BYTES": nelems.size,
        "PAGE": layout.constant("page_size"),
        "SUM_BYTES": REFILL_SUM.itemsize,
        "ROW_LARGE": ROW_LARGE,
        "ROW_TRIAL": ROW_TRIAL,
        "KIND_LARGE_ALLOC": int(EventKind.LARGE_ALLOC),
    }
    # Source: refill in runtime/mcache.go. Before Go 1.19 all slots of a span were counted when it was taken.
    if layout.has("mspan", "allocCountBeforeCache"):
        constants["BEFORE_AT"] = layout.offset("mspan", "allocCountBeforeCache")
    return constants
