"""RSS cut into parts that do not overlap: as finely as both of two reports allow. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gomem.tracer.report import Report

Cut = dict[str, int]  # bytes by the id of a part

WORDS: Final = {
    "live": "live heap",
    "since": "heap allocated since the last collection",
    "holes": "free slots in spans in use",
    "absent": "(less the heap in use that is not in RAM)",
    "in-use": "Go heap in use",
    "stacks": "goroutine stacks",
    "free": "free heap that Go keeps for reuse",
    "scavenged": "heap that Go gave back and that is still in RAM",
    "runtime": "the Go runtime's own records",
    "thread-stacks": "stacks of OS threads",
    "c-heap": "C heap",
    "other": "mappings of no known owner",
    "other-runtime": "the memory of other Go runtimes",
    "image": "the program and its libraries",
    "files": "mapped files",
    "shared-memory": "shared memory",
    "anonymous": "the program's own (anonymous) memory",
    "file-pages": "pages of files",
    "unexplained": "unexplained",
}
_KINDS: Final = {
    "thread-stacks": ("thread_stack",),
    "c-heap": ("c_heap",),
    "other": ("other",),
    "other-runtime": ("other_runtime",),
    "image": ("binary", "shared_library", "vdso"),
}
_RUNTIME_KINDS: Final = ("heap_metadata", "page_summary", "runtime_other")


def cut_both(before: Report, after: Report) -> tuple[Cut, Cut] | None:
    """Return the parts of the RSS of each; both have the same, in the same order. None: not both have an RSS."""
    if before.resident is None or after.resident is None:
        return None
    reports = before, after
    if all(map(_has_kinds, reports)) and (before.heap is None) == (after.heap is None):
        cuts: tuple[Callable[[Report], Cut], ...] = (_of_kinds,)
        if before.heap is not None:
            split = all(report.heap and report.heap.limit_use for report in reports)
            cuts = (_objects if split else _in_use, _heap, _of_kinds)
        files = _files_split if all(map(_tells_shmem, reports)) else _files
        return _made(before, (*cuts, files)), _made(after, (*cuts, files))
    kernel = _by_the_kernel(before), _by_the_kernel(after)
    known = [name for name in kernel[0] if None not in (kernel[0][name], kernel[1][name])]
    one, other = ({name: each[name] or 0 for name in known} for each in kernel)
    return _made(before, (lambda _: one,)), _made(after, (lambda _: other,))


def _made(report: Report, cuts: tuple[Callable[[Report], Cut], ...]) -> Cut:
    assert report.resident is not None
    found: Cut = {}
    for cut in cuts:
        found |= cut(report)
    return found | {"unexplained": report.resident.total - sum(found.values())}


def _objects(report: Report) -> Cut:
    assert report.heap is not None
    assert report.heap.limit_use is not None
    use = report.heap.limit_use
    absent = report.heap.resident.in_use - report.heap.pages.in_use
    return {"live": use.live, "since": use.garbage, "holes": use.holes, "absent": absent}


def _in_use(report: Report) -> Cut:
    assert report.heap is not None
    return {"in-use": report.heap.resident.in_use}


def _heap(report: Report) -> Cut:
    assert report.heap is not None
    pages = report.heap.resident
    return {
        "stacks": pages.stacks,
        "free": pages.free,
        "scavenged": pages.scavenged,
    }


def _of_kinds(report: Report) -> Cut:
    found = {name: _resident(report, *kinds) for name, kinds in _KINDS.items()}
    if report.heap is None:
        return found | {"runtime": _resident(report, *_RUNTIME_KINDS, "heap_arena")}
    pages = report.heap.resident
    return found | {"runtime": _resident(report, *_RUNTIME_KINDS) + pages.work_bufs + pages.outside}


def _files(report: Report) -> Cut:
    return {"files": _resident(report, "file")}


def _files_split(report: Report) -> Cut:
    shared = sum(row.shmem or 0 for row in report.kinds or () if row.kind == "file")
    return {"files": _resident(report, "file") - shared, "shared-memory": shared}


def _by_the_kernel(report: Report) -> dict[str, int | None]:
    resident = report.resident
    assert resident is not None
    return {"anonymous": resident.anonymous, "file-pages": resident.file, "shared-memory": resident.shmem}


def _resident(report: Report, *kinds: str) -> int:
    return sum(row.resident or 0 for row in report.kinds or () if row.kind in kinds)


def _has_kinds(report: Report) -> bool:
    return report.kinds is not None and all(row.resident is not None for row in report.kinds)


def _tells_shmem(report: Report) -> bool:
    return all(row.shmem is not None for row in report.kinds or () if row.kind == "file")
