"""The Go runtimes of a process beside the one that the report is of: where their memory is, and how much they have.

Their memory is neither C's nor the reported runtime's, and must not be called so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from msgspec import Struct

from gomem.tracer.addresses.ranges import Ranges, normalise, subtract, union
from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.native.c_memory import NativeRange
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram, load_bias
from gomem.tracer.report import GoRuntime
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.snapshot.reading import proven, reader_of

_ATTEMPTS = 4
_FIGURES = ("HeapInuse", "HeapSys", "HeapReleased", "StackInuse", "Sys")
_KIND = "other_runtime"


class SeenBeside(Struct, frozen=True):
    """What was seen of one of them; the ranges are sorted and disjoint."""

    runtime: GoRuntime
    ranges: Ranges


class RuntimesBeside:
    """Reads them, look by look."""

    def __init__(self, target: Target, programs: tuple[GoProgram, ...]) -> None:
        self._target = target
        self._programs = [program.proven() for program in programs]

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._programs)

    @property
    def files(self) -> list[tuple[int, int]]:
        """The device and inode of each that is in a library."""
        modules = (program.module for program in self._programs)
        return [(module.device, module.inode) for module in modules if module is not None]

    def see(self, memory: ProcessMemory, mappings: Mappings, residency: Residency) -> list[SeenBeside]:
        """Return what there is of each now; one that cannot be read has no figures, and no ranges.

        Raises NotPermitted and TargetGone.
        """
        return [self._see(at, memory, mappings, residency) for at in range(len(self._programs))]

    def _see(self, at: int, memory: ProcessMemory, mappings: Mappings, residency: Residency) -> SeenBeside:
        program = self._programs[at]
        none = np.zeros(0, np.uint64)
        try:
            snapshot = self._read(at, memory, mappings)
        except (SnapshotError, LayoutError) as error:
            return SeenBeside(_row(program, self._target, why=error.what), Ranges(none, none))
        regions = snapshot.regions
        ranges = normalise([region.start for region in regions], [region.end for region in regions])
        resident = int(residency.rss_in(ranges.start, ranges.end).sum())
        return SeenBeside(_row(program, self._target, snapshot, resident), ranges)

    def _read(self, at: int, memory: ProcessMemory, mappings: Mappings) -> RuntimeSnapshot:
        program = self._programs[at]
        if program.layout is None or not program.readable or program.executable is None:
            raise SnapshotError("; ".join(limit.why for limit in program.limits) or "its runtime is not recognised")
        identity = program.module.identity if program.module is not None else self._target.exe_identity
        bias = load_bias(program.executable, identity, mappings)
        if bias is None:
            raise SnapshotError("the process does not map it any more")
        memory.start_budget()
        if not program.layout.confirmed:
            program = self._programs[at] = proven(program, memory, bias)
            memory.start_budget()
        return reader_of(program, memory, bias)[0].snapshot(_ATTEMPTS)


def natives_of(seen: Iterable[SeenBeside], owned: Ranges) -> Iterator[NativeRange]:
    """Yield their memory, which is not `owned` by the reported runtime, sorted."""
    every = Ranges(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    for one in seen:
        every = union(every, one.ranges)
    left = subtract(every, owned)
    for start, end in zip(left.start.tolist(), left.end.tolist(), strict=True):
        yield NativeRange(start, end, _KIND)


def _row(
    program: GoProgram,
    target: Target,
    snapshot: RuntimeSnapshot | None = None,
    resident: int | None = None,
    why: str | None = None,
) -> GoRuntime:
    figures = [snapshot.memstats[name] if snapshot is not None else None for name in _FIGURES]
    in_use, heap, released, stacks, whole = (figure if isinstance(figure, int) else None for figure in figures)
    return GoRuntime(
        module=program.module.path if program.module is not None else target.exe,
        go_version=program.release or None,
        reported=False,
        heap_in_use=in_use,
        heap_sys=heap,
        heap_released=released,
        stack_in_use=stacks,
        sys=whole,
        resident=resident,
        why_not=why,
    )
