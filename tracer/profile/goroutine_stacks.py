"""What holds the heap pages of stacks: goroutines by what they run and who created them, and free stacks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gomem.tracer.process.memory import Words
from gomem.tracer.profile.holders import Holder, Path
from gomem.tracer.profile.slots import Integers, PagesIn, Sizes
from gomem.tracer.profile.stacks import Stacks
from gomem.tracer.runtime.goroutines import Goroutines

STACKS: Path = ("goroutine stacks",)
GOROUTINES, DEAD = (*STACKS, "stacks of goroutines"), (*STACKS, "stacks kept with ended goroutines")
# The runtime keeps free stacks in pools of its own and of each P; those of threads are g0's and gsignal's.
_REST: Path = (*STACKS, "free stacks, and those of threads")
_UNKNOWN: Path = (*STACKS, "stacks that are not told apart")
_FURTHER: Path = (*GOROUTINES, "of further functions and calls")
_END = np.uint64(1 << 57)
# Each costs some ten microseconds to be named. No program begins goroutines with as many functions.
_MOST_CALLS = 1 << 14

StacksOf = Callable[[Stacks], Sequence[tuple[int, ...]]]


def of_stacks(pages: PagesIn, goroutines: Goroutines | None, stacks_of: StacksOf) -> Iterator[Holder]:
    """Yield what holds the pages of stacks; all of it sums to them. `stacks_of`: stacks as indices of locations."""
    everything = pages.all()
    if goroutines is None:
        yield Holder(_UNKNOWN, *everything.total())
        return
    gs = _with_stacks(goroutines)
    each = pages.between(gs["stack.lo"], gs["stack.hi"])
    alive = gs.alive
    yield Holder(DEAD, *each.at(~alive).total())
    yield Holder(_REST, *(everything - each.grouped(np.zeros(len(gs), np.int64), 1)).total())
    yield from _by_creator(gs.some(alive), each.at(alive), stacks_of)


def _with_stacks(goroutines: Goroutines) -> Goroutines:
    """Return those that have a stack, in order of where that begins."""
    low, high = goroutines["stack.lo"], goroutines["stack.hi"]
    some = np.flatnonzero((low < high) & (high <= _END))
    return goroutines.some(some[np.argsort(low[some], kind="stable")])


def _by_creator(gs: Goroutines, each: Sizes, stacks_of: StacksOf) -> Iterator[Holder]:
    """Yield a holder for each function that goroutines began with and each call that created some with it."""
    pairs = np.stack((gs["startpc"], gs["gopc"]), axis=1)
    pairs, which = np.unique(pairs, axis=0, return_inverse=True)
    sizes = each.grouped(which.reshape(-1).astype(np.int64), len(pairs))
    largest = np.argsort(-sizes.resident, kind="stable")
    some, rest = largest[:_MOST_CALLS], largest[_MOST_CALLS:]
    of_some = sizes.at(some)
    rows = zip(stacks_of(_calls(pairs[some])), of_some.virtual.tolist(), of_some.resident.tolist(), strict=True)
    for stack, virtual, resident in rows:
        yield Holder(GOROUTINES, virtual, resident, "pages", stack)
    yield Holder(_FURTHER, *sizes.at(rest).total())


def _calls(pairs: Words) -> Stacks:
    """Return each pair as a stack of return addresses: behind where a function begins, and of the go statement."""
    there = pairs != 0
    pcs = pairs + np.array((1, 0), np.uint64)
    first: Integers = np.concatenate((np.zeros(1, np.int64), np.cumsum(there.sum(axis=1))))
    return Stacks(first, pcs[there])
