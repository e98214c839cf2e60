"""The heap of C in one look: which allocator has it, and what glibc's has free."""

from __future__ import annotations

from msgspec.structs import replace

from gomem.tracer.addresses.ranges import Ranges, normalise
from gomem.tracer.errors import BackendUnavailable, NotPermitted, SnapshotError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.pagemap import own_pages
from gomem.tracer.kernel.view import KernelView
from gomem.tracer.native.glibc_heap import Place, find_main_arena, proven, read_heap
from gomem.tracer.native.glibc_layout import STATES
from gomem.tracer.process.memory import Memory
from gomem.tracer.process.target import Target
from gomem.tracer.program.c_allocators import c_library_data, linked_allocators, mapped_allocators
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import CAllocator, CHeap, Limit

_WHAT = "what of C's heap is free"


class CHeapReader:
    """Reads the C heap of one process as often as asked; remembers where it is."""

    def __init__(self, target: Target, program: GoProgram) -> None:
        self._target = target
        self._program = program
        self._place: Place | None = None
        self._linked: list[CAllocator] | None = None

    def written_data(self, mappings: Mappings) -> Ranges:
        """Return the pages of the C library's variables that are the process's own: no file is waited for there.

        Raises TargetGone.
        """
        if self._allocators(mappings) is None:
            return normalise([], [])
        try:
            return own_pages(self._target, c_library_data(mappings, self._target.exe_identity))
        except (NotPermitted, BackendUnavailable):
            return normalise([], [])

    def read(self, kernel: KernelView, memory: Memory) -> tuple[CHeap | None, list[Limit]]:
        """Return the heap of C, None where no C is linked in, and what of it could not be had. Raises TargetGone."""
        allocators = self._allocators(kernel.mappings)
        if allocators is None:
            return None, []
        if allocators and allocators[0] != "glibc":
            return CHeap(allocators), [_closed(allocators[0])]
        try:
            place = self._find(kernel.mappings, memory)
            if place is None:
                return (CHeap(allocators), [_unknown()]) if allocators else (None, [])
            heap, why = read_heap(place, _brk(kernel.mappings), kernel.residency, memory)
        except SnapshotError as error:
            return CHeap(allocators or ["glibc"]), [Limit("c-heap", _WHAT, error.what, error.fix)]
        partly = [Limit("c-heap-partly", f"all {_WHAT}", why, "")] if why else []
        return replace(heap, allocators=allocators or ["glibc"]), partly

    def _allocators(self, mappings: Mappings) -> list[CAllocator] | None:
        """Return the allocators, [] where a static program may have any, None for Go without C."""
        mapped = mapped_allocators(mappings)
        if not mapped and self._program.is_go and not self._program.has_function("_cgo_topofstack"):
            return None
        if self._linked is None:
            executable = self._program.executable
            self._linked = linked_allocators(executable) if executable is not None else []
        return list(dict.fromkeys([*self._linked, *mapped]))

    def _find(self, mappings: Mappings, memory: Memory) -> Place | None:
        if self._place is not None:
            self._place = proven(self._place.main + self._place.layout.bins, memory)
        if self._place is None:
            self._place = find_main_arena(self.written_data(mappings), memory)
        return self._place


def _brk(mappings: Mappings) -> tuple[int, int] | None:
    if "[heap]" not in mappings.name:
        return None
    at = mappings.name.index("[heap]")
    return int(mappings.start[at]), int(mappings.end[at])


def _closed(allocator: CAllocator) -> Limit:
    whose = "the program's own" if allocator == "own" else allocator
    return Limit("c-heap-allocator", _WHAT, f"malloc is {whose}, and only glibc's heap is opened", "", "note")


def _unknown() -> Limit:
    known = f"{STATES[0].releases.split()[0]} to {STATES[-1].releases.split()[-1]}"
    return Limit("c-heap-allocator", _WHAT, f"no arenas of a glibc that is known ({known}) are in use", "", "note")
