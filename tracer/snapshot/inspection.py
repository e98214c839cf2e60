"""One look at a live target: the runtime's snapshot and the kernel's view of the same moment, joined."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from msgspec import Struct, structs

from gomem.tracer.addresses.ranges import Ranges, normalise, union
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import GomemError, LayoutError, NotPermitted, SnapshotError, TargetError, TargetGone
from gomem.tracer.kernel.mapping_kinds import Program
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.kernel.pagemap import own_pages
from gomem.tracer.kernel.view import KernelView, read_kernel_view
from gomem.tracer.native.c_memory import NativeRange, native_ranges, stack_pointers
from gomem.tracer.native.stack_owners import StackOwner, stack_owners
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.process.target import ExeIdentity, Target
from gomem.tracer.program.go_program import (
    KERNEL_ONLY,
    GoProgram,
    anonymous,
    load_bias,
    mapped_from,
    placed,
    safe_to_read,
    unpacked_files,
    writable_pages_of,
)
from gomem.tracer.program.modules import load_target
from gomem.tracer.report import CHeap, GoRuntime, Limit, ProcessFacts
from gomem.tracer.runtime.contiguous import contiguous_heap, has_contiguous_arena, limit_of_figures
from gomem.tracer.runtime.snapshot import ATTEMPTS, RuntimeReader, RuntimeSnapshot
from gomem.tracer.runtime.timers import read_timers
from gomem.tracer.snapshot.beside import RuntimesBeside, SeenBeside, natives_of
from gomem.tracer.snapshot.bucket_counts import BucketCounts
from gomem.tracer.snapshot.c_heap import CHeapReader
from gomem.tracer.snapshot.emptiness import with_zeros
from gomem.tracer.snapshot.freeze import LONGEST, Freeze
from gomem.tracer.snapshot.join import AddressSpace, join
from gomem.tracer.snapshot.mapping_names import as_limits, disagreements
from gomem.tracer.snapshot.naming import Naming
from gomem.tracer.snapshot.reading import proven, reader_of
from gomem.tracer.snapshot.stack_rows import largest_stacks

# How often a target is stopped for one look, and for how many seconds it runs in between.
FREEZES = 8
_BETWEEN_FREEZES = 0.003


class Snapshot(Struct, frozen=True):
    """What one look at the target saw."""

    kernel: KernelView
    runtime: RuntimeSnapshot | None
    space: AddressSpace
    limits: tuple[Limit, ...]
    c_heap: CHeap | None = None
    stack_owners: tuple[StackOwner, ...] = ()
    frozen_seconds: float | None = None  # for how long it was stopped, for this and all looks before; None: it was not
    beside: tuple[GoRuntime, ...] = ()  # the other Go runtimes of the process


class _Read(Struct, frozen=True):
    """Both sides of one look, before they are joined."""

    runtime: RuntimeSnapshot | None
    kernel: KernelView
    natives: list[NativeRange]
    c_heap: CHeap | None
    limits: list[Limit]  # of the runtime and the C heap
    beside: list[SeenBeside]


class Inspector:
    """Looks at one process as often as asked; holds its executable and its memory open."""

    def __init__(self, target: Target, program: GoProgram, *, owns_program: bool = True) -> None:
        """Take over `program`, the executable of `target`; without `owns_program` the caller closes it."""
        self.target = target
        self._first = program
        self.program = program.proven()
        self._owns_program = owns_program
        self.bias: int | None = 0 if program.executable is not None and not program.executable.pie else None
        self.search_again = False  # for a Go library, look by look, while there is no Go
        self.late_facts: ProcessFacts | None = None  # of the process since such a library was found
        self.freeze_last = False  # stop the target for `last_look`
        self.stop_filtered = False  # also when it is under a seccomp filter
        self.beside_last: Callable[[KernelView], None] | None = None  # what `last_look` reads of the same moment
        self._c_heap = CHeapReader(target, self.program)
        self._frozen_seconds = 0.0
        self._memory: ProcessMemory | None = None
        self._naming: Naming | None = None
        self._bucket_counts = BucketCounts()
        self._beside = RuntimesBeside(target, program.beside)
        self._late: GoProgram | None = None

    @classmethod
    def open(cls, target: Target, module: str = "") -> Inspector:
        """Read the target's executable, or the library that has its Go runtime; `module` as for load_target.

        Raises NotPermitted, TargetGone, and TargetError where the module is no Go.
        """
        program = load_target(target, module)
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
            self._first.close()
        if self._late is not None:
            self._late.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def prepare(self) -> None:
        """Learn where the program is loaded, so that addresses have names. Raises TargetGone, NotPermitted."""
        if self.bias is None and self.program.executable is not None:
            mappings = read_mappings(self.target).mappings
            self.bias = load_bias(self.program.executable, self.file, mappings)

    @property
    def file(self) -> ExeIdentity:
        """The file that the runtime is in: the executable, or a library."""
        return self.program.module.identity if self.program.module is not None else self.target.exe_identity

    def target_cpu_seconds(self) -> float | None:
        """Return the CPU time that the target has used, None when it is gone."""
        try:
            return self.target.stat().cpu_ticks / os.sysconf("SC_CLK_TCK")
        except TargetError:
            return None

    def facts(self) -> ProcessFacts:
        """Return who the target is."""
        return self.program.describe(self.target.facts())

    def look(self, beside: Callable[[KernelView], None] | None = None) -> Snapshot:
        """Take one snapshot of both sides; `beside` reads what else is to be of that moment.

        What the runtime will not tell becomes a limit. Raises TargetGone when the process has ended or runs
        another program now, NotPermitted when not even the mappings may be read.
        """
        self.target.check_same_program()
        self._find_late_library()
        limits = self.program.limits
        read = self._read(ATTEMPTS)
        if beside is not None:
            beside(read.kernel)
        return self._joined(read, limits)

    def _find_late_library(self) -> None:
        """Take a Go library for the program that the process has loaded since it was looked at last."""
        if not self.search_again or self.program.is_go:
            return
        program = load_target(self.target)
        try:
            self.target.check_same_program()  # or it is the executable of the next one
        except GomemError:
            program.close()
            raise
        if not program.is_go:
            program.close()
            return
        self._late, self.program, self.bias = program, program.proven(), None
        self._beside = RuntimesBeside(self.target, program.beside)
        self.prepare()
        self.late_facts = self.facts()

    def look_frozen(self, longest: float = LONGEST, beside: Callable[[KernelView], None] | None = None) -> Snapshot:
        """Take one snapshot with the target stopped, for `longest` seconds in all; `beside` is called meanwhile.

        A stop may come in the middle of what the runtime does; then the target runs on a little, and is stopped again.
        Raises as `look`, and TargetError or NotPermitted where the target cannot be stopped.
        """
        self.target.check_same_program()
        # What has to be learnt only once is learnt while the target still runs.
        with suppress(SnapshotError, LayoutError, NotPermitted):
            self.reader()
        seconds = 0.0
        for attempt in range(1, FREEZES + 1):
            limits = self.program.limits
            with Freeze(self.target, longest - seconds, filtered=self.stop_filtered) as freeze:
                read = self._read(1)
                if beside is not None:
                    beside(read.kernel)
            seconds += freeze.thaw.seconds if freeze.thaw else longest - seconds
            expired = freeze.thaw is None or freeze.thaw.expired
            if expired:
                limits = (*limits, _ran_on(longest))
            exact = not self.program.readable or (read.runtime is not None and read.runtime.consistency.exact)
            if exact or expired or seconds > longest / 2 or attempt == FREEZES:
                break
            time.sleep(_BETWEEN_FREEZES)
        if read.runtime is not None:
            consistency = structs.replace(read.runtime.consistency, attempts=attempt)
            read = structs.replace(read, runtime=structs.replace(read.runtime, consistency=consistency))
        self._frozen_seconds += seconds
        return structs.replace(self._joined(read, limits), frozen_seconds=round(self._frozen_seconds, 6))

    def last_look(self) -> Snapshot:
        """Take the look that a watch ends with: frozen if `freeze_last`; as it runs, with a limit, if that fails.

        Raises as `look`.
        """
        if not self.freeze_last:
            return self.look(self.beside_last)
        try:
            return self.look_frozen(beside=self.beside_last)
        except TargetGone:
            raise
        except (TargetError, NotPermitted) as error:
            look = self.look(self.beside_last)
            moving = Limit("freeze-failed", "the target standing still", error.what, error.fix)
            return structs.replace(look, limits=(*look.limits, moving))

    def _read(self, attempts: int) -> _Read:
        # The runtime first: its pages move faster than its mappings, and the kernel's view has its own retries.
        runtime, limits = self._runtime(attempts)
        kernel = read_kernel_view(self.target)
        if runtime is not None and runtime.largest is not None:
            with suppress(NotPermitted):
                largest = with_zeros(runtime.largest, kernel.residency, self.memory())
                runtime = structs.replace(runtime, largest=largest)
        beside = self._seen_beside(kernel)
        natives = self._natives(kernel, runtime, beside)
        c_heap, unread = self._read_c_heap(kernel)
        return _Read(runtime, kernel, natives, c_heap, [*limits, *unread], beside)

    def _seen_beside(self, kernel: KernelView) -> list[SeenBeside]:
        if not self._beside:
            return []
        try:
            return self._beside.see(self.memory(), kernel.mappings, kernel.residency)
        except NotPermitted:
            return []

    def _joined(self, read: _Read, limits: Sequence[Limit]) -> Snapshot:
        kernel = read.kernel
        # They never move and never go, so that the target need not stand still for them.
        runtime, uncounted = self._bucket_counts.counted(read.runtime, self.program, self.bias, self.memory)
        space = join(kernel.mappings, kernel.residency, runtime, self._where(kernel), read.natives)
        disagree = as_limits(disagreements(kernel.mappings, space)) if runtime is not None else []
        owners = self._stack_owners(kernel, space)
        self.target.check_same_program()
        beside = tuple(one.runtime for one in read.beside)
        seen = (*limits, *read.limits, *uncounted, *kernel.limits, *disagree)
        return Snapshot(kernel, runtime, space, seen, read.c_heap, owners, beside=beside)

    def symbolize(self, address: int) -> str | None:
        """Return the name of the Go function at an address in the process, None outside Go's code."""
        return self.program.symbolize(address, self.bias)

    def _where(self, kernel: KernelView) -> Program | None:
        exe = self._host
        if exe is None:
            return None
        bias = load_bias(exe, self.target.exe_identity, kernel.mappings)
        return placed(exe, self.target.exe_identity, kernel.mappings, bias) if bias is not None else None

    @property
    def _host(self) -> Executable | None:
        """The process's executable, which is the program's unless that is a library."""
        elsewhere = self.program.module is not None or self.program.is_in_memory
        return self.program.host if elsewhere else self.program.executable

    def _natives(
        self, kernel: KernelView, runtime: RuntimeSnapshot | None, beside: list[SeenBeside]
    ) -> list[NativeRange]:
        regions = runtime.regions if runtime else []
        owned = normalise([region.start for region in regions], [region.end for region in regions])
        others = list(natives_of(beside, owned))
        owned = union(owned, normalise([one.start for one in others], [one.end for one in others]))
        try:
            contiguous = self._contiguous(kernel) if runtime is None else []
            heap = normalise([one.start for one in contiguous], [one.end for one in contiguous])
            natives = native_ranges(
                kernel.mappings, kernel.residency, union(owned, heap), stack_pointers(self.target), self.memory()
            )
        except NotPermitted:
            return others
        return [*contiguous, *natives, *others]

    def _read_c_heap(self, kernel: KernelView) -> tuple[CHeap | None, list[Limit]]:
        try:
            return self._c_heap.read(kernel, self.memory())
        except NotPermitted:
            return None, []

    def _stack_owners(self, kernel: KernelView, space: AddressSpace) -> tuple[StackOwner, ...]:
        mappings = kernel.mappings
        main = int(mappings.end[mappings.name.index("[stack]")]) if "[stack]" in mappings.name else None
        try:
            return tuple(stack_owners(largest_stacks(space, mappings), main, self.memory(), self.target))
        except NotPermitted:
            return ()

    def _contiguous(self, kernel: KernelView) -> list[NativeRange]:
        """Return where the heap of Go 1.10 and older is: nothing else of that runtime can be read."""
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
            self.target.ensure_answers("mem")
            self._memory = ProcessMemory(self.target.pid, self._safe_to_read)
            self.target.check_same_program()
        return self._memory

    def own_memory(self) -> ProcessMemory:
        """Return the target's memory for another thread, which closes it. Raises NotPermitted, TargetGone."""
        self.target.ensure_answers("mem")
        memory = ProcessMemory(self.target.pid, self._safe_to_read)
        try:
            self.target.check_same_program()
        except BaseException:
            memory.close()
            raise
        return memory

    def _safe_to_read(self) -> Ranges:
        mappings = read_mappings(self.target, attempts=1).mappings
        library = self.program.module
        # Libraries were opened: no file system that others serve has them.
        files = [*self._beside.files, *([(library.device, library.inode)] if library is not None else [])]
        safe = union(mapped_from(files, mappings), self._c_heap.written_data(mappings))
        if self.program.is_in_memory:
            own = unpacked_files(mappings)
            safe = union(safe, normalise(mappings.start[own], mappings.end[own]))
        exe = self._host
        if exe is not None and exe.served is not None:
            written = own_pages(self.target, writable_pages_of(self.target.exe_identity, mappings))
            return union(union(anonymous(mappings), written), safe)
        return union(safe_to_read(self.target.exe_identity, self.target.stat().start_code, mappings), safe)

    def _runtime(self, attempts: int) -> tuple[RuntimeSnapshot | None, list[Limit]]:
        """Return the runtime's snapshot and what is not in it; None and why, if anything was to be had."""
        layout = self.program.layout
        if layout is None or not self.program.readable:
            return None, []
        try:
            snapshot = self.reader().snapshot(attempts)
        except (SnapshotError, LayoutError, NotPermitted) as error:
            return None, [Limit("go-state", "the Go runtime's state", f"{error.what}; {KERNEL_ONLY}", error.fix)]
        snapshot = self._named(snapshot)
        what = "part of the runtime's own memory"
        return snapshot, [Limit("runtime-memory-partly", what, missed, "") for missed in snapshot.missed]

    def _named(self, snapshot: RuntimeSnapshot) -> RuntimeSnapshot:
        """Return a snapshot with the names of what it found. Raises TargetGone, NotPermitted."""
        if snapshot.largest is None or self.bias is None or self.program.layout is None:
            return snapshot
        if self._naming is None:
            self._naming = Naming(self.program, self.bias, self.memory)
        timers, missed = None, snapshot.missed
        try:
            allp = self.program.globals["allp"] + self.bias
            timers = read_timers(self.memory(), self.program.layout, allp, self.symbolize)
        except (SnapshotError, LayoutError) as error:
            missed = [*missed, f"timers: {error.what}"]
        largest = [self._naming.named(one) for one in snapshot.largest]
        return structs.replace(snapshot, largest=largest, timers=timers, missed=missed)

    def prove_layout(self) -> None:
        """Let a layout that was never measured for this build prove itself now: probes read by it, unchecked."""
        layout = self.program.layout
        if layout is None or layout.confirmed or not self.program.readable:
            return
        with suppress(SnapshotError, LayoutError, NotPermitted):  # a look will say so
            self.reader()

    def reader(self) -> RuntimeReader:
        """Return a reader of the target's runtime, ready to read one snapshot.

        Raises SnapshotError, LayoutError where the runtime cannot be read, NotPermitted, TargetGone.
        """
        if self.program.layout is None:
            raise LayoutError("the layout of this runtime is not known")
        if has_contiguous_arena(self.program.layout):
            self.prepare()
            raise limit_of_figures(self.program.release)
        memory = self.memory()
        memory.start_budget()
        self.prepare()
        if self.bias is None:
            raise SnapshotError("the process does not map the file that its Go runtime is in")
        if not self.program.layout.confirmed:
            self.program = proven(self.program, memory, self.bias)
            memory.start_budget()
        return reader_of(self.program, memory, self.bias)[0]


def _ran_on(longest: float) -> Limit:
    return Limit(
        "freeze-expired",
        "the target standing still",
        f"it was let go after {longest:g} s, before all of it was read: some of the figures are of the time after",
        "",
    )
