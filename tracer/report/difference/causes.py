"""Who is behind a part that grew or shrank: functions, creators of goroutines, files, purposes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from gomem.tracer.report import MappedFile, Report
from gomem.tracer.report.difference.contract import Cause
from gomem.tracer.report.difference.tables import (
    Listed,
    changes,
    listed_creators,
    listed_files,
    listed_metadata,
)
from gomem.tracer.report.difference.times import seconds_between

MOST: Final = 5
LEAST_SHARE: Final = 0.1  # of the part: less is no cause of it
_MOSTLY: Final = 0.5
_NO_MORE_THAN: Final = 1.1  # of a part: what was seen to be mapped, and is of this part

# The paths of tracer/profile/in_use.py, of objects with the call that allocated them.
_EARLIER: Final = ("Go heap", "spans in use", "objects in use at the last profiled collection")
_LATER: Final = ("Go heap", "spans in use", "objects allocated since")
_UNKNOWN: Final = ("unknown",)


def causes_of(part: str, grown: int, before: Report, after: Report) -> list[Cause]:
    """Return the largest causes of a part's growth, or of its shrinking, that are known."""
    told = _CAUSES.get(part)
    if told is None or not grown:
        return []
    found = [one for one in told(grown, before, after) if one.grown * grown > 0]
    found = [one for one in found if abs(one.grown) >= LEAST_SHARE * abs(grown)]
    return sorted(found, key=lambda one: (-abs(one.grown), one.what))[:MOST]


def _of_live(grown: int, before: Report, after: Report) -> list[Cause]:
    """Return the functions whose objects grew; those since the last collection only where others do not explain it."""
    earlier = _held(before, after, _EARLIER)
    if abs(sum(one.grown for one in earlier)) >= _MOSTLY * abs(grown):
        return earlier
    return _held(before, after, _EARLIER, _LATER)


def _of_since(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown
    return _held(before, after, _LATER)


def _of_in_use(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown
    return _held(before, after, _EARLIER, _LATER)


def _of_other(grown: int, before: Report, after: Report) -> list[Cause]:
    """Return who has mapped what is new, where that was seen; else how the kernel names the mappings."""
    mapped = _mapped_since(before, after)
    if mapped and sum(one.grown for one in mapped) <= _NO_MORE_THAN * grown:
        return mapped
    held = _held(before, after, _UNKNOWN)
    return [msgspec.structs.replace(one, what=f"in {one.what}") for one in held]


def _mapped_since(before: Report, after: Report) -> list[Cause]:
    """Return the callers of mappings of a report that was watched for from the first report on, or later."""
    mappings, apart = after.user_mappings, seconds_between(before.taken_at, after.taken_at)
    if mappings is None or mappings.by_caller is None or apart is None or apart < after.duration_seconds:
        return []
    sums: dict[str, int] = {}
    for row in mappings.by_caller:
        name = f"mapped by {row.function or 'code without a name'}"
        sums[name] = sums.get(name, 0) + row.sums.resident
    return [Cause(name, size, False) for name, size in sums.items() if size]


def _held(before: Report, after: Report, *places: tuple[str, ...]) -> list[Cause]:
    def listed(report: Report) -> Listed | None:
        if report.holders is None:
            return None
        found = Listed()
        for row in report.holders.rows:
            if any(tuple(row.path[:-1]) == place for place in places):
                found.add(row.path[-1], row.resident)
        return found

    return _changed(listed, before, after, estimated=True)


def _of_stacks(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown
    return _changed(listed_creators, before, after)


def _of_files(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown
    return _changed(lambda report: listed_files(report, _is_file), before, after, counted=False)


def _of_shared(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown
    return _changed(lambda report: listed_files(report, _is_shared), before, after, counted=False)


def _of_image(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown
    return _changed(lambda report: listed_files(report, _is_image), before, after, counted=False)


def _is_image(file: MappedFile) -> bool:
    return file.executable


def _is_shared(file: MappedFile) -> bool:
    return not file.executable and file.backing in ("tmpfs", "memfd", "shared_anonymous", "sysv")


def _is_file(file: MappedFile) -> bool:
    return not _is_image(file) and not _is_shared(file)


def _of_runtime(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown
    return _changed(listed_metadata, before, after, counted=False)


def _of_c_heap(grown: int, before: Report, after: Report) -> list[Cause]:
    del grown

    def listed(report: Report) -> Listed | None:
        heap = report.c_heap
        if heap is None or heap.in_use is None or heap.free_resident is None:
            return None
        return Listed({"what C has in use": heap.in_use + (heap.mapped or 0), "what malloc keeps": heap.free_resident})

    return _changed(listed, before, after, estimated=True)


def _changed(
    of: Callable[[Report], Listed | None],
    before: Report,
    after: Report,
    *,
    estimated: bool = False,
    counted: bool = True,
) -> list[Cause]:
    one, other = of(before), of(after)
    if one is None or other is None:
        return []
    rows: Iterable[Cause] = (
        Cause(row.name, row.grown, estimated, row.count_grown if counted else None)
        for row in changes(one, other)
        if row.grown
    )
    return list(rows)


_CAUSES: Final[dict[str, Callable[[int, Report, Report], list[Cause]]]] = {
    "live": _of_live,
    "since": _of_since,
    "in-use": _of_in_use,
    "stacks": _of_stacks,
    "files": _of_files,
    "shared-memory": _of_shared,
    "image": _of_image,
    "runtime": _of_runtime,
    "c-heap": _of_c_heap,
    "other": _of_other,
}
