"""What is read beside a look at a process, of the same moment, to tell who holds its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from gomem.tracer.errors import GomemError, TargetExecuted, TargetGone
from gomem.tracer.kernel.file_pages import MOST_MAPPINGS
from gomem.tracer.kernel.smaps import Smaps, read_smaps
from gomem.tracer.kernel.view import KernelView
from gomem.tracer.profile.call_stacks import CallStacks
from gomem.tracer.profile.code import GoCode
from gomem.tracer.profile.heap import HeapReader, scaled
from gomem.tracer.profile.in_use import NO_CALLS, SampledCalls
from gomem.tracer.profile.sites import Sites
from gomem.tracer.profile.stacks import Locations, Stacks, complete
from gomem.tracer.report import Limit
from gomem.tracer.runtime.goroutines import Goroutines, read_goroutines
from gomem.tracer.runtime.profile_buckets import Buckets
from gomem.tracer.snapshot.inspection import Inspector

T = TypeVar("T")


class Beside:
    """Reads it when a look calls `read`: the heap profile, all goroutines, and which pages of files are dirty.

    What cannot be had becomes a limit.
    """

    def __init__(self, inspector: Inspector) -> None:
        """Learn what has to be learnt only once. Raises TargetGone, TargetExecuted."""
        self.goroutines: Goroutines | None = None
        self.smaps: Smaps | None = None  # only where some pages of files are dirty or locked
        self.limits: list[Limit] = []
        self._target = inspector.target
        self._kernel: KernelView | None = None
        self._buckets: Buckets | None = None
        code = self._attempt(_calls, lambda: GoCode(inspector)) if inspector.program.is_go else None
        self._code = code
        self._heap = self._attempt(_calls, lambda: HeapReader(code)) if code is not None else None

    def read(self, kernel: KernelView) -> None:
        """Read it, of a process of which this is the kernel's view; a look that is taken again reads it again."""
        self._kernel, self._buckets, self.goroutines, self.smaps = kernel, None, None, None
        heap, code, pages = self._heap, self._code, kernel.file_pages
        if heap is not None:
            self._buckets = self._attempt(_calls, lambda: heap.read(kernel.mappings))
        if code is not None:
            self.goroutines = self._attempt(_stacks, lambda: _read_goroutines(code))
        if (pages is None or pages.dirty or pages.locked) and len(kernel.mappings) <= MOST_MAPPINGS:
            self.smaps = self._attempt(_files, lambda: read_smaps(self._target))

    def is_of(self, kernel: KernelView) -> bool:
        """Tell whether what was read is of the look that has this kernel's view."""
        return self._kernel is kernel

    @cached_property
    def locations(self) -> Locations | None:
        """The code that the stacks of calls are in; None where that is not known."""
        return self._code.locations(self._kernel.mappings, foreign=True) if self._code and self._kernel else None

    def calls(self) -> SampledCalls:
        """Return the calls of the heap profile, with their stacks among `locations`."""
        heap, buckets, locations = self._heap, self._buckets, self.locations
        if heap is None or buckets is None or locations is None:
            return NO_CALLS
        stacks = self._attempt(_calls, lambda: heap.stacks(buckets, locations))
        if stacks is None:
            return NO_CALLS
        self.limits += buckets.limits
        size = buckets.object_size.astype(np.int64)
        objects = buckets.allocs - buckets.frees, buckets.held
        return SampledCalls(Sites(size, *(scaled(count, size, heap.rate)[1] for count in objects)), stacks)

    def stacks(self, stacks: Stacks) -> CallStacks:
        """Return stacks of return addresses, with the functions that they are inlined in, among `locations`."""
        assert self._code is not None
        assert self.locations is not None
        return self.locations.of(complete(stacks, self._code.symbols))

    def _attempt(self, limit: Callable[[GomemError], Limit], read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (TargetGone, TargetExecuted):
            raise
        except GomemError as error:
            self.limits.append(limit(error))
            return None


@dataclass(frozen=True, slots=True)
class NothingBeside:
    """Nothing was read beside a look: it may be an old one, or of another machine."""

    goroutines: None = None
    smaps: None = None
    locations: None = None

    def calls(self) -> SampledCalls:
        """Return that no call is known."""
        return NO_CALLS

    def stacks(self, stacks: Stacks) -> CallStacks:
        """Nobody asks: there is no goroutine."""
        del stacks
        raise AssertionError("stacks of no goroutine")


NOTHING_BESIDE = NothingBeside()


def _read_goroutines(code: GoCode) -> Goroutines:
    memory = code.inspector.memory()
    memory.start_budget()
    addresses = {name: address + code.bias for name, address in code.inspector.program.globals.items()}
    return read_goroutines(memory, code.layout, addresses)


def _calls(error: GomemError) -> Limit:
    return Limit("resident-calls", "which calls have allocated the objects in RAM", error.what, error.fix)


def _stacks(error: GomemError) -> Limit:
    return Limit("resident-stacks", "which goroutines have the stacks in RAM", error.what, error.fix)


def _files(error: GomemError) -> Limit:
    return Limit("resident-file-pages", "which pages of files are dirty", error.what, error.fix)
