"""`gomem profile --source refill`: what a process allocates from now on, by call stack, within a budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from random import Random

from gomem.bpf.bursts import Burster, BurstSchedule, Slice
from gomem.bpf.probes.placing import place
from gomem.bpf.probes.uprobes import Keeper
from gomem.bpf.program import target_ids
from gomem.bpf.refills import DEPTH, ROLES, RefillProbes
from gomem.tracer.errors import BackendUnavailable, GomemError, LayoutError, TargetError, WouldWait
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.refills import ROW_LARGE, RefillSum
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.layout.roles import resolve_roles
from gomem.tracer.model.refills import Bursts, Site, SlotSizes, extended, in_rhythm, sites
from gomem.tracer.process.guardian import Guardian, appointed
from gomem.tracer.process.target import Target
from gomem.tracer.profile.code import GoCode
from gomem.tracer.profile.refill import Callers, refill_profile
from gomem.tracer.profile.stacks import Symbols
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Limit
from gomem.tracer.report.profile import Profile
from gomem.tracer.runtime.allocated import Allocated
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.allocated import AllocatedReader
from gomem.tracer.watch.span_probes import layout_for_probes
from gomem.tracer.watch.trace import Stop, Tick

_TICK = 0.05  # seconds between looks whether it is over
_SAVED_FOR = 2.0  # seconds whose budget a busy moment may take, so that the probes stay on in most programs
_MOST_LISTED = 8  # sizes
_READ_EVERY = 1.0  # seconds between readings of the runtime's counts: what a process that ends leaves untold
_BIAS = (
    "a refill stands for all objects that were allocated from the span before, and is counted for the call that came "
    "last: +- is the standard error that follows from the number of such samples. Large objects are counted each. "
    "Of calls for objects of one size that take turns in a fixed order, one may be counted for the others"
)


@dataclass(frozen=True, slots=True)
class RefillRequest:
    """For how long to watch, seconds, and the share of the target's time that the probes may take."""

    seconds: float
    budget: float


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who asked: `say` tells how it goes, `stopping` is the block within which it may be ended early.

    `progress` is the block within which its Tick is called a few times a second.
    """

    say: Callable[[str], None]
    stopping: Callable[[], AbstractContextManager[Stop]]
    progress: Callable[[Inspector], AbstractContextManager[Tick]]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was counted in `seconds`, since `began_ns` (since 1970); `bursts`: where that was not all the time."""

    sums: list[RefillSum]
    runtime: Allocated | None
    sizes: SlotSizes
    bursts: Bursts | None
    changes: dict[int, int]
    began_ns: int
    seconds: float
    hits: int
    spent: float  # seconds of the target's

    def sites(self) -> list[Site]:
        return sites(self.sums, self.runtime, self.sizes, self.bursts, self.changes)

    def share(self, some: Collection[int]) -> float:
        """Return the share of all bytes that objects of some sizes have."""
        found = self.sites()
        whole = sum(site.bytes for site in found)
        return sum(site.bytes for site in found if site.size in some) / whole if whole else 0.0


class RefillWatch:
    """Counts the refills and large allocations of one program of one process, from `begin` on."""

    def __init__(self, inspector: Inspector, symbols: Symbols, budget: float, keeper: Keeper) -> None:
        """Compile and load; `symbols` are the program's.

        Raises GomemError where that cannot be had: the release, the rights, or the kernel.
        """
        program, pid = inspector.program, inspector.target.pid
        layout = layout_for_probes(program)
        if layout is None:
            raise LayoutError(
                "--source refill takes a Go release whose struct layouts are known for certain",
                "a newer gomem may know it",
            )
        self._sizes = SlotSizes.of(layout)
        self._probes = RefillProbes(target_ids(pid), _uprobes(program), layout, pid)
        self._began_ns, self._began, self._ended = 0, 0.0, 0.0
        self._first: Allocated | None = None
        self._last: tuple[Allocated, list[RefillSum]] | None = None
        self._end: Allocated | None = None
        self._on_at_the_end = False
        self._bursts = Bursts()
        self._callers = Callers(symbols)
        self._joining = threading.Lock()
        try:
            self._probes.find_price()
            self._runtime = AllocatedReader(inspector)
            schedule = BurstSchedule(budget, Random(), saved_for=_SAVED_FOR, on=True)
            self._burster = Burster(self._probes.held_by(keeper), self, schedule, pid, lambda: None, self._take)
        except BaseException:
            self._probes.close()
            raise

    def begin(self) -> None:
        """Put the probes on. Raises GomemError where they cannot be."""
        self._burster.put_on()
        error = self._burster.figures.error
        if isinstance(error, OSError):
            raise BackendUnavailable(f"the probes cannot be put on: {error.strerror}") from error
        if error is not None:
            raise error
        if not self._began_ns:  # a process makes the kernel wait
            self._note_beginning()
        self._burster.begin()

    def read(self) -> None:
        """Read what the runtime has counted until now, in case that it cannot be read later."""
        runtime = self._runtime.read()
        if runtime is not None:
            self._last = runtime, self._sums()

    def finish(self) -> _Seen:
        """Take the probes off, and return what they have seen."""
        self._burster.stop()
        sums = self._sums()
        runtime = self._end
        if runtime is None and self._last is not None:
            runtime = extended(*self._last, sums, self._sizes)
        if runtime is not None and self._first is not None:
            runtime = runtime.since(self._first)
        figures = self._burster.figures
        complete = figures.bursts == 1 and not figures.stopped and self._on_at_the_end
        return _Seen(
            sums,
            runtime if self._first is not None else None,
            self._sizes,
            None if complete else self._bursts,
            self._probes.changes(),
            self._began_ns,
            max(self._ended - self._began, 0.0),
            self._probes.hits(),
            self._probes.spent(),
        )

    def limits(self, seen: _Seen, budget: float) -> Iterator[Limit]:
        """Yield what was not seen, and why."""
        figures, whole = self._burster.figures, f"{seen.seconds:.1f} s"
        what = "what was allocated while the probes were off"
        if figures.failure:
            yield Limit("refill-failed", what, f"they could not be put on again: {figures.failure}", "")
        if figures.stopped:
            why = f"gomem itself was stopped, and they were off for {figures.unseen:.1f} s of {whole}"
            yield Limit("refill-stopped", what, why, "")
        elif seen.bursts is not None:
            on = f"they were on for {figures.seconds:.2g} s of {whole} ({figures.bursts} times)"
            why = f"{on}, within a budget of {100 * budget:g} %: the rest is estimated from that"
            yield Limit("refill-bursts", what, why, "--budget PERCENT gives more", "note")
        if lost := self._probes.stacks.lost():
            why = f"those of {lost} samples found no room in the kernel's tables"
            yield Limit("refill-no-room", "some stacks", why, "watch for a shorter time")
        if rhythm := in_rhythm(seen.sums, self._sizes):
            share = seen.share(rhythm)
            why = (
                f"all spans for objects of {_listed(rhythm)} bytes were of one length, and nearly all samples of one "
                f"call: what takes turns with it in a fixed order would be counted for it ({share:.0%} of all bytes)"
            )
            yield Limit(
                "refill-rhythm", "calls that take turns", why, "gomem trace --allocs sees each allocation", "note"
            )
        if seen.runtime is None:
            failure = self._runtime.failure
            why = f"the runtime's own counts could not be read{f': {failure.what}' if failure else ''}"
            yield Limit("refill-no-counts", "objects that no refill stands for", why, failure.fix if failure else "")

    @property
    def waits(self) -> str:
        """Why the probes could not be put on so far, "" if they were."""
        figures = self._burster.figures
        return "" if figures.bursts else figures.waits

    def count(self, *, on: bool) -> None:
        """Begin or end counting: what the Burster calls."""
        self._probes.count(on=on)
        if on and not self._began_ns:
            self._note_beginning()

    def spent(self) -> float:
        """Return what the probes have cost the target, seconds."""
        return self._probes.spent()

    def close(self) -> None:
        """Take the probes off and free what is held. Idempotent."""
        self._burster.stop()
        self._probes.close()
        self._runtime.close()

    def _sums(self) -> list[RefillSum]:
        with self._joining:  # both threads name functions
            return self._callers.joined(self._probes.sums())

    def _note_beginning(self) -> None:
        self._began_ns, self._began = time.time_ns(), time.monotonic()
        self._first = self._runtime.read()
        if self._first is not None:
            self._last = self._first, []

    def _take(self, piece: Slice) -> None:
        if piece.last:
            self._ended, self._on_at_the_end = time.monotonic(), piece.seconds > 0
            self._end = self._runtime.read()
        self._bursts.add(self._sums())


def watch_refills(inspector: Inspector, request: RefillRequest, watcher: Watcher) -> Profile:
    """Watch a process, and return the profile of what it has allocated meanwhile.

    What it executes in its own stead is another program, with which this one's profile ends. Raises GomemError where
    the process or the machine does not allow it.
    """
    target, code = inspector.target, GoCode(inspector)
    with ExitStack() as stack:
        keeper = appointed()
        if keeper is None:
            keeper = Guardian()
            stack.callback(keeper.close)
        stop = stack.enter_context(watcher.stopping())
        watch = RefillWatch(inspector, code.symbols, request.budget, keeper)
        stack.callback(watch.close)
        # Files have their build ids as long as the process runs.
        locations = code.locations(read_mappings(target).mappings, foreign=True)
        watch.begin()
        watcher.say(f"watching process {target.pid} ({target.comm}) for {request.seconds:g} s, where it takes spans")
        tick = stack.enter_context(watcher.progress(inspector))
        early = _wait(target, request.seconds, stop, tick, watch.read)
        seen = watch.finish()
        if watch.waits and not seen.sums:
            raise WouldWait(watch.waits)
        with suppress(GomemError):  # it may have loaded libraries since
            locations = code.locations(read_mappings(target).mappings, foreign=True)
        limits = [*watch.limits(seen, request.budget), *_of_the_time(seen, early)]
        return refill_profile(
            seen.sites(),
            code.symbols,
            locations,
            time_ns=seen.began_ns,
            duration_ns=int(seen.seconds * 1e9),
            comments=_comments(target, seen),
            limits=limits,
        )


def _wait(target: Target, most: float, stop: Stop, tick: Tick, read: Callable[[], None]) -> TargetError | None:
    """Wait until it is over; return why that was before its time."""
    began = time.monotonic()
    due = began + _READ_EVERY
    while not stop() and (left := began + most - time.monotonic()) > 0:
        try:
            target.check_same_program()
        except TargetError as error:
            return error
        now = time.monotonic()
        if now >= due:
            read()
            due = time.monotonic() + _READ_EVERY
        tick(now - began, left)
        time.sleep(min(_TICK, left))
    return None


def _listed(sizes: Sequence[int]) -> str:
    shown = ", ".join(str(size) for size in sizes[:_MOST_LISTED])
    return f"{shown}, ..." if len(sizes) > _MOST_LISTED else shown


def _of_the_time(seen: _Seen, early: TargetError | None) -> Iterator[Limit]:
    if early is not None:
        why = f"after {seen.seconds:.1f} s: {early.what}"
        yield Limit("ended-early", "the rest of the time", why, early.fix)
    if not seen.sums:
        why = f"in {seen.seconds:.1f} s it took no span to allocate from, and made no large object"
        yield Limit("refill-empty", "who allocates", why, "watch for longer: --duration")


def _comments(target: Target, seen: _Seen) -> tuple[str, ...]:
    large = sum(one.samples for one in seen.sums if one.span_class >> 1 == ROW_LARGE)
    refills = sum(one.samples for one in seen.sums) - large
    share = 100 * seen.spent / seen.seconds if seen.seconds > 0 else 0.0
    return (
        f"allocations of process {target.pid} ({target.exe}) in {seen.seconds:.1f} s, told by gomem from {refills} "
        f"refills and {large} large objects",
        f"the probes took about {share:.2g} % of its time ({seen.hits} hits); stacks have up to {DEPTH} calls",
        _BIAS,
    )


def _uprobes(program: GoProgram) -> Sequence[UprobeSpec]:
    """Return the uprobes of both roles. Raises LayoutError, BackendUnavailable or BinaryError."""
    exe, functions = program.executable, program.functions
    found: list[UprobeSpec] = []
    if exe is not None and functions is not None:
        roles = resolve_roles(program.release, exe.machine, program.has_function)
        found = place(exe, functions, [probe for probe in roles if probe.kind in ROLES])
    if {spec.kind for spec in found} != set(ROLES):
        raise LayoutError("the program has no functions that take spans as those of Go releases do")
    return found
