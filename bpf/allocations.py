"""The role mallocgc: counts of allocations by size class, by type and by call stack, made in the kernel.

Probes are put on and taken off as a whole. Only when all of them are in place do they count, and no longer when the
first is taken off: what is on for a part of a burst would make the size classes look other than they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from gomem.bpf import cost, syscalls
from gomem.bpf.bcc_import import KPROBE, Module
from gomem.bpf.one_target import per_cpu_sum, target_constants
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.trial_hits import HitPrice, price_of_a_hit
from gomem.bpf.probes.uprobe_program import Attached, UprobeProgram
from gomem.bpf.probes.uprobes import Keeper
from gomem.bpf.program import TargetIds, possible_cpus
from gomem.bpf.stacks import StackReader, StackRoom, most_sums, over_cpus
from gomem.bpf.switchable_uprobes import HeldUprobes
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.allocations import ROW_TINY, ROW_TRIAL, ROW_ZERO, ROWS, SUM, AllocationCounts, counts_of
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.runtime.size_classes import SizeClasses

SOURCE = Path(__file__).parent / "programs" / "allocations.c"
_MOST_TYPES = 1 << 14  # pairs of a type and a size class, of what has no room with its stack
_DEPTH = 16  # return addresses at most: the runtime's own functions are a dozen deep at worst
_PROBES = 256  # bpf/programs/allocations.c
_CLASSES = 4104
_PTR_BYTES_AT = 8  # abi.Type in internal/abi/type.go, before Go 1.21 _type in runtime/type.go; the same since Go 1.4
_FUNCTION = "on_allocation"
_TRIAL_COUNTER = _PROBES - 1


class AllocationProbes:
    """The probes of one program of one process, and what they have counted; they are on while somebody holds them."""

    def __init__(self, ids: TargetIds, specs: Sequence[UprobeSpec], sizes: SizeClasses, pid: int) -> None:
        """Compile and load. Raises BackendUnavailable or NotPermitted."""
        self.specs = tuple(specs)
        self._pid = pid
        self._cpus = possible_cpus()
        self._types = most_sums(_MOST_TYPES, SUM, self._cpus)
        room = StackRoom(_DEPTH, SUM, self._cpus)
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
        self._module = Module(SOURCE, constants | room.constants() | target_constants(ids))
        self.stacks = StackReader(self._module, room)
        self._cookies = {spec: uprobes.cookie(spec, at) for at, spec in enumerate(self.specs)}
        self.price: HitPrice | None = None
        self._trial_frames = 0
        try:
            self._program = self._loaded()
        except BaseException:
            self._module.close()
            raise
        try:
            table = sizes.by_size().ljust(_CLASSES, b"\0")
            syscalls.map_update(self._module.map_fd("classes"), 0, table)
            self._module.forget_compiler()
        except BaseException:
            self.close()
            raise

    def _loaded(self) -> UprobeProgram:
        """Return the program, for the first way of attaching it that the kernel has."""
        with suppress(BackendUnavailable):
            program = self._module.load(_FUNCTION, KPROBE, syscalls.BPF_TRACE_UPROBE_MULTI)
            if uprobes.multi_supported(program):
                return UprobeProgram("multi", program)
        with suppress(BackendUnavailable):
            return UprobeProgram("perf", self._module.load(_FUNCTION, KPROBE))
        return UprobeProgram("copies", template=self._module.template(_FUNCTION))

    @property
    def backend(self) -> Attached:
        """The way in which the probes are attached."""
        return self._program.backend

    def find_price(self) -> None:
        """Find out what a hit costs on this machine; `price` stays None where it cannot be measured."""
        self.price = price_of_a_hit(self._program, _TRIAL_COUNTER, _DEPTH)
        self._trial_frames = self.stacks.frames()

    def held_by(self, keeper: Keeper) -> HeldUprobes:
        """Return what puts them on and takes them off."""
        return HeldUprobes(self._program, self._pid, keeper, self._cookies)

    def count(self, *, on: bool) -> None:
        """Begin or end counting."""
        syscalls.map_update(self._module.map_fd("counting"), 0, int(on).to_bytes(8, "little"))

    def hits(self) -> int:
        """Return how often any of them was hit, counting or not."""
        return per_cpu_sum(self._module.map_fd("all_hits"), 0)

    def spent(self) -> float:
        """Return what all hits have cost the target, seconds, by their price or what is known of other machines."""
        return self._price().of(self.hits(), self.stacks.frames() - self._trial_frames)

    def average_price(self) -> float:
        """Return what a hit has cost on average, seconds; before there is any, what one without callers would cost."""
        hits = self.hits()
        return self.spent() / hits if hits else self._price().of(1, 1)

    def _price(self) -> HitPrice:
        return self.price or HitPrice(max(cost.hit(spec) for spec in self.specs))

    def counts(self) -> AllocationCounts:
        """Return what was counted until now."""
        rows = self._per_cpu("rows", SUM.itemsize * ROWS)
        untold = self._per_cpu("untold", SUM.itemsize)
        raw_keys, raw = syscalls.map_entries(self._module.map_fd("types"), SUM.itemsize * self._cpus, self._types)
        pairs, stacked = self.stacks.sums()
        return counts_of(
            over_cpus(np.frombuffer(rows, SUM).reshape(self._cpus, ROWS).T),
            (pairs["stack"], pairs["number"], stacked),
            (np.frombuffer(raw_keys, np.uint64), over_cpus(np.frombuffer(raw, SUM).reshape(-1, self._cpus))),
            over_cpus(np.frombuffer(untold, SUM)),
        )

    def probes(self) -> list[ProbeStatus]:
        """Return the probes with their hits."""
        hits = np.frombuffer(self._per_cpu("hits", 8 * _PROBES), np.uint64).reshape(-1, _PROBES).sum(axis=0)
        return [ProbeStatus(spec.role, spec.symbol, int(hits[at])) for at, spec in enumerate(self.specs)]

    def close(self) -> None:
        """Free the kernel's memory; the probes must be off. Idempotent."""
        self._program.close()
        self._module.close()

    def _per_cpu(self, name: str, size: int) -> bytes:
        return syscalls.map_lookup(self._module.map_fd(name), 0, size * self._cpus)
