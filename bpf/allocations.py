"""The role mallocgc: counts of allocations by size class, by type and by call stack, made in the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gomem.bpf import syscalls
from gomem.bpf.counted_probes import CountedProbes
from gomem.bpf.program import TargetIds, possible_cpus
from gomem.bpf.stacks import StackRoom, most_sums, over_cpus
from gomem.tracer.events.allocations import ROW_TINY, ROW_TRIAL, ROW_ZERO, ROWS, SUM, AllocationCounts, counts_of
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.runtime.size_classes import SizeClasses

SOURCE = Path(__file__).parent / "programs" / "allocations.c"
_MOST_TYPES = 1 << 14  # pairs of a type and a size class, of what has no room with its stack
_DEPTH = 16  # return addresses at most: the runtime's own functions are a dozen deep at worst
_CLASSES = 4104  # bpf/programs/allocations.c
_PTR_BYTES_AT = 8  # abi.Type in internal/abi/type.go, before Go 1.21 _type in runtime/type.go; the same since Go 1.4
_FUNCTION = "on_allocation"


class AllocationProbes(CountedProbes):
    """The probes of one program of one process, and what they have counted; they are on while somebody holds them."""

    def __init__(self, ids: TargetIds, specs: Sequence[UprobeSpec], sizes: SizeClasses, pid: int) -> None:
        """Compile and load. Raises BackendUnavailable or NotPermitted."""
        cpus = possible_cpus()
        self._types = most_sums(_MOST_TYPES, SUM, cpus)
        constants = {
            "MOST_SMALL": sizes.most_small,
            "MOST_WITHOUT_HEADER": sizes.most_without_header,
            "HEADER": sizes.header,
            "MOST_TINY": sizes.most_tiny,
            "PAGE": sizes.page,
            "PTR_BYTES_AT": _PTR_BYTES_AT,
            "TYPES": self._types,
            "SUM_BYTES": SUM.itemsize,
            "ROW_TRIAL": ROW_TRIAL,
            "ROW_ZERO": ROW_ZERO,
            "ROW_TINY": ROW_TINY,
        }
        super().__init__(SOURCE, _FUNCTION, ids, specs, pid, constants, StackRoom(_DEPTH, SUM, cpus))
        try:
            table = sizes.by_size().ljust(_CLASSES, b"\0")
            syscalls.map_update(self.module.map_fd("classes"), 0, table)
            self.module.forget_compiler()
        except BaseException:
            self.close()
            raise

    def counts(self) -> AllocationCounts:
        """Return what was counted until now."""
        rows = self.per_cpu("rows", SUM.itemsize * ROWS)
        untold = self.per_cpu("untold", SUM.itemsize)
        raw_keys, raw = syscalls.map_entries(self.module.map_fd("types"), SUM.itemsize * self.cpus, self._types)
        pairs, stacked = self.stacks.sums()
        return counts_of(
            over_cpus(np.frombuffer(rows, SUM).reshape(self.cpus, ROWS).T),
            (pairs["stack"], pairs["number"], stacked),
            (np.frombuffer(raw_keys, np.uint64), over_cpus(np.frombuffer(raw, SUM).reshape(-1, self.cpus))),
            over_cpus(np.frombuffer(untold, SUM)),
        )
