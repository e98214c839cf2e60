"""Rules on logs of system calls that others made: what their calls look like."""

from __future__ import annotations

from gomem.tracer.report import Finding, Report
from gomem.tracer.report.findings.base import Evidence, mib

_SUMMARIES = "page summaries"
_INDEX = "index of the heap's arenas"
_ARENA = "heap arena"


def looks_like_go(report: Report) -> Finding | None:
    """Say that a log has the requests that a Go runtime makes when it starts, and what they amount to."""
    sums: dict[str, int] = {}
    accessible = 0
    levels = set()
    for row in report.rebuilt or ():
        if row.looks_like is None:
            continue
        name = row.looks_like.partition(",")[0]
        sums[name] = sums.get(name, 0) + row.size
        if name == _SUMMARIES:
            levels.add(row.looks_like)
        if name == _ARENA and row.protection.startswith("rw"):
            accessible += row.size
    if len(levels) < 5 and _INDEX not in sums:
        return None
    evidence: Evidence = {name.replace(" ", "_").replace("'", ""): size for name, size in sorted(sums.items())}
    evidence["heap_arena_accessible"] = accessible
    arenas = sums.get(_ARENA, 0)
    reserved = sum(size for name, size in sums.items() if name in (_SUMMARIES, "scavenge index"))
    tables = f" {mib(reserved)} are the page allocator's own tables, of which hardly anything is ever touched."
    tables = tables if reserved else ""
    return Finding(
        id="looks-like-go",
        severity="info",
        title=f"This looks like a Go program whose heap may use {mib(accessible)} of {mib(arenas)} of arenas",
        explanation="The calls have the sizes, the order and the places of those that the Go runtime makes when it "
        "starts." + tables + " This is recognised, not proven: another program might ask for the same.",
        evidence=evidence,
        action="For what the runtime really says, run gomem trace on the process.",
    )
