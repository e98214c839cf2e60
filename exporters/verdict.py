"""The report in one sentence: what RSS is made of, in the order that answers "is this bad?"."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.units import size
from tracer.report import Report

# Parts are named until this share of RSS is told, but never more than this many.
_TELL_SHARE = 0.80
_TELL_AT_MOST = 3
# A part below this share does not deserve its words.
_NOT_WORTH_TELLING = 0.10

_RUNTIME_KINDS = ("heap_metadata", "page_summary", "runtime_other")
_C_KINDS = ("c_heap", "thread_stack", "other")
_FILE_KINDS = ("binary", "shared_library", "file", "vdso")


@dataclass(frozen=True, slots=True)
class Share:
    """A part of RSS in bytes, and how it is said after "N MiB "."""

    bytes: int
    words: str


def verdict(report: Report) -> str:
    """Return one sentence on what the process's RSS is made of."""
    resident = report.resident
    if report.rebuilt is not None:
        return "From a log of system calls: what is mapped is known as far as the log goes, what is in RAM is not."
    if resident is None:
        return "The kernel's view of this process could not be had; see the limits below."
    shares = sorted(_shares(report), key=lambda share: share.bytes, reverse=True)
    told: list[str] = []
    covered = 0
    for share in shares[:_TELL_AT_MOST]:
        if share.bytes < _NOT_WORTH_TELLING * resident.total or covered >= _TELL_SHARE * resident.total:
            break
        told.append(f"{size(share.bytes)} is {share.words}")
        covered += share.bytes
    sentence = f"RSS {size(resident.total)}"
    if told:
        sentence += ": " + "; ".join(told)
    return sentence + _live(report) + "."


def _live(report: Report) -> str:
    if report.heap is None:
        return "; the Go runtime could not be read" if report.process.go_version else "; no Go runtime was found in it"
    if report.heap.live:
        # Objects that were allocated and never written to hold no RAM: without a word this looks wrong.
        absent = " (not all of it in RAM)" if report.heap.live > report.heap.resident.in_use else ""
        return f"; the live heap is {size(report.heap.live)}{absent}"
    alloc = (report.memstats or {}).get("HeapAlloc")
    return f"; heap objects take {size(alloc)}" if isinstance(alloc, int) else ""


def _shares(report: Report) -> list[Share]:
    """Return RSS cut into parts that do not overlap; what cannot be told apart is left out."""
    resident = report.resident
    if resident is None:
        return []
    lazy = resident.lazy_free or 0
    if report.heap is None:
        return _kernel_shares(report, lazy)
    pages = report.heap.resident
    by_kind = {row.kind: row.resident for row in report.kinds or ()}

    def of(kinds: tuple[str, ...]) -> int:
        return sum(by_kind.get(kind, 0) for kind in kinds)

    lazy_heap = min(lazy, pages.scavenged)
    return [
        Share(lazy, "memory the Go runtime already gave back (MADV_FREE) and the kernel may take any time"),
        Share(pages.scavenged - lazy_heap, "heap the Go runtime gave back but the kernel keeps in RAM"),
        Share(pages.in_use, "Go heap in use"),
        Share(pages.free, "free heap that Go keeps for reuse"),
        Share(pages.stacks, "goroutine stacks"),
        Share(of(_RUNTIME_KINDS) + pages.work_bufs + pages.outside, "the Go runtime's own records"),
        Share(of(_C_KINDS), "memory outside the Go runtime (C malloc, mmap)"),
        Share(of(_FILE_KINDS), "pages of files (program text, libraries), which the kernel can drop"),
    ]


def _kernel_shares(report: Report, lazy: int) -> list[Share]:
    resident = report.resident
    assert resident is not None
    return [
        Share(lazy, "lazily freed memory (MADV_FREE) that the kernel may take any time"),
        Share((resident.anonymous or 0) - lazy, "the program's own (anonymous) memory"),
        Share(resident.file or 0, "pages of files (program text, libraries), which the kernel can drop"),
        Share(resident.shmem or 0, "shared memory"),
    ]
