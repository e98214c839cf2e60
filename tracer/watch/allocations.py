"""`--allocs`: who allocates, by size class, type and call site, within a budget; from the probes to the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

from gomem.bpf.allocations import AllocationProbes
from gomem.bpf.bursts import ALWAYS, Burster, BurstSchedule, Slice
from gomem.bpf.probes.placing import place
from gomem.bpf.probes.uprobes import MULTI_SINCE, Keeper
from gomem.bpf.program import target_ids
from gomem.tracer.binary.symbols import Symbolizer
from gomem.tracer.errors import BackendUnavailable, GomemError, LayoutError
from gomem.tracer.events.allocations import NO_SITE
from gomem.tracer.events.optional_roles import OptionalRole, no_role, unseen_role
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.layout.roles import resolve_roles
from gomem.tracer.machine.rights import newer_kernel
from gomem.tracer.model.allocations import AllocationSums, Watch
from gomem.tracer.profile.call_sites import CallSites
from gomem.tracer.profile.stacks import RUNTIME, Symbols
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Allocations, Limit
from gomem.tracer.runtime.allocated import Allocated
from gomem.tracer.runtime.size_classes import SizeClasses
from gomem.tracer.runtime.types import TypeNames
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.snapshot.naming import type_finders
from gomem.tracer.watch.allocated import AllocatedReader
from gomem.tracer.watch.span_probes import layout_for_probes

_ROLE = OptionalRole.ALLOCATIONS


class AllocationWatch:
    """Counts the allocations of one program of one process; it counts from `begin` on, or from `start` on."""

    def __init__(self, program: GoProgram, pid: int, budget: float, keeper: Keeper) -> None:
        """Compile and load. `budget`: share of the target's time; 1 counts all.

        Raises GomemError where allocations cannot be counted: the release, the rights, or the kernel.
        """
        layout = layout_for_probes(program)
        if layout is None:
            raise LayoutError(
                "it takes a Go release whose struct layouts are known for certain, and proven on a running process",
                "start the program, then: gomem trace --pid PID --allocs",
            )
        self._sizes = SizeClasses.of(layout)
        self._complete = budget >= ALWAYS
        self._budget = min(budget, 1.0)
        self._pid = pid
        self._probes = AllocationProbes(target_ids(pid), _uprobes(program), self._sizes, pid)
        try:
            if self._probes.backend != "multi" and not self._complete:
                raise BackendUnavailable(
                    "this kernel takes up to half a second to take a probe off, so there are no bursts",
                    f"{newer_kernel(MULTI_SINCE)}, or --budget 100, which slows the process",
                )
            self._probes.find_price()
            schedule = BurstSchedule(self._budget, Random())
            self._burster = Burster(
                self._probes.held_by(keeper), self._probes, schedule, pid, self._burst_begins, self._take
            )
        except BaseException:
            self._probes.close()
            raise
        self._sums = AllocationSums(self._sizes)
        self._inspector: Inspector | None = None
        self._runtime: AllocatedReader | None = None
        self._program = program
        self._last_hits: list[ProbeStatus] = []
        self._average = 0.0
        self._places: CallSites | None = None
        self._sites: dict[int, int] = {}  # by the kernel's number of a stack

    @property
    def prices(self) -> dict[str, float]:
        """Return what a hit of each probe has cost on average, seconds, by symbol."""
        average = self._average if self._last_hits else self._probes.average_price()
        return {spec.symbol: average for spec in self._probes.specs}

    def start(self) -> None:
        """Count all from now on, if all is to be counted: the program has not begun yet."""
        if self._complete:
            self._burster.put_on()

    def begin(self, inspector: Inspector, *, from_start: bool) -> None:
        """Count from now on; `from_start`: what the program did before is what it did since its first instruction."""
        self._inspector = inspector
        self._runtime = AllocatedReader(inspector)
        self._end_stacks_at_call_sites()
        if self._complete and not self._burster.figures.bursts:
            self._burster.put_on()
        self._sums.begin(Allocated.nothing(len(self._sizes.sizes)) if from_start else self._allocated())
        self._burster.begin()

    def finish(self, seconds: float) -> tuple[Allocations | None, list[Limit]]:
        """Take the probes off; return the section of a report on `seconds` of watching, and what is missing in it."""
        self._burster.stop()
        figures = self._burster.figures
        limits = []
        if figures.failure:
            what = "the probes were put on no more" if figures.bursts else "the probes could not be put on"
            limits.append(no_role(_ROLE, f"{what}: {figures.failure}"))
        elif not figures.bursts:
            limits.append(no_role(_ROLE, figures.waits or "the time was too short for a burst", "watch for longer"))
        if figures.stopped:
            limits.append(unseen_role(_ROLE, figures.unseen, "gomem itself was stopped"))
        price = self._probes.average_price() if self._probes.price is not None else None
        complete = self._complete and not figures.stopped
        watch = Watch(complete, figures.bursts, figures.seconds, self._budget, price)
        section = None
        if figures.bursts:
            section = self._sums.section(watch, seconds, _name_by(self._finders()), self._call_sites().site)
        self.close()
        return section, limits

    def probes(self) -> list[ProbeStatus]:
        """Return the probes with their hits."""
        return self._last_hits or self._probes.probes()

    def close(self) -> None:
        """Take the probes off and free what is held. Idempotent."""
        if not self._last_hits:
            self._burster.stop()
            self._average = self._probes.average_price()
            self._last_hits = self._probes.probes()
        self._probes.close()
        if self._runtime is not None:
            self._runtime.close()

    def _burst_begins(self) -> None:
        self._sums.before(self._allocated())

    def _take(self, piece: Slice) -> None:
        """Take what was counted in a burst, and what the runtime has counted until now."""
        runtime = self._allocated()  # it goes on meanwhile
        counts = self._probes.counts().at_sites(self._site_of)
        if piece.last and not piece.seconds:
            self._sums.end(counts, runtime)
        else:
            self._sums.add(counts, runtime)

    def _end_stacks_at_call_sites(self) -> None:
        """Let stacks end with the first function that is not the runtime's: the frames behind it tell nothing here."""
        functions, bias = self._program.functions, self._inspector.bias if self._inspector is not None else None
        if functions is None or bias is None:
            return
        with suppress(GomemError):
            if (runtime := functions.extent_of(RUNTIME)) is not None:
                self._probes.stacks.end_outside(runtime[0] + bias, runtime[1] + bias)

    def _site_of(self, stack: int) -> int:
        """Return the number of the call site that a stack is of."""
        known = self._sites.get(stack)
        if known is None:
            addresses = self._probes.stacks.addresses(stack)
            if not addresses:
                return NO_SITE
            known = self._sites[stack] = self._call_sites().number(addresses)
        return known

    def _call_sites(self) -> CallSites:
        """Return the call sites of the program, by what its own file says of its code."""
        if self._places is None:
            self._places = self._find_call_sites()
        return self._places

    def _find_call_sites(self) -> CallSites:
        exe, functions = self._program.executable, self._program.functions
        bias = self._inspector.bias if self._inspector is not None else None
        if exe is None or functions is None or bias is None:
            return CallSites(None)
        allocator = next((function.entry + bias for function in functions.lookup("runtime.mallocgc")), None)
        try:
            return CallSites(Symbols(Symbolizer.of(exe, functions), bias), allocator)
        except GomemError:
            return CallSites(None)

    def _allocated(self) -> Allocated | None:
        return self._runtime.read() if self._runtime is not None else None

    def _finders(self) -> Sequence[TypeNames]:
        """Return what finds the names of types: in the file, and those that a plugin has in the process."""
        bias = self._inspector.bias if self._inspector is not None else None
        return type_finders(self._program, bias, self._runtime.memory if self._runtime is not None else None)


def _name_by(finders: Sequence[TypeNames]) -> Callable[[int], str | None]:
    def name(address: int) -> str | None:
        for finder in finders:
            with suppress(GomemError):
                if (found := finder.name(address)) is not None:
                    return found
        return None

    return name


def _uprobes(program: GoProgram) -> list[UprobeSpec]:
    """Return the uprobes that see every allocation. Raises LayoutError, BackendUnavailable or BinaryError."""
    exe, functions = program.executable, program.functions
    found: list[UprobeSpec] = []
    if exe is not None and functions is not None:
        roles = resolve_roles(program.release, exe.machine, program.has_function)
        found = place(exe, functions, [probe for probe in roles if probe.kind is EventKind.MALLOCGC])
    if not found:
        raise LayoutError("the program has no function that allocates as those of Go releases do")
    return found


def watch_allocations(
    program: GoProgram, pid: int, budget: float, keeper: Keeper
) -> tuple[AllocationWatch | None, list[Limit]]:
    """Return what counts a program's allocations, not begun yet; None and why where that does not work."""
    try:
        return AllocationWatch(program, pid, budget, keeper), []
    except GomemError as error:
        return None, [no_role(_ROLE, error.what, error.fix)]
