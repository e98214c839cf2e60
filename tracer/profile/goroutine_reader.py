"""Reads the goroutines of one process, as often as asked: what has to be learnt of its program is learnt once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.binary.call_frames import CallFrames
from gomem.tracer.errors import TargetError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory
from gomem.tracer.profile.code import GoCode
from gomem.tracer.profile.goroutine_calls import GoroutineCalls
from gomem.tracer.runtime.goroutine_stacks import CallTree, Unwinder
from gomem.tracer.runtime.goroutines import RUNNING, Goroutines, read_goroutines, system_goroutines
from gomem.tracer.runtime.resting import Resting, read_resting
from gomem.tracer.snapshot.inspection import Inspector

# Stack0 of runtime.StackRecord; since Go 1.23 debug.profstackdepth, what that is by default, and at most.
_DEPTH, _DEFAULT_DEPTH, _MOST_DEPTH = 32, 128, 1024

Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]


class GoroutineReader:
    """Reads all goroutines of a process, with their stacks or without."""

    def __init__(self, inspector: Inspector) -> None:
        """Understand the program. Raises TargetError where it is not understood, NotPermitted, TargetGone."""
        self.code = code = GoCode(inspector)
        if not code.layout.confirmed:
            raise TargetError(f"{code.who} keeps its goroutines in a way that is not known of its Go release")
        self.memory = inspector.memory()
        self.memory.start_budget()
        self._addresses = code.globals(("allgs", "debug"))
        depth = _depth(self.memory, code.layout, self._addresses)
        self.calls = GoroutineCalls(code, CallFrames(code.executable, code.functions), depth)

    def read(self) -> Goroutines:
        """Read all gs, also those of goroutines that have ended.

        Raises LayoutError and SnapshotError where there is no list of goroutines that makes sense.
        """
        self.memory.start_budget()
        return read_goroutines(self.memory, self.code.layout, self._addresses)

    def read_stacks(self) -> tuple[Resting, CallTree]:
        """Read the goroutines with their stacks, as paths in a tree of calls; raises as `read`."""
        self.memory.start_budget()
        unwinder = self._unwinder()
        return read_resting(self.memory, self.code.layout, self._addresses, unwinder), unwinder.tree

    def system(self, gs: Goroutines) -> Flags:
        """Tell which of goroutines whose stacks were not read are the runtime's own."""

        def calls_back(indices: Integers) -> Flags:
            callers, unwinder = gs.some(indices), self._unwinder()
            stacks = unwinder.unwind(callers, self.memory)
            in_program: Flags = self._in_program(stacks.node, unwinder.tree) | (callers.status == RUNNING)
            return in_program

        return system_goroutines(gs, self.calls.name, calls_back)

    def system_at_rest(self, gs: Goroutines, node: Integers, tree: CallTree) -> Flags:
        """Tell which of goroutines at rest, with these stacks, are the runtime's own."""
        return system_goroutines(gs, self.calls.name, lambda indices: self._in_program(node[indices], tree))

    def system_running(self, gs: Goroutines) -> Flags:
        """Tell which of goroutines that run are the runtime's own."""
        return system_goroutines(gs, self.calls.name, lambda indices: np.ones(len(indices), np.bool_))

    def _in_program(self, node: Integers, tree: CallTree) -> Flags:
        nodes, which = np.unique(node, return_inverse=True)
        found = [self.calls.is_in_program(tree.stack(one)) for one in nodes.tolist()]
        return np.array(found, np.bool_)[which]

    def _unwinder(self) -> Unwinder:
        return Unwinder(self.calls.frame, self.calls.most, link_register=self.code.layout.goarch == "arm64")


def _depth(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> int:
    """Return how many addresses the runtime keeps of a stack."""
    if not layout.has("debug", "profstackdepth"):
        return _DEPTH
    if "debug" not in addresses:
        return _DEFAULT_DEPTH
    raw = memory.read(addresses["debug"] + layout.offset("debug", "profstackdepth"), 4)
    return min(max(int.from_bytes(raw, "little", signed=True), 0), _MOST_DEPTH)
