"""The report in one sentence: what RSS is made of, in the order that answers "is this bad?"."""

from __future__ import annotations

from msgspec import Struct

from gomem.exporters.units import plural, seconds, size
from gomem.tracer.report import BetweenLooks, Report, Resident

# Parts are named until this share of RSS is told, but never more than this many.
_TELL_SHARE = 0.80
_TELL_AT_MOST = 3
# A part below this share does not deserve its words.
_NOT_WORTH_TELLING = 0.10

_RUNTIME_KINDS = ("heap_metadata", "page_summary", "runtime_other")
_C_KINDS = ("c_heap", "other")
_OWN = "the program's own (anonymous) memory"
_IMAGE_KINDS = ("binary", "shared_library")


class Share(Struct, frozen=True):
    """A part of RSS in bytes, and how it is said after "N MiB "."""

    bytes: int
    words: str


def verdict(report: Report) -> str:
    """Return one sentence on what the process's RSS is made of."""
    resident = report.resident
    if report.rebuilt is not None:
        return "From a log of system calls: what is mapped is known as far as the log goes, what is in RAM is not."
    if report.between_looks is not None:
        return _between_looks(report, report.between_looks)
    if resident is None and report.ending is not None:
        did = "." if report.events is None else "; what it did until then is below."
        return "It ended before its memory could be looked at" + did
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


def _between_looks(report: Report, between: BetweenLooks) -> str:
    if report.resident is not None:
        return f"RSS {size(report.resident.total)}, as the kernel counts it; who held it, only a look can tell."
    then = between.resident_then
    seen = f"; {seconds(between.seconds_before)} before, RSS was {size(then.total)}" if then is not None else ""
    return f"What was in RAM at this moment is not known{seen}."


def _live(report: Report) -> str:
    if report.heap is None:
        return f"; {without_go(report)}" + ("" if _is_go(report) else " in it")
    if report.heap.live:
        # Objects that were allocated and never written to hold no RAM: without a word this looks wrong.
        absent = " (not all of it in RAM)" if report.heap.live > report.heap.resident.in_use else ""
        return f"; the live heap is {size(report.heap.live)}{absent}"
    alloc = (report.memstats or {}).get("HeapAlloc")
    return f"; heap objects take {size(alloc)}" if isinstance(alloc, int) else ""


def without_go(report: Report) -> str:
    """Say why a report has no Go heap."""
    return "the Go runtime could not be read" if _is_go(report) else "no Go runtime was found"


def _is_go(report: Report) -> bool:
    return bool(report.process.go_version) or any(limit.id == "other-go-compiler" for limit in report.limits)


def _shares(report: Report) -> list[Share]:
    """Return RSS cut into parts that do not overlap; what cannot be told apart is left out."""
    resident = report.resident
    if resident is None:
        return []
    lazy = resident.lazy_free or 0
    if report.heap is None:
        return _kernel_shares(report, lazy)
    pages = report.heap.resident
    by_kind = {row.kind: row.resident or 0 for row in report.kinds or ()}

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
        Share(of(("thread_stack",)), _stacks_words(report)),
        Share(of(_C_KINDS), f"memory outside the Go runtime (C malloc, mmap){_kept_by_c(report, of(_C_KINDS))}"),
        Share(of(("other_runtime",)), "the memory of other Go runtimes in the process"),
        Share(_anonymous(report, _IMAGE_KINDS), "variables of the program and its libraries (data, bss)"),
        *_file_shares(report, resident),
    ]


def _kept_by_c(report: Report, outside: int) -> str:
    """Return what of it is free, where that is most of it."""
    free = (report.c_heap.free_resident or 0) if report.c_heap else 0
    return f", of which {size(free)} is free and kept by malloc" if 2 * free > outside else ""


def _kernel_shares(report: Report, lazy: int) -> list[Share]:
    resident = report.resident
    assert resident is not None
    stacks = report.thread_stacks.resident if report.thread_stacks else 0
    return [
        Share(lazy, "lazily freed memory (MADV_FREE) that the kernel may take any time"),
        Share(stacks, _stacks_words(report)),
        Share((resident.anonymous or 0) - lazy - stacks - _anonymous(report, ("file",)), _OWN),
        *_file_shares(report, resident),
    ]


def _anonymous(report: Report, kinds: tuple[str, ...]) -> int:
    """Return what of these kinds no file backs, as far as it is known."""
    return sum(row.anonymous or 0 for row in report.kinds or () if row.kind in kinds)


def _file_shares(report: Report, resident: Resident) -> list[Share]:
    """Return pages of files by what the kernel can do with them, and shared memory."""
    shares = [
        Share(_anonymous(report, ("file",)), "private copies of file pages, which the kernel cannot drop"),
        Share(resident.shmem or 0, "shared memory, which the kernel cannot drop"),
    ]
    if resident.file_clean is None:
        return [*shares, Share(resident.file or 0, "pages of files")]
    return [
        *shares,
        Share(resident.file_clean, "clean pages of files (text, libraries, data), which the kernel can drop"),
        Share(resident.file_dirty or 0, "changed pages of files, which the kernel can drop only after writing them"),
        Share(resident.file_locked or 0, "locked pages of files, which the kernel cannot drop"),
    ]


def _stacks_words(report: Report) -> str:
    stacks = report.thread_stacks
    return f"{plural(stacks.stacks, 'stack') if stacks else 'stacks'} of OS threads"
