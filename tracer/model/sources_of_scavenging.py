"""Who asked the scavenger for memory, by the functions that called it."""

from __future__ import annotations

from collections.abc import Iterable

# runtime/mgcscavenge.go and mheap.go. allocSpan scavenges for the heap goal (1.19 to 1.27) and for
# GOMEMLIMIT, by the same call: a stack does not tell which of the two.
_SOURCES = (
    ("FreeOSMemory", ("runtime.(*mheap).scavengeAll", "runtime/debug.freeOSMemory", "runtime/debug.FreeOSMemory")),
    ("background", ("runtime.bgscavenge", "runtime.(*scavengerState).")),
    ("allocation", ("runtime.(*mheap).allocSpan", "runtime.(*mheap).grow", "runtime.(*mheap).alloc")),
)


def scavenge_source(callers: Iterable[str]) -> str:
    """Return FreeOSMemory, background, allocation, or other for the callers of a sysUnused, innermost first.

    The innermost tells: also the background scavenger's goroutine may need a larger stack, and so allocate.
    """
    for name in callers:
        for source, prefixes in _SOURCES:
            if name.startswith(prefixes):
                return source
    return "other"
