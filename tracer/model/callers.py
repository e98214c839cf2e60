"""Who did it: from the return addresses of an event to the names of the functions.

The functions that only carry a request to the kernel (the sys* wrappers, their OS twins, the stack
switches) are stepped over, so that the one that wanted the memory is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.events.record import MAX_STACK, EventBatch

Symbolize = Callable[[int], str | None]

MAX_CHAINS = 50_000
MAX_NAMES = 200_000

# runtime/mem.go, mem_linux.go, malloc.go (sysReserveAligned), cgo_mmap.go, the assembly in sys_linux_*.s and
# asm_*.s, and the raw system calls of package syscall and (internal/runtime/syscall, before 1.24
# runtime/internal/syscall, since 1.26 internal/runtime/syscall/linux).
_WRAPPERS = re.compile(
    r"runtime\.sys(Reserve|Map|Used|Unused|Fault|Free|Alloc|HugePage|NoHugePage|HugePageCollapse)(OS|Aligned\w*)?"
    r"|runtime\.(sysMmap|sysMunmap|mmap|munmap|madvise|callCgoMmap|callCgoMunmap|brk0|sbrk0)"
    r"|runtime\.(systemstack|systemstack_switch|mcall|asmcgocall|asmcgocall_no_g|morestack|newstack)"
    r"|(runtime/internal|internal/runtime)/syscall(/linux)?\.\w+"
    r"|syscall\.(Raw)?Syscall[69]?|syscall\.(raw|Raw)?[sS]yscallNoError|syscall\.rawVforkSyscall|syscall\.RawSyscall6"
)
_CLOSURE = re.compile(r"(\.func\d+|\.\d+|-fm|\.abi0)+$")


class Chain(Struct, frozen=True):
    """The callers of one event, innermost first; an address that has no name stays in hexadecimal.

    `function` is the innermost one that is no mere wrapper, None where no address has a name.
    """

    callers: tuple[str, ...]
    function: str | None


NO_CHAIN = Chain((), None)


def is_wrapper(name: str) -> bool:
    """Tell whether a function only passes requests on to the kernel or to another stack."""
    return _WRAPPERS.fullmatch(_CLOSURE.sub("", name)) is not None


class Callers:
    """Names the call stacks of events, each distinct one once.

    `symbolize` gets an address inside the calling instruction (the return address less one) and
    returns the function's name or None.
    """

    def __init__(self, symbolize: Symbolize) -> None:
        self._symbolize = symbolize
        self._names: dict[int, str | None] = {}
        self._ids: dict[int, int] = {}
        self.chains: list[Chain] = [NO_CHAIN]
        # A random linear hash tells stacks apart; nobody who writes the stacks can know it.
        seeds = np.frombuffer(os.urandom(8 * MAX_STACK), np.uint64)
        within = np.arange(MAX_STACK) < np.arange(MAX_STACK + 1)[:, None]
        self._multipliers = np.where(within, seeds | np.uint64(1), np.uint64(0))  # a row for each depth

    def label(self, events: EventBatch, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return for each of `rows` the position of its chain in `chains` (0: no stack, or too many stacks)."""
        if not len(rows):
            return np.zeros(0, dtype=np.intp)
        depth = np.minimum(events["depth"][rows], MAX_STACK)
        stacks = events["stack"][rows]
        keys = np.einsum("ij,ij->i", stacks, self._multipliers[depth]).tolist()
        ids = list(map(self._ids.get, keys))
        if None in ids:
            ids = [self._id(key, stacks[row, : depth[row]]) if known is None else known
                   for row, (key, known) in enumerate(zip(keys, ids, strict=True))]  # fmt: skip
        return np.array(ids, np.intp)

    def _id(self, key: int, stack: NDArray[np.uint64]) -> int:
        known = self._ids.get(key)
        if known is None and len(self.chains) < MAX_CHAINS:
            addresses = [address for address in stack.tolist() if address]
            known = self._ids[key] = len(self.chains) if addresses else 0
            if addresses:
                self.chains.append(self._chain(addresses))
        return known or 0

    def _chain(self, addresses: Sequence[int]) -> Chain:
        names = [self._name(address) for address in addresses]
        known = [name for name in names if name]
        function = next((name for name in known if not is_wrapper(name)), known[0] if known else None)
        callers = tuple(name or f"{address:#x}" for name, address in zip(names, addresses, strict=True))
        return Chain(callers, function.removesuffix(".abi0") if function else None)

    def _name(self, address: int) -> str | None:
        if address not in self._names:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[address] = self._symbolize(address - 1)
        return self._names[address]
