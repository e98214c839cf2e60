"""Call stacks as locations: as runtime/pprof makes them, so that a stack from outside is the one from inside.

The runtime's stacks have an address for each function, the inlined ones too; those of one physical call become one
location. Source: writeHeapProto in runtime/pprof/protomem.go, appendLocsForStack, pcDeck and allFrames in
runtime/pprof/proto.go, runtime_expandFinalInlineFrame and FuncForPC in runtime/symtab.go.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.binary.symbols import Frame, Symbolizer, told
from gomem.tracer.process.memory import Words
from gomem.tracer.profile.call_stacks import CallStacks
from gomem.tracer.report.profile import Line, Location, ProfileMapping
from gomem.tracer.runtime.numbered import Numbers, runs

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Names = Callable[[Sequence[int]], dict[int, tuple[Line, ...]]]
"""The functions at addresses within calling instructions, of those of which they are known."""

AT_ONCE = 1 << 16  # addresses: for each some hundred bytes are held while they become locations
GOEXIT = "runtime.goexit"
# What allocates for others; internal/runtime holds maps since Go 1.24.
RUNTIME = ("runtime.", "internal/runtime/")


class Stacks:
    """Stacks one behind the other: stack i is pcs[first[i] : first[i + 1]], return addresses, the innermost first.

    Each different address is kept once, in `addresses`; `which` (shape (len(pcs),)) are indices of it.
    """

    __slots__ = ("addresses", "first", "which")

    def __init__(self, first: Integers, pcs: Words) -> None:
        """Take stacks of shape (n,), whose edges `first` has n + 1 of."""
        self.addresses, which = np.unique(pcs, return_inverse=True)
        self.first, self.which = first, which.astype(np.uint32)

    @classmethod
    def of(cls, first: Integers, which: Numbers, addresses: Words) -> Stacks:
        """Return the stacks whose calls return to those of the `addresses`."""
        made = cls.__new__(cls)
        made.first, made.which, made.addresses = first, which, addresses
        return made

    @property
    def pcs(self) -> Words:
        """Return all addresses."""
        return self.addresses[self.which]

    def cut(self, leave_out: Integers) -> Stacks:
        """Return the stacks without the `leave_out` (shape (n,)) innermost addresses of each."""
        depth = np.diff(self.first)
        within = np.arange(len(self.which)) - np.repeat(self.first[:-1], depth)
        return self.of(_edges(depth - leave_out), self.which[within >= np.repeat(leave_out, depth)], self.addresses)

    def pieces(self, most: int) -> Iterator[Stacks]:
        """Yield the stacks in turn, as many at once as have at most so many addresses, or one that has more."""
        row, count = 0, len(self.first) - 1
        while row < count:
            end = int(np.searchsorted(self.first, self.first[row] + most, side="right")) - 1
            end = max(end, row + 1)
            first = self.first[row : end + 1]
            yield self.of(first - first[0], self.which[first[0] : first[-1]], self.addresses)
            row = end

    def different(self, at: Integers | slice = slice(None)) -> tuple[Words, Integers]:
        """Return the different addresses that there are `at` these of all indices, and which of them each is."""
        which = self.which[at]
        there = np.zeros(len(self.addresses), np.bool_)
        there[which] = True
        return self.addresses[there], (np.cumsum(there) - 1)[which]


class Symbols:
    """What is at the addresses of a process that has loaded a program at `bias`."""

    def __init__(self, symbolizer: Symbolizer, bias: int, *, joins_by_printed_names: bool = False) -> None:
        """`joins_by_printed_names`: as Go 1.21 does it, where instances of a generic function look alike."""
        self._symbolizer = symbolizer
        self._bias = bias
        self._joins_by_printed_names = joins_by_printed_names
        # Up to Go 1.11 stacks have real functions only, and so does FuncForPC.
        self._told_of = 0 if symbolizer.logical_stacks else -1

    @property
    def logical_stacks(self) -> bool:
        """Whether the runtime's stacks have an address for each inlined call, too."""
        return self._symbolizer.logical_stacks

    def frames(self, address: int) -> tuple[Frame, ...]:
        """Return all functions at an address of the process, wrappers too, the innermost inlined one first."""
        return self._symbolizer.frames(address - self._bias)

    def call(self, pc: int) -> Frame | None:
        """Return the function that the call that returns to `pc` stands in; None outside of Go's code.

        It is the innermost one that is inlined there, where stacks have addresses of the others, too.
        """
        frames = self.frames(pc - 1)
        return frames[self._told_of] if frames else None

    def lines(self, pc: int, calls: Iterable[Frame | None]) -> tuple[Line, ...]:
        """Return the functions at a location whose first address is `pc`; `calls` are those of its addresses."""
        if not self._symbolizer.logical_stacks:
            return self._symbolizer.lines(pc - 1 - self._bias)
        return tuple(call.line for call in calls if call is not None)

    def name_to_join_by(self, call: Frame) -> str:
        """Return the name by which a call is told from one of the same function, which is never joined with it."""
        name = call.line.function
        return printed(name) if self._joins_by_printed_names else name

    def is_runtime(self, pc: int) -> bool:
        """Tell whether FuncForPC names a function of the runtime: it looks at `pc` itself, not at the call before."""
        frames = self.frames(pc)
        return bool(frames) and frames[self._told_of].line.function.startswith(RUNTIME)

    def all_calls(self, pc: int) -> list[int]:
        """Return the addresses that a whole stack has for the call that returns to `pc`, inlined ones first."""
        frames = self.frames(pc - 1)
        if not frames or not frames[self._told_of].inlined:
            return [pc]
        return [frame.pc + 1 + self._bias for frame in told(frames)]

    def told_calls(self, pc: int) -> list[int]:
        """Return the addresses that the runtime's stacks have for a call that returns to `pc`; none for a wrapper."""
        frames = self.frames(pc - 1)
        if not frames or not self.logical_stacks:
            return [pc]
        return [frame.pc + 1 + self._bias for frame in told(frames)]


def printed(name: str) -> str:
    """Return the name of a function as the runtime prints it: funcNameForPrint in runtime/traceback.go."""
    begin, end = name.find("["), name.rfind("]")
    return f"{name[:begin]}[...]{name[end + 1 :]}" if 0 <= begin < end else name


def hide_runtime(stacks: Stacks, symbols: Symbols) -> Stacks:
    """Return the stacks from the first function on that is not the runtime's; whole where all are the runtime's."""
    depth = np.diff(stacks.first)
    hidden = np.zeros(len(depth), np.int64)
    within = np.flatnonzero(depth)
    while len(within):
        pcs, which = stacks.different(stacks.first[within] + hidden[within])
        goes_on = np.array([symbols.is_runtime(pc) for pc in pcs.tolist()], np.bool_)[which]
        within = within[goes_on]
        hidden[within] += 1
        within = within[hidden[within] < depth[within]]
    return stacks.cut(np.where(hidden < depth, hidden, 0))


def complete(stacks: Stacks, symbols: Symbols) -> Stacks:
    """Return the stacks with the functions that the last call of each is inlined in: the bound on depth cuts them."""
    some = np.flatnonzero(np.diff(stacks.first))
    return _with_inlined(stacks, stacks.first[some + 1] - 1, symbols.all_calls)


def logical(stacks: Stacks, symbols: Symbols) -> Stacks:
    """Return stacks of the calls that were made as the runtime's own have them: with those that are inlined in others.

    What the compiler made up is left out.
    """
    return _with_inlined(stacks, np.arange(len(stacks.which)), symbols.told_calls)


def _with_inlined(stacks: Stacks, positions: Integers, calls_of: Callable[[int], list[int]]) -> Stacks:
    """Return the stacks with the addresses that `calls_of` gives in the place of each at `positions` (ascending)."""
    pcs, which = stacks.different(positions)
    calls = [calls_of(pc) for pc in pcs.tolist()]
    count = np.array([len(one) for one in calls], np.int64)
    if bool(np.all(count == 1)):
        return stacks
    addresses = np.concatenate((stacks.addresses, np.array([pc for one in calls for pc in one], np.uint64)))
    first = len(stacks.addresses) + np.cumsum(count) - count
    count, first = count[which], first[which]
    depth = np.diff(stacks.first)
    np.add.at(depth, np.searchsorted(stacks.first, positions, side="right") - 1, count - 1)
    rest = np.delete(stacks.which, positions)
    added = runs(first, count).astype(np.uint32)
    at = np.repeat(positions - np.arange(len(positions)), count)
    return Stacks.of(_edges(depth), np.insert(rest, at, added), addresses)


class Locations:
    """The locations of stacks, each once, in the order in which they were met."""

    def __init__(self, symbols: Symbols, mappings: Sequence[ProfileMapping], foreign: Names | None = None) -> None:
        """Note no location yet; `mappings`: sorted and disjoint. `foreign` names what is not Go's."""
        self._symbols = symbols
        self._foreign = foreign
        self._mappings = mappings
        self._starts = [mapping.start for mapping in mappings]
        self._locations: list[Location] = []
        self._index: dict[int, int] = {}  # by the first return address
        self._foreign_lines: dict[int, tuple[Line, ...]] = {}
        self._lines: dict[Line, Line] = {}
        self._whose: dict[str, Line] = {}

    def of(self, stacks: Stacks) -> CallStacks:
        """Return the indices of each stack's locations."""
        return self.of_each(stacks.pieces(AT_ONCE))

    def of_each(self, pieces: Iterable[Stacks]) -> CallStacks:
        """Return the indices of each stack's locations, of stacks that come piece by piece, AT_ONCE addresses each."""
        return CallStacks.joined(map(self._of, pieces))

    def _of(self, stacks: Stacks) -> tuple[Integers, Numbers]:
        """Return of each stack how many locations it has, and the indices of all of them."""
        pcs, which = stacks.different()
        calls = [self._symbols.call(pc) for pc in pcs.tolist()]
        kept = np.array([call is None or call.line.function != GOEXIT for call in calls], np.bool_)[which]
        names = ["" if call is None else self._symbols.name_to_join_by(call) for call in calls]
        begins = kept & ~_continues(stacks.first, which, calls, names, kept)
        positions = np.flatnonzero(begins)
        self._name_foreign([pc for pc, call in zip(pcs.tolist(), calls, strict=True) if call is None])
        self._note_new(pcs, which, calls, positions, kept & ~begins)
        index = np.array([self._index.get(pc, 0) for pc in pcs.tolist()], np.uint32)[which[positions]]
        return np.diff(np.searchsorted(positions, stacks.first)), index

    def all(self) -> tuple[Location, ...]:
        """Return the locations."""
        return tuple(self._locations)

    def mappings(self) -> tuple[ProfileMapping, ...]:
        """Return the mappings; such that all that was met in them has names say so."""
        named: dict[int, bool] = {}
        for location in self._locations:
            if location.mapping is not None:
                good = bool(location.lines) and all(
                    line.function and line.file and line.line for line in location.lines
                )
                named[location.mapping] = named.get(location.mapping, True) and good
        return tuple(
            replace(mapping, has_functions=named.get(number, False)) for number, mapping in enumerate(self._mappings)
        )

    def _note_new(
        self, pcs: Words, which: Integers, calls: list[Frame | None], positions: Integers, continues: Flags
    ) -> None:
        """Make a location of each first address that is not known, as it is where it is met first."""
        _, first_met = np.unique(which[positions], return_index=True)
        for position in positions[np.sort(first_met)].tolist():
            pc = int(pcs[which[position]])
            if pc not in self._index:
                end = position + 1
                while end < len(continues) and continues[end]:
                    end += 1
                self._index[pc] = len(self._locations)
                self._locations.append(self._location(pc, [calls[one] for one in which[position:end].tolist()]))

    def _name_foreign(self, pcs: Sequence[int]) -> None:
        """Learn the functions of return addresses outside of Go's code."""
        new = [pc - 1 for pc in pcs if pc and pc not in self._index]
        if new and self._foreign is not None:
            self._foreign_lines = self._foreign(new)

    def _location(self, pc: int, calls: Iterable[Frame | None]) -> Location:
        found = self._symbols.lines(pc, calls) or self._foreign_lines.get(pc - 1, ())
        lines = tuple(map(self._shared, found))
        return Location(pc - 1, lines, self._mapping(pc))

    def _shared(self, line: Line) -> Line:
        """Return the line as of the function that was met first under its name: pprof knows a function by its name."""
        known = self._lines.get(line)
        if known is None:
            same = self._whose.setdefault(line.function, line)
            known = self._lines[line] = replace(line, file=same.file, start_line=same.start_line)
        return known

    def _mapping(self, pc: int) -> int | None:
        number = bisect_right(self._starts, pc) - 1
        return number if number >= 0 and pc < self._mappings[number].end else None


def _continues(
    first: Integers, which: Integers, calls: Sequence[Frame | None], names: Sequence[str], kept: Flags
) -> Flags:
    """Tell for each address whether its call is one that the address before it is inlined in (pcDeck.tryAdd)."""
    numbers: dict[str, int] = {}
    entry = np.array([call.entry if call else 0 for call in calls], np.uint64)
    inlined = np.array([call is not None and call.inlined for call in calls], np.bool_)
    name = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    before, now = which[:-1], which[1:]
    joined = inlined[before] & (entry[before] == entry[now]) & (entry[now] != 0) & (name[before] != name[now])
    found = np.concatenate((np.zeros(min(len(which), 1), np.bool_), joined & kept[:-1]))
    found[first[first < len(found)]] = False
    return found


def _edges(depth: Integers) -> Integers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(depth)))
