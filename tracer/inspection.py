"""One look at a live target: the runtime's snapshot and the kernel's view of the same moment, joined."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from tracer.errors import GomemError, LayoutError, NotPermitted, SnapshotError, TargetError, TargetGone
from tracer.freeze import LONGEST, Freeze
from tracer.join import AddressSpace, join
from tracer.kernel.maps import read_mappings
from tracer.kernel.ranges import normalise, union
from tracer.kernel.view import KernelView, read_kernel_view
from tracer.mapping_kinds import Program
from tracer.mapping_names import as_limits, disagreements
from tracer.native import NativeRange, native_ranges, stack_pointers
from tracer.program import GoProgram, load_bias, load_program, placed
from tracer.report import Limit, ProcessFacts
from tracer.runtime.contiguous import contiguous_heap, has_contiguous_arena, limit_of_figures
from tracer.runtime.memory import ProcessMemory
from tracer.runtime.self_checks import ensure_fits
from tracer.runtime.snapshot import ATTEMPTS, RuntimeReader, RuntimeSnapshot
from tracer.target import Target

# How often a target is stopped for one look, and for how many seconds it runs in between.
FREEZES = 8
_BETWEEN_FREEZES = 0.003
# Tries for each of the snapshots that a doubtful layout is checked with.
_TAKES_TO_CHECK = 4


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the target saw."""

    kernel: KernelView
    runtime: RuntimeSnapshot | None
    space: AddressSpace
    limits: tuple[Limit, ...]
    frozen_seconds: float | None = None  # for how long it was stopped, for this and all looks before; None: it was not


class Inspector:
    """Looks at one process as often as asked; holds its executable and its memory open."""

    def __init__(self, target: Target, program: GoProgram, *, owns_program: bool = True) -> None:
        """Take over `program`, the executable of `target`; without `owns_program` the caller closes it."""
        self.target = target
        self.program = program
        self._owns_program = owns_program
        self.bias: int | None = 0 if program.executable is not None and not program.executable.pie else None
        self.freeze_last = False  # stop the target for `last_look`
        self._frozen_seconds = 0.0
        self._memory: ProcessMemory | None = None
        self._fits = False

    @classmethod
    def open(cls, target: Target) -> Inspector:
        """Read the target's executable. Raises NotPermitted, TargetGone."""
        program = load_program(target.exe_file)
        try:
            target.check_alive()
        except GomemError:
            program.close()
            raise
        return cls(target, program)

    def __enter__(self) -> Self:
        """Return self; everything is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything."""
        self.close()

    def close(self) -> None:
        """Close the executable and the target's memory; the target itself stays open."""
        if self._owns_program:
            self.program.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def prepare(self) -> None:
        """Learn where the program is loaded, so that addresses have names. Raises TargetGone, NotPermitted."""
        if self.bias is None and self.program.executable is not None:
            mappings = read_mappings(self.target).mappings
            self.bias = load_bias(self.program.executable, self.target.exe_identity, mappings)

    def target_cpu_seconds(self) -> float | None:
        """Return the CPU time that the target has used, None when it is gone."""
        try:
            return self.target.stat().cpu_ticks / os.sysconf("SC_CLK_TCK")
        except TargetError:
            return None

    def facts(self) -> ProcessFacts:
        """Return who the target is."""
        return self.program.describe(self.target.facts())

    def look(self) -> Look:
        """Take one snapshot of both sides.

        What the runtime will not tell becomes a limit. Raises TargetGone when the process has ended or runs
        another program now, NotPermitted when not even the mappings may be read.
        """
        self.target.check_same_program()
        limits = list(self.program.limits)
        return self._joined(*self._read(limits, ATTEMPTS), limits)

    def look_frozen(self, longest: float = LONGEST) -> Look:
        """Take one snapshot with the target stopped, for `longest` seconds in all.

        A stop may come in the middle of what the runtime does; then the target runs on a little, and is stopped again.
        Raises as `look`, and TargetError or NotPermitted where the target cannot be stopped.
        """
        self.target.check_same_program()
        # What has to be learnt only once is learnt while the target still runs.
        with suppress(SnapshotError, LayoutError, NotPermitted):
            self.reader()
        seconds = 0.0
        for attempt in range(1, FREEZES + 1):
            limits = list(self.program.limits)
            with Freeze(self.target, longest - seconds) as freeze:
                runtime, kernel, natives = self._read(limits, 1)
            seconds += freeze.thaw.seconds if freeze.thaw else longest - seconds
            expired = freeze.thaw is None or freeze.thaw.expired
            if expired:
                limits.append(_ran_on(longest))
            exact = not self.program.readable or (runtime is not None and runtime.consistency.exact)
            if exact or expired or seconds > longest / 2 or attempt == FREEZES:
                break
            time.sleep(_BETWEEN_FREEZES)
        if runtime is not None:
            runtime = replace(runtime, consistency=replace(runtime.consistency, attempts=attempt))
        self._frozen_seconds += seconds
        return replace(self._joined(runtime, kernel, natives, limits), frozen_seconds=round(self._frozen_seconds, 6))

    def last_look(self) -> Look:
        """Take the look that a watch ends with: frozen if `freeze_last`; as it runs, with a limit, if that fails.

        Raises as `look`.
        """
        if not self.freeze_last:
            return self.look()
        try:
            return self.look_frozen()
        except TargetGone:
            raise
        except (TargetError, NotPermitted) as error:
            look = self.look()
            return replace(look, limits=(*look.limits, Limit("the target standing still", error.what, error.fix)))

    def _read(
        self, limits: list[Limit], attempts: int
    ) -> tuple[RuntimeSnapshot | None, KernelView, list[NativeRange]]:
        # The runtime first: its pages move faster than its mappings, and the kernel's view has its own retries.
        runtime = self._runtime(limits, attempts)
        kernel = read_kernel_view(self.target)
        return runtime, kernel, self._natives(kernel, runtime)

    def _joined(
        self, runtime: RuntimeSnapshot | None, kernel: KernelView, natives: list[NativeRange], limits: list[Limit]
    ) -> Look:
        limits += kernel.limits
        space = join(kernel.mappings, kernel.residency, runtime, self._where(kernel), natives)
        if runtime is not None:
            limits += as_limits(disagreements(kernel.mappings, space))
        self.target.check_same_program()
        return Look(kernel, runtime, space, tuple(limits))

    def symbolize(self, address: int) -> str | None:
        """Return the name of the Go function at an address in the process, None outside Go's code."""
        return self.program.symbolize(address, self.bias)

    def _where(self, kernel: KernelView) -> Program | None:
        exe = self.program.executable
        if exe is None:
            return None
        bias = load_bias(exe, self.target.exe_identity, kernel.mappings)
        return placed(exe, self.target.exe_identity, kernel.mappings, bias) if bias is not None else None

    def _natives(self, kernel: KernelView, runtime: RuntimeSnapshot | None) -> list[NativeRange]:
        regions = runtime.regions if runtime else []
        owned = normalise([region.start for region in regions], [region.end for region in regions])
        try:
            contiguous = self._contiguous(kernel) if runtime is None else []
            heap = normalise([one.start for one in contiguous], [one.end for one in contiguous])
            natives = native_ranges(
                kernel.mappings, kernel.residency, union(owned, heap), stack_pointers(self.target), self.memory()
            )
        except NotPermitted:
            return []
        return [*contiguous, *natives]

    def _contiguous(self, kernel: KernelView) -> list[NativeRange]:
        """Return the heap of a runtime of which only the place can be told (Go 1.10 and older)."""
        layout = self.program.layout
        if layout is None or not has_contiguous_arena(layout) or not self.program.readable or self.bias is None:
            return []
        try:
            return contiguous_heap(self.memory(), layout, self.program.globals["mheap_"] + self.bias, kernel.mappings)
        except (SnapshotError, LayoutError):
            return []

    def memory(self) -> ProcessMemory:
        """Return the target's memory, opened at the first call. Raises NotPermitted, TargetGone."""
        if self._memory is None:
            self._memory = ProcessMemory(self.target.pid)
            self.target.check_same_program()
        return self._memory

    def _runtime(self, limits: list[Limit], attempts: int) -> RuntimeSnapshot | None:
        layout = self.program.layout
        if layout is None or not self.program.readable:
            return None
        try:
            if has_contiguous_arena(layout):
                self.prepare()
                raise limit_of_figures(self.program.release)
            snapshot = self.reader().snapshot(attempts)
        except (SnapshotError, LayoutError, NotPermitted) as error:
            limits.append(Limit("the Go runtime's state", error.what, error.fix or "the kernel's view is reported"))
            return None
        limits += [Limit("part of the runtime's own memory", missed, "") for missed in snapshot.missed]
        return snapshot

    def reader(self) -> RuntimeReader:
        """Return a reader of the target's runtime, ready to read one snapshot.

        Raises SnapshotError, LayoutError where the runtime cannot be read, NotPermitted, TargetGone.
        """
        if self.program.layout is None:
            raise LayoutError("the layout of this runtime is not known")
        memory = self.memory()
        memory.start_budget()
        self.prepare()
        if self.bias is None:
            raise SnapshotError("the process does not map its own executable")
        bias = self.bias
        addresses = {name: address + bias for name, address in self.program.globals.items()}
        reader = RuntimeReader(memory, self.program.layout, addresses)
        self._ensure_fits(reader, memory, addresses)
        return reader

    def _ensure_fits(self, reader: RuntimeReader, memory: ProcessMemory, addresses: dict[str, int]) -> None:
        """Let a layout that was never measured for this very build prove itself, once. Raises LayoutError."""
        layout = self.program.layout
        if self._fits or layout is None or layout.confirmed:
            return

        def take() -> RuntimeSnapshot:
            memory.start_budget()
            return reader.snapshot(_TAKES_TO_CHECK)

        ensure_fits(take, memory, layout, addresses)
        self._fits = True
        memory.start_budget()


def _ran_on(longest: float) -> Limit:
    return Limit(
        "the target standing still",
        f"it was let go after {longest:g} s, before all of it was read: some of the figures are of the time after",
        "",
    )
