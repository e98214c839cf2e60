"""Looks at the goroutines of a process: who created them, what they wait for and for how long, and their stacks in RAM.

The process is never stopped. Source: newproc1, goready and casgstatus in runtime/proc.go, markroot in
runtime/mgcmark.go (waitsince), goroutineheader and printcreatedby in runtime/traceback.go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.binary.wait_reasons import wait_reasons
from gomem.tracer.errors import BackendUnavailable, LayoutError, NotPermitted, SnapshotError
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.kernel.pagemap import read_residency
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.proc.clocks import offset_of, own_offset
from gomem.tracer.process.memory import Words
from gomem.tracer.profile.goroutine_groups import History, Integers, Key, Seen, groups_of
from gomem.tracer.profile.goroutine_reader import GoroutineReader
from gomem.tracer.report import Limit
from gomem.tracer.report.goroutines import By, EndedGoroutines, GoroutineGroup, GoroutineLook, GoroutineReport, Place
from gomem.tracer.report.profile import Line
from gomem.tracer.runtime.counters import read_counters
from gomem.tracer.runtime.goroutine_stacks import CallTree
from gomem.tracer.runtime.goroutines import DEAD, LEAKED, STATES, SYSCALL, WAITING, Goroutines, g_bytes, together
from gomem.tracer.snapshot.inspection import Inspector

# Groups that are told apart, the largest: each may cost a millisecond to be named. No program has as many.
MOST_GROUPS = 1 << 12
_HELD = 64  # bytes of ours for each goroutine, beside its fields
_LARGEST_STACK = 1 << 31
# In keys: of a goroutine that runs, whose stack is not known; of the node of a stack, where others have an address.
_RUNS, _PATH = np.uint64(1 << 63), np.uint64(1 << 62)
_ADDRESS = np.uint64((1 << 62) - 1)  # what a g may claim beyond is none
# What a goroutine does as a number: its state, and what it waits for. States beyond are none.
_STATES, _REASONS, _OTHER = 16, 1 << 8, "other"
_GOEXIT, _RUNNING_FRAME = "runtime.goexit", Place("(running)")


@dataclass(frozen=True, slots=True)
class _Grouped:
    """The goroutines of the program with the number of the group of each, and the runtime's own."""

    program: Goroutines
    group: Integers
    system: Goroutines
    partly: int = 0  # of how many the outer calls are not known


@dataclass(frozen=True, slots=True)
class _Look:
    gs: Goroutines  # all of them, also those that have ended
    grouped: _Grouped
    seen: Seen
    residency: Residency | None
    stack_inuse: int | None


class GoroutineLooks:
    """Looks at the goroutines of one process, and tells how their groups change from the first look to the last."""

    def __init__(self, inspector: Inspector, by: By, *, in_ram: bool = True) -> None:
        """Understand the program. `by`: what goroutines of one group have in common; `in_ram`: tell of stacks, too.

        Raises TargetError where the process is not understood, NotPermitted, TargetGone.
        """
        self._inspector = inspector
        self._reader = reader = GoroutineReader(inspector)
        self._by: By = by
        self._in_ram = in_ram
        self._reasons = wait_reasons(reader.code.executable, reader.code.functions)
        self._names = [_name(code, self._reasons) for code in range(_STATES * _REASONS)]
        self._history = History()
        self._looks: list[GoroutineLook] = []
        self._began = 0
        self._keys: dict[Key, int] = {}
        self._known: dict[int, int] = {}  # groups by what does not change: addresses of code, reasons
        self._calls: dict[int, Line] = {}
        self._last: _Look | None = None

    def look(self) -> None:
        """Look once more. Raises LayoutError, SnapshotError where the goroutines make no sense, TargetGone."""
        target, memory = self._inspector.target, self._reader.memory
        gs, now = self._reader.read(), time.monotonic_ns()
        grouped = self._grouped(gs.some(gs.alive))
        program = grouped.program
        memory.room.take(len(program), _HELD, "goroutines")
        residency, counted = self._residency() if self._in_ram else None, self._counted()
        target.check_same_program()
        waits = _waits(program, now + offset_of(target.pid) - own_offset())
        resident = _resident(program, residency)
        seen = Seen(program["goid"], grouped.group, _codes(program), _sizes(program), resident, waits)
        self._history.add(seen)
        self._began = self._began or now
        self._looks.append(GoroutineLook((now - self._began) / 1e9, len(program), counted.get("NumGC")))
        self._last = _Look(gs, grouped, seen, residency, counted.get("StackInuse"))

    @property
    def moments(self) -> Sequence[GoroutineLook]:
        """The looks until now."""
        return self._looks

    def forget(self, look: int) -> None:
        """Forget a look, neither the first nor the last."""
        self._history.forget(look)
        del self._looks[look]

    def groups(self) -> list[GoroutineGroup]:
        """Return the groups of the last look, and those that earlier ones saw; there was at least one."""
        assert self._last is not None
        return groups_of(self._last.seen, self._history, list(self._keys), self._names, self._looks)

    def report(self) -> GoroutineReport:
        """Return what the looks saw; there was at least one."""
        last = self._last
        assert last is not None
        seen, waits = last.seen, last.seen.wait[~np.isnan(last.seen.wait)]
        return GoroutineReport(
            taken_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            process=self._inspector.facts(),
            limits=list(self._limits(last)),
            by=self._by,
            goroutines=len(last.grouped.program),
            system_goroutines=len(last.grouped.system),
            stack_bytes=int(seen.stack.sum()),
            stack_resident=None if seen.resident is None else int(seen.resident.sum()),
            system_stack_bytes=int(_sizes(last.grouped.system).sum()),
            stack_inuse=last.stack_inuse,
            longest_wait=float(waits.max()) if len(waits) else None,
            ended=self._ended(last),
            looks=list(self._looks),
            groups=self.groups(),
        )

    def _ended(self, last: _Look) -> EndedGoroutines:
        dead = last.gs.some(np.isin(last.gs.status, DEAD))
        resident = _resident(dead, last.residency)
        return EndedGoroutines(
            gs=len(dead),
            g_bytes=len(dead) * g_bytes(self._reader.code.layout),
            stack_bytes=int(_sizes(dead).sum()),
            stack_resident=None if resident is None else int(resident.sum()),
        )

    def _grouped(self, alive: Goroutines) -> _Grouped:
        """Group goroutines by what is in their g, or with their stacks, where that does not tell."""
        if self._by == "stack":
            return self._by_stack(lambda gs, node: node | _PATH)
        if self._by == "start" and len(wrappers := self._wrappers(alive)):
            return self._by_stack(
                lambda gs, node: np.where(np.isin(gs["startpc"], wrappers), node | _PATH, gs["startpc"] & _ADDRESS)
            )
        own = self._reader.system(alive)
        program = alive.some(~own)
        if self._by == "creator":
            # Nothing has created the first one, whatever is in its g.
            raw = np.where(program["goid"] == 1, np.uint64(0), program["gopc"])
            group = self._numbers(raw, self._creator, self._known)
        elif self._by == "start":
            group = self._numbers(program["startpc"], self._start, self._known)
        else:
            group = self._numbers(_codes(program).astype(np.uint64), self._reason, self._known)
        return _Grouped(program, group, alive.some(own))

    def _wrappers(self, gs: Goroutines) -> Words:
        """Return where goroutines began in code of the compiler's, which calls with arguments what was asked for."""
        starts, counts = np.unique(gs["startpc"], return_counts=True)
        some = starts[np.argsort(-counts, kind="stable")[:MOST_GROUPS]].tolist()
        frames = ((pc, self._reader.code.symbols.frames(pc)) for pc in some)
        return np.array([pc for pc, found in frames if found and found[-1].wrapper], np.uint64)

    def _by_stack(self, raw_of: Callable[[Goroutines, Words], Words]) -> _Grouped:
        """Group goroutines by their calls; those that run by the function that they began with.

        `raw_of`: the keys of goroutines at rest, with the nodes of their stacks.
        """
        resting, tree = self._reader.read_stacks()
        own = self._reader.system_at_rest(resting.goroutines, resting.node, tree)
        own_running = self._reader.system_running(resting.running)
        rest, running = resting.goroutines.some(~own), resting.running.some(~own_running)
        raw = np.concatenate(
            (raw_of(rest, resting.node[~own].astype(np.uint64)), running["startpc"] & _ADDRESS | _RUNS)
        )
        key_of = self._stack if self._by == "stack" else self._called
        group = self._numbers(raw, lambda key: key_of(key, tree), {})
        system = together([resting.goroutines.some(own), resting.running.some(own_running)])
        return _Grouped(together([rest, running]), group, system, int(np.count_nonzero(~resting.whole[~own])))

    def _numbers(self, raw: Words, key_of: Callable[[int], Key], known: dict[int, int]) -> Integers:
        """Return the numbers of the groups, shape (n,), that goroutines with these keys are in."""
        different, which, counts = np.unique(raw, return_inverse=True, return_counts=True)
        numbers = np.full(len(different), -1, np.int64)
        for at in np.argsort(-counts, kind="stable")[:MOST_GROUPS].tolist():
            key = int(different[at])
            if key not in known and len(self._keys) < MOST_GROUPS:
                known[key] = self._keys.setdefault(key_of(key), len(self._keys))
            numbers[at] = known.get(key, -1)
        if np.any(numbers < 0):
            numbers[numbers < 0] = self._keys.setdefault(Key(), len(self._keys))
        return numbers[which]

    def _creator(self, pc: int) -> Key:
        """Return the go statement that a new goroutine's call returns to, as printcreatedby tells it."""
        if not pc:
            return Key(creator=Place(""))
        code = self._reader.code
        function = code.functions.at(pc - code.bias)
        if function is None:
            return Key(creator=Place(f"{pc:#x}"))
        frames = code.symbols.frames(pc if pc - code.bias == function.entry else pc - 1)
        line = frames[0].line if frames else None
        return Key(creator=Place(function.name, line.file, line.line) if line else Place(function.name))

    def _start(self, pc: int) -> Key:
        frames = self._reader.code.symbols.frames(pc)
        if not frames:
            return Key(start=Place(f"{pc:#x}"))
        line = frames[-1].line
        return Key(start=Place(line.function, line.file, line.start_line or line.line))

    def _reason(self, code: int) -> Key:
        return Key(reason=self._names[code])

    def _stack(self, key: int, tree: CallTree) -> Key:
        if not key & int(_PATH):
            start = self._start(key & ~int(_RUNS)).start
            assert start is not None
            return Key(stack=(_RUNNING_FRAME, start))
        lines = self._lines(tree.stack(key & ~int(_PATH)))
        return Key(stack=tuple(Place(line.function, line.file, line.line) for line in lines))

    def _called(self, key: int, tree: CallTree) -> Key:
        """Return what goroutines began with, that of a wrapper by what it calls."""
        if not key & int(_PATH):
            return self._start(key & ~int(_RUNS))
        stack = tree.stack(key & ~int(_PATH))
        lines = self._lines(stack)
        if lines:
            line = lines[-1]
            return Key(start=Place(line.function, line.file, line.start_line or line.line))
        return self._start(stack[0] if stack else 0)

    def _lines(self, stack: Sequence[int]) -> list[Line]:
        """Return the calls of a stack, as the runtime's profile has them, but for goexit."""
        found = [self._line(pc) for pc in self._reader.calls.told(stack)]
        return [line for line in found if line.function != _GOEXIT]

    def _line(self, pc: int) -> Line:
        """Return the call that returns to an address of a stack."""
        known = self._calls.get(pc)
        if known is None:
            symbols = self._reader.code.symbols
            lines = symbols.lines(pc, [symbols.call(pc)])
            known = self._calls[pc] = lines[0] if lines else Line(f"{pc:#x}")
        return known

    def _residency(self) -> Residency | None:
        target = self._inspector.target
        try:
            return read_residency(target, read_mappings(target).mappings)
        except (NotPermitted, BackendUnavailable):
            return None

    def _counted(self) -> dict[str, int]:
        """Return what the runtime counts, by the names of MemStats; {} where that cannot be read."""
        code, memory = self._reader.code, self._reader.memory
        addresses = {name: address + code.bias for name, address in self._inspector.program.globals.items()}
        try:
            found = read_counters(memory, code.layout, addresses).memstats
        except (SnapshotError, LayoutError, KeyError):
            return {}
        return {name: value for name, value in found.items() if isinstance(value, int)}

    def _limits(self, last: _Look) -> Iterator[Limit]:
        if not self._reasons:
            why = "the names of what goroutines wait for are not found in the executable"
            yield Limit("goroutine-reasons", "what goroutines wait for", f"{why}; numbers stand for them", "")
        if last.residency is None or not last.residency.exact:
            why = "the kernel does not tell which pages are in RAM"
            part = "" if last.residency is None else "; a stack has the same share of it as its whole mapping"
            yield Limit("goroutine-stacks-resident", "how much of each stack is in RAM", why + part, "")
        if last.gs.unreadable:
            why = f"{last.gs.unreadable} of the runtime's goroutines cannot be read"
            yield Limit("goroutines-unreadable", "some goroutines", why, "")
        if last.grouped.partly:
            why = f"the stacks of {last.grouped.partly} goroutines lead to what is no code of the program's"
            yield Limit("goroutines-partly", "part of some stacks", f"{why}; their outer calls are missing", "")
        if Key() in self._keys:
            why = f"there are more than {MOST_GROUPS} groups; the smallest are in the one without a name"
            yield Limit("goroutine-groups", "some groups of goroutines", why, "")


def _name(code: int, reasons: Sequence[str]) -> str:
    """Return what a goroutine waits for or does, as goroutineheader has it."""
    state, reason = divmod(code, _REASONS)
    if state not in (WAITING, LEAKED) or not reason:
        return STATES.get(state, _OTHER)
    name = reasons[reason] if reason < len(reasons) else f"wait reason {reason}"
    return f"{name} (leaked)" if state == LEAKED else name


def _codes(gs: Goroutines) -> Integers:
    """Return what goroutines wait for or do, as indices of the names."""
    state = np.minimum(gs.status, _STATES - 1).astype(np.int64)
    reason = gs.get("waitreason")
    waits = np.isin(state, (WAITING, LEAKED))
    number = np.zeros(len(gs), np.int64) if reason is None else reason.astype(np.int64)
    return state * _REASONS + np.where(waits, number, 0)


def _sizes(gs: Goroutines) -> Integers:
    """Return the bytes of each stack; 0 for what is none."""
    low, high = gs["stack.lo"], gs["stack.hi"]
    fits = (low < high) & (high - low <= np.uint64(_LARGEST_STACK))
    return np.where(fits, high - low, np.uint64(0)).astype(np.int64)


def _resident(gs: Goroutines, residency: Residency | None) -> Integers | None:
    """Return how many bytes of each stack are in RAM."""
    if residency is None:
        return None
    size = _sizes(gs)
    low = np.where(size > 0, gs["stack.lo"], np.uint64(0))
    return np.minimum(residency.rss_in(low, low + size.astype(np.uint64)).astype(np.int64), size)


def _waits(gs: Goroutines, now: int) -> NDArray[np.float64]:
    """Return for how many seconds each waits, NaN where that is not known yet. `now`: the runtime's ns.

    The first collection that sees a goroutine wait notes when the one before it has ended (work.tstart): it may not
    wait quite as long.
    """
    since = gs["waitsince"].astype(np.int64)
    known = np.isin(gs.status, (WAITING, SYSCALL)) & (since > 0) & (since <= now)
    return np.where(known, (now - since) / 1e9, np.nan)
