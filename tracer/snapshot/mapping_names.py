"""The names that Go gives to its mappings, against what gomem takes them for.

From Go 1.25 on, and where the kernel has CONFIG_ANON_VMA_NAME, the runtime names each mapping for what it asked for it:
"[anon: Go: heap]". These names are not needed to find anything; that they agree is a proof from the other side.

Source: the vmaName arguments in runtime/*.go, setVMAName in runtime/set_vma_name_linux.go (Go 1.25 to 1.27).
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from gomem.tracer.addresses.ranges import distinct
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.report import KINDS, Limit
from gomem.tracer.snapshot.join import AddressSpace

_PREFIX, _SUFFIX = "[anon: Go: ", "]"

KIND_OF_NAME = {
    "heap": "heap_arena",
    "heap reservation": "heap_arena",
    "user arena chunk": "heap_arena",
    "heap index": "heap_metadata",
    "heap metadata": "heap_metadata",
    "immortal metadata": "heap_metadata",
    "page alloc index": "heap_metadata",
    "allspans array": "heap_metadata",
    "gc bits": "heap_metadata",
    "profiler hash buckets": "heap_metadata",
    "GC span queue": "heap_metadata",
    "page summary": "page_summary",
    "page alloc": "page_summary",
    "scavenge index": "page_summary",
    "OS thread stack": "thread_stack",
    "trace buffer": "runtime_other",
    "trace arena alloc": "runtime_other",
    "getrandom states": "runtime_other",
    "debug log": "runtime_other",
    "heapdump": "runtime_other",
    "goroutine stack (system)": "runtime_other",  # with the runtime's own debugging of stacks
}
# What sysUsed and sysUnused call a range that they had to map anew: it is the heap, or what held goroutine stacks.
_ANY_KIND = ("used", "unused")


class Disagreement(Struct, frozen=True):
    """Bytes of mappings of one name that gomem takes for another kind than the runtime's name says."""

    name: str
    expected: str | None  # None: a name that gomem does not know
    kind: str
    bytes: int


def disagreements(mappings: Mappings, space: AddressSpace) -> list[Disagreement]:
    """Return where the names and the kinds differ, by name; nothing where the kernel shows no names."""
    found = []
    size = space.size
    for name in sorted({name for name in mappings.name if name.startswith(_PREFIX)}):
        word = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if word in _ANY_KIND:
            continue
        expected = KIND_OF_NAME.get(word)
        named = np.array([other == name for other in mappings.name], np.bool_)[space.mapping]
        for kind in distinct(space.kind[named]).tolist():
            if expected is None or KINDS[kind] != expected:
                count = int(size[named & (space.kind == kind)].sum())
                found.append(Disagreement(word, expected, KINDS[kind], count))
    return found


def as_limits(found: list[Disagreement]) -> list[Limit]:
    """Return one limit for all disagreements: they are errors of ours, and every figure by kind is in doubt."""
    if not found:
        return []
    worst = sorted(found, key=lambda one: -one.bytes)[:5]
    said = "; ".join(
        f'{one.bytes} bytes that Go calls "{one.name}" are counted as {one.kind}'
        + (f", not {one.expected}" if one.expected else "")
        for one in worst
    )
    total = sum(one.bytes for one in found)
    return [
        Limit(
            "mapping-names-disagree",
            "certainty about the kinds of mappings",
            f"{total} bytes do not agree with the names that Go gave its mappings: {said}",
            "this is an error of gomem: please report the Go release and /proc/PID/maps",
        )
    ]
