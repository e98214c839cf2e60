"""Making the files of a black box: pure, from what was kept of the process and what its end was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from gomem.exporters.black_box.contents import (
    ENDING,
    GOROUTINES,
    HEAP,
    REPORT,
    TIMELINE,
    HowItEnded,
    Part,
    Reason,
    as_json,
)
from gomem.exporters.black_box.followed import Followed
from gomem.exporters.json.report import render_json
from gomem.exporters.prometheus.identity import who
from gomem.exporters.text.ending import way_of
from gomem.tracer.report import ProcessEnding
from gomem.tracer.report.findings.rules import find
from gomem.tracer.watch.moments import rfc3339


@dataclass(frozen=True, slots=True)
class Noticed:
    """When an end was noticed: CLOCK_MONOTONIC and the time of day, ns."""

    moment: int = field(default_factory=time.monotonic_ns)
    wall: int = field(default_factory=time.time_ns)

    @property
    def stamp(self) -> str:
        """The time of day as names of black boxes have it."""
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.wall / 1e9))


def files_of(one: Followed, ending: ProcessEnding, kept_for: Reason, noticed: Noticed) -> dict[str, bytes]:
    """Return the files of the black box of a process that has ended so, by name."""
    report = replace(one.report, ending=ending)
    report = replace(report, findings=find(report))
    told = HowItEnded(
        kept_for=kept_for,
        said=way_of(ending),
        noticed_at=rfc3339(noticed.wall),
        ending=ending,
        process=who(one.target),
        near=round(one.near, 4) if one.near else None,
        parts=list(_parts(one, noticed)),
    )
    return {
        **{file: kept.body for file, kept in one.profiles.items()},
        REPORT: render_json(report).encode(),
        TIMELINE: as_json(one.looks.until(noticed.moment, noticed.wall)),
        ENDING: as_json(told),
    }


def _parts(one: Followed, noticed: Noticed) -> Iterator[Part]:
    looked = None if one.target.looked is None else round(one.target.looked * 1e9)
    for file in (REPORT, TIMELINE):
        yield _part(file, looked, noticed)
    for file in (HEAP, GOROUTINES):
        if (kept := one.profiles.get(file)) is not None:
            yield _part(file, round(kept.taken * 1e9), noticed)
        else:
            yield Part(file, None, None, one.why_none.get(file, "it was not taken"))


def _part(file: str, moment: int | None, noticed: Noticed) -> Part:
    if moment is None:
        return Part(file, None, None)
    age = max(noticed.moment - moment, 0)
    return Part(file, rfc3339(noticed.wall - age), round(age / 1e9, 3))
