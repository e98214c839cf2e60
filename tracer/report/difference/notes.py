"""What to know about a comparison: whom the two reports are of, and what one of them lacks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gomem.tracer.report import Report, stat
from gomem.tracer.report.difference.contract import Note

# Sections that some report may lack, and what they tell.
_SECTIONS: Final = {
    "resident": "what is in RAM",
    "kinds": "address space and RAM by kind of mapping",
    "heap": "the Go heap",
    "memstats": "MemStats",
    "spans": "span classes",
    "structure": "the runtime's own records and its goroutines",
    "c_heap": "C's heap",
    "files": "mapped files",
    "holders": "RSS by holder, and goroutines by creator",
    "cgroup_bills": "the memory cgroup",
    "allocations": "allocations by call site",
}
_ORDINALS: Final = "first", "second"


def same_process(before: Report, after: Report) -> bool:
    """Tell whether both are of one process that runs one program."""
    one, other = before.process, after.process
    return (one.pid, one.start_time, one.exe) == (other.pid, other.start_time, other.exe)


def notes(before: Report, after: Report, seconds: float | None) -> list[Note]:
    """Return all notes, those on whom the reports are of first."""
    return [
        *_of_whom(before, after),
        *_of_when(before, after, seconds),
        *_of_moments(before, after),
        *_missing(before, after),
        *_unfit(before, after),
    ]


def _of_whom(before: Report, after: Report) -> Iterator[Note]:
    one, other = before.process, after.process
    if (one.goarch or other.goarch) != (other.goarch or one.goarch):
        yield Note("other-architecture", f"they are of different machines: {one.goarch} and {other.goarch}")
    if one.exe != other.exe or (one.main_module or "") != (other.main_module or ""):
        yield Note("other-program", f"they are of different programs: {one.exe} and {other.exe}")
    elif one.build_id and other.build_id and one.build_id != other.build_id:
        yield Note("other-build", f"they are of different builds of {one.exe}, so that call sites may have moved")
    if (one.go_version or "") != (other.go_version or ""):
        said = one.go_version or "no Go release", other.go_version or "no Go release"
        yield Note("other-release", f"they are of different Go releases: {said[0]} and {said[1]}")
    if (one.pid, one.start_time) != (other.pid, other.start_time):
        told = " and ".join(
            f"pid {each.pid}, started {each.start_time or 'nobody knows when'}" for each in (one, other)
        )
        yield Note("other-process", f"they are of different processes, whose arenas differ: {told}")


def _of_when(before: Report, after: Report, seconds: float | None) -> Iterator[Note]:
    if seconds is None:
        yield Note("no-time", "the moment of one of them is not known")
    elif seconds < 0:
        yield Note(
            "reversed", f"the second report is the older one, by {-seconds:.1f} s: what it has more was lost since"
        )
    cycles = stat(before, "NumGC"), stat(after, "NumGC")
    if same_process(before, after) and None not in cycles and cycles[0] == cycles[1]:
        yield Note(
            "no-collection",
            "no collection ended between them: what was allocated since the last one may be alive or garbage",
        )


def _of_moments(before: Report, after: Report) -> Iterator[Note]:
    for which, report in zip(_ORDINALS, (before, after), strict=True):
        if report.between_looks is not None:
            text = f"the {which} is of a moment between two looks: who holds what is not known of it"
            yield Note("between-looks", text)
        if report.ending is not None and report.resident is None:
            yield Note("ended", f"the process of the {which} ended before its memory could be looked at")


def _missing(before: Report, after: Report) -> Iterator[Note]:
    for name, what in _SECTIONS.items():
        has = getattr(before, name) is not None, getattr(after, name) is not None
        if has[0] != has[1]:
            lacking = after if has[0] else before
            which = _ORDINALS[1 if has[0] else 0]
            why = next((limit.why for limit in lacking.limits if limit.kind == "gap" and name in limit.what), "")
            yield Note("missing", f"only one has {what}: not the {which}" + (f", for {why}" if why else ""))
    if before.holders is None and after.holders is None:
        yield Note(
            "no-holders",
            "neither tells who allocated the heap and who created the goroutines: take both with --holders",
        )


def _unfit(before: Report, after: Report) -> Iterator[Note]:
    for which, report in zip(_ORDINALS, (before, after), strict=True):
        fit = report.consistency
        if fit is not None and not fit.exact:
            text = f"the {which} was read while the heap moved: its parts may miss each other by {fit.skew_bytes} bytes"
            yield Note("inexact", text)
        gaps = [limit.what for limit in report.limits if limit.id == "not-understood"]
        if gaps:
            yield Note("not-understood", f"of the {which} this gomem does not understand: {', '.join(gaps[:8])}")
