"""Uprobes of one program of one process whose hits are summed up in the kernel, and by call stack.

Probes are put on and taken off as a whole. Only when all of them are in place do they count, and no longer when the
first is taken off: what is on for a part of a burst would make one thing look more frequent than another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from gomem.bpf.stacks import StackReader, StackRoom
from gomem.bpf.switchable_uprobes import HeldUprobes
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.source import ProbeStatus

_PROBES = 256  # bpf/programs/counting.h
_TRIAL_COUNTER = _PROBES - 1


class CountedProbes:
    """The probes, and what they have counted; they are on while somebody holds them."""

    def __init__(
        self, source: Path, function: str, ids: TargetIds, specs: Sequence[UprobeSpec], pid: int,
        constants: Mapping[str, int], room: StackRoom,
    ) -> None:  # fmt: skip
        """Compile and load. `source` includes counting.h and stacks.h. Raises BackendUnavailable or NotPermitted."""
        self.specs = tuple(specs)
        self.cpus = possible_cpus()
        self._pid = pid
        self._depth = room.depth
        self._cookies = {spec: uprobes.cookie(spec, at) for at, spec in enumerate(self.specs)}
        self.module = Module(source, {**constants, **room.constants(), **target_constants(ids)})
        self.stacks = StackReader(self.module, room)
        self.price: HitPrice | None = None
        self._trial_frames = 0
        try:
            self._program = self._loaded(function)
        except BaseException:
            self.module.close()
            raise

    def _loaded(self, function: str) -> UprobeProgram:
        """Return the program, for the first way of attaching it that the kernel has."""
        with suppress(BackendUnavailable):
            program = self.module.load(function, KPROBE, syscalls.BPF_TRACE_UPROBE_MULTI)
            if uprobes.multi_supported(program):
                return UprobeProgram("multi", program)
        with suppress(BackendUnavailable):
            return UprobeProgram("perf", self.module.load(function, KPROBE))
        return UprobeProgram("copies", template=self.module.template(function))

    @property
    def backend(self) -> Attached:
        """The way in which the probes are attached."""
        return self._program.backend

    def find_price(self) -> None:
        """Find out what a hit costs on this machine; `price` stays None where it cannot be measured."""
        self.price = price_of_a_hit(self._program, _TRIAL_COUNTER, self._depth)
        self._trial_frames = self.stacks.frames()

    def held_by(self, keeper: Keeper) -> HeldUprobes:
        """Return what puts them on and takes them off."""
        return HeldUprobes(self._program, self._pid, keeper, self._cookies)

    def count(self, *, on: bool) -> None:
        """Begin or end counting."""
        syscalls.map_update(self.module.map_fd("counting"), 0, int(on).to_bytes(8, "little"))

    def hits(self) -> int:
        """Return how often any of them was hit, counting or not."""
        return per_cpu_sum(self.module.map_fd("all_hits"), 0)

    def spent(self) -> float:
        """Return what all hits have cost the target, seconds, by their price or what is known of other machines."""
        return self._price().of(self.hits(), self.stacks.frames() - self._trial_frames)

    def average_price(self) -> float:
        """Return what a hit has cost on average, seconds; before there is any, what one without callers would cost."""
        hits = self.hits()
        return self.spent() / hits if hits else self._price().of(1, 1)

    def _price(self) -> HitPrice:
        return self.price or HitPrice(max(cost.hit(spec) for spec in self.specs))

    def probes(self) -> list[ProbeStatus]:
        """Return the probes with their hits."""
        hits = np.frombuffer(self.per_cpu("hits", 8 * _PROBES), np.uint64).reshape(-1, _PROBES).sum(axis=0)
        return [ProbeStatus(spec.role, spec.symbol, int(hits[at])) for at, spec in enumerate(self.specs)]

    def per_cpu(self, name: str, size: int) -> bytes:
        """Return the one value of a per-CPU array, of `size` bytes on each CPU."""
        return syscalls.map_lookup(self.module.map_fd(name), 0, size * self.cpus)

    def close(self) -> None:
        """Free the kernel's memory; the probes must be off. Idempotent."""
        self._program.close()
        self.module.close()
