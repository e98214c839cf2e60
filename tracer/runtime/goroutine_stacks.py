"""The call stacks of goroutines that are at rest, from their saved registers and their stacks' memory.

They are unwound as the runtime does it: by how far the stack pointer has moved since a function was called, which the
program says of each of its instructions. All goroutines go up one call at a time together, and equal stacks are one.

Source: unwinder in runtime/traceback.go (up to Go 1.20, gentraceback), saveg in runtime/mprof.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.binary.call_frames import CallFrame
from gomem.tracer.process.memory import Memory, Words
from gomem.tracer.runtime.goroutines import Goroutines
from gomem.tracer.runtime.stack_windows import WORD, StackWindows

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Frames = Callable[[int], CallFrame | None]

_AT_ONCE = 1 << 12
_LARGEST_STACK = 1 << 31
_ADDRESS_BITS = np.uint64(57)
# Different calls in all stacks, and steps from call to call: only a program that makes them up has more.
MOST_CALLS, MOST_STEPS = 1 << 20, 1 << 26
_CALL_HELD = 512  # of a call: half of the room is for what is read of goroutines


class CallTree:
    """Stacks as paths from the innermost call outwards. Node 0 is the stack without any call."""

    def __init__(self) -> None:
        self._inner, self._pcs = [0], [0]
        self._nodes: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._pcs)

    def extended(self, nodes: Integers, pcs: Words) -> Integers:
        """Return the nodes of stacks that have one more call each, shape (n,)."""
        calls, call = np.unique(pcs, return_inverse=True)
        pairs, which = np.unique(nodes * len(calls) + call, return_inverse=True)
        found = [self._node(pair // len(calls), int(calls[pair % len(calls)])) for pair in pairs.tolist()]
        return np.array(found, np.int64)[which]

    def stack(self, node: int) -> list[int]:
        """Return where each function of a stack goes on, the innermost first."""
        pcs = []
        while node:
            pcs.append(self._pcs[node])
            node = self._inner[node]
        return pcs[::-1]

    def _node(self, inner: int, pc: int) -> int:
        known = self._nodes.get((inner, pc))
        if known is None:
            known = self._nodes[inner, pc] = len(self._pcs)
            self._inner.append(inner)
            self._pcs.append(pc)
        return known


@dataclass(frozen=True, slots=True)
class GoroutineStacks:
    """The node of each goroutine's stack in a tree of calls, shape (n,); `whole`: as far as the runtime follows it."""

    node: Integers
    whole: Flags


@dataclass(frozen=True, slots=True)
class _Walkers:
    """Goroutines on their way up, shape (n,) each."""

    row: Integers  # among those that were asked for
    pc: Words
    sp: Words
    start: Words  # where memory of the stack is needed from
    high: Words
    link: Words  # the return address, where a register held it, else 0
    node: Integers  # of the calls so far
    depth: Integers
    in_syscall: Flags  # its registers are those that the system call was entered with

    def some(self, which: Flags | Integers) -> _Walkers:
        """Return those at indices, or under a mask."""
        return _Walkers(*(getattr(self, field.name)[which] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class _Calls:
    """The frames of code, shape (n,) each."""

    known: Flags
    size: Words
    top: Flags
    writes_sp: Flags


class Unwinder:
    """Unwinds the stacks of goroutines that are at rest, into one tree; its bounds are those of one profile."""

    def __init__(self, frames: Frames, most_calls: int, *, link_register: bool = False) -> None:
        """`frames`: the frame of the function at an address of the process. `most_calls`: what one stack is cut to.

        `link_register`: a call leaves its return address in a register (arm64), not on the stack.
        """
        self.tree = CallTree()
        self._frame_of = frames
        # Wrappers are not shown, and each calls something that is.
        self._deepest = 2 * most_calls
        self._link_register = link_register
        self._steps_left = MOST_STEPS

    def unwind(self, goroutines: Goroutines, memory: Memory) -> GoroutineStacks:
        """Return the stacks of goroutines none of which runs."""
        found = GoroutineStacks(np.zeros(len(goroutines), np.int64), np.zeros(len(goroutines), np.bool_))
        rounds = [_at_rest(goroutines, self._link_register)]
        while rounds:
            walkers = rounds.pop()
            walkers = walkers.some(np.argsort(walkers.start, kind="stable"))
            later = [
                self._climb(memory, walkers.some(np.arange(first, min(first + _AT_ONCE, len(walkers)))), found)
                for first in range(0, len(walkers), _AT_ONCE)
            ]
            rounds += [some for some in later if len(some)]
        return found

    def _climb(self, memory: Memory, walkers: _Walkers, found: GoroutineStacks) -> _Walkers:
        """Go up as far as one reading of the stacks goes; return those that go on above it."""
        windows = StackWindows(memory, walkers.start, walkers.high)
        at = np.flatnonzero(windows.readable)
        walkers = self._begun(walkers.some(at), windows, at)
        later = [walkers.some(at[:0])]
        while len(walkers) and self._may_go_on(len(walkers), memory):
            calls = self._calls(walkers.pc)
            walkers, at, calls = walkers.some(calls.known), at[calls.known], _some(calls)
            entered = self.tree.extended(walkers.node, walkers.pc)
            found.node[walkers.row] = entered
            ends = calls.top | (calls.writes_sp & ~walkers.in_syscall) | (walkers.depth + 1 >= self._deepest)
            found.whole[walkers.row[ends]] = True
            slot = walkers.sp if self._link_register else walkers.sp + calls.size
            inside = ~ends & (slot + WORD <= walkers.high)
            held = windows.has(at, slot)
            later.append(replace(walkers, start=slot).some(inside & ~held))
            goes = inside & held
            walkers, at = self._above(walkers, entered, calls, windows, slot, at, goes)
        return _joined(later)

    def _above(
        self, walkers: _Walkers, entered: Integers, calls: _Calls, windows: StackWindows, slot: Words, at: Integers,
        goes: Flags,
    ) -> tuple[_Walkers, Integers]:  # fmt: skip
        """Return those that go on, at what called them, and their windows."""
        value = windows.words(at[goes], slot[goes])
        walkers, at, size = walkers.some(goes), at[goes], calls.size[goes]
        if self._link_register:
            value = np.where((size == 0) & (walkers.link != 0), walkers.link, value)
        sp = walkers.sp + size + np.uint64(0 if self._link_register else WORD)
        nothing = np.zeros(len(walkers), np.uint64)
        above = replace(
            walkers, pc=value, sp=sp, link=nothing, node=entered[goes], depth=walkers.depth + 1,
            in_syscall=nothing != 0,
        )  # fmt: skip
        return above.some(value != 0), at[value != 0]

    def _begun(self, walkers: _Walkers, windows: StackWindows, at: Integers) -> _Walkers:
        """Return the walkers where those that called a nil function are at what called it."""
        nil = (walkers.pc == 0) & windows.has(at, walkers.sp)
        pc = np.where(nil, windows.words(at, np.where(nil, walkers.sp, walkers.start)), walkers.pc)
        step = np.uint64(0 if self._link_register else WORD)
        return replace(walkers, pc=pc, sp=np.where(nil, walkers.sp + step, walkers.sp))

    def _may_go_on(self, count: int, memory: Memory) -> bool:
        self._steps_left -= count
        return self._steps_left > 0 and len(self.tree) < min(MOST_CALLS, memory.room.size // _CALL_HELD)

    def _calls(self, pcs: Words) -> _Calls:
        different, which = np.unique(pcs, return_inverse=True)
        frames = [self._frame_of(pc) for pc in different.tolist()]
        known = [frame is not None and frame.size % WORD == 0 for frame in frames]
        size = np.array([frame.size if frame else 0 for frame in frames], np.uint64)
        top = np.array([frame is not None and frame.top for frame in frames], np.bool_)
        writes = np.array([frame is not None and frame.writes_sp for frame in frames], np.bool_)
        return _Calls(np.array(known, np.bool_)[which], size[which], top[which], writes[which])


def _some(calls: _Calls) -> _Calls:
    known = calls.known
    return _Calls(known[known], calls.size[known], calls.top[known], calls.writes_sp[known])


def _at_rest(goroutines: Goroutines, link_register: bool) -> _Walkers:
    """Return the goroutines where they were left, without those whose stack pointer is not in their stack."""
    in_syscall = goroutines["syscallsp"] != 0
    pc = np.where(in_syscall, goroutines["syscallpc"], goroutines["sched.pc"])
    sp = np.where(in_syscall, goroutines["syscallsp"], goroutines["sched.sp"])
    low, high = goroutines["stack.lo"], goroutines["stack.hi"]
    number = np.zeros(len(goroutines), np.int64)
    link = goroutines["sched.lr"] if link_register else np.zeros(len(goroutines), np.uint64)
    walkers = _Walkers(
        np.arange(len(goroutines)), pc, sp, sp, high, np.where(in_syscall, np.uint64(0), link), number, number,
        in_syscall,
    )  # fmt: skip
    fits = (low <= sp) & (sp < high) & (high - low <= np.uint64(_LARGEST_STACK)) & (high >> _ADDRESS_BITS == 0)
    return walkers.some(fits & ((sp | high) % np.uint64(WORD) == 0))


def _joined(parts: list[_Walkers]) -> _Walkers:
    return _Walkers(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Walkers)))
