"""What becomes of free heap: the words of the rule on retained memory."""

from __future__ import annotations

import math
from typing import Final

from gomem.tracer.report import Heap, Scavenger
from gomem.tracer.report.findings.base import NOTEWORTHY, mib

_RELEASE: Final = (
    "debug.FreeOSMemory() in the program returns all of it at once; a GOMEMLIMIT below what Go uses now makes the "
    "scavenger return it."
)


def fate_of_free_heap(heap: Heap) -> tuple[str, str]:
    """Return what the scavenger will do with the free pages of the heap, and what the person can do."""
    scavenger = heap.scavenger
    if scavenger is None:
        return (
            "The background scavenger returns what is above its goal, at 1 % of the CPU at the most. What it is about "
            "to do could not be read.",
            _RELEASE,
        )
    if scavenger.will_return >= NOTEWORTHY:
        return _returns(scavenger, heap.pages.free)
    return _kept(scavenger)


def _returns(scavenger: Scavenger, free: int) -> tuple[str, str]:
    """Say what comes, and when."""
    seconds = scavenger.will_return_seconds
    when = f"within about {math.ceil(seconds)} s" if seconds is not None else "at up to 1 % of the CPU"
    basis = {
        "watched": " (as fast as it was while watched)",
        "since start": " (as fast as it was since the start, at 1 % of the CPU)",
        None: "",
    }[scavenger.basis]
    rest = max(free - scavenger.will_return, 0)
    kept = f" {mib(rest)} will be kept." if rest >= NOTEWORTHY else ""
    return (
        f"The background scavenger will return {mib(scavenger.will_return)} of it {when}{basis}.{kept}",
        f"Wait, if the program stays as it is. {_RELEASE}",
    )


def _kept(scavenger: Scavenger) -> tuple[str, str]:
    """Say why nothing comes before the next collection, which sets the goal anew."""
    if scavenger.active:
        why = (
            "It will be kept until the next collection: the scavenger is above its goal, but leaves regions of 4 MiB "
            "alone that were full in this GC cycle or the last, and those that it has passed."
        )
    elif scavenger.goal_bytes is None:
        why = "It will be kept: no goal asks the background scavenger to return anything."
    else:
        why = (
            f"It will be kept: heap in use and free is {mib(scavenger.retained)}, below the background scavenger's "
            f"goal of {mib(scavenger.goal_bytes)}."
        )
    if scavenger.after_next_collection is None:
        return f"{why} Nothing sets a new goal, as GOGC is off.", f"{_RELEASE} Waiting does not."
    coming = scavenger.after_next_collection
    then = f"about {mib(coming)} of it will then be returned" if coming >= NOTEWORTHY else "and it will still be kept"
    soon = scavenger.next_collection_seconds
    when = f" (in an idle program within {math.ceil(soon)} s)" if soon else ""
    return (
        f"{why} The next collection sets a new goal{when}; {then}, if the live heap stays as it is.",
        f"{_RELEASE} Waiting returns nothing before the next collection.",
    )
