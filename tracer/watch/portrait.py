"""A process as it is now, for a page: its report, the map of its memory, and its goroutines by who created them."""

from __future__ import annotations

from msgspec.structs import replace

from gomem.tracer.errors import GomemError
from gomem.tracer.profile.beside import Beside
from gomem.tracer.profile.goroutine_looks import GoroutineLooks
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.report import Report
from gomem.tracer.report.goroutines import GoroutineReport
from gomem.tracer.report.memory_map import Picture
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.album import Album
from gomem.tracer.watch.snapshot_report import snapshot_target


def portrait(inspector: Inspector, *, freeze: bool = False, page: bool = True) -> tuple[Report, Picture]:
    """Return the report of one look, and what a page shows beside it. Raises as `Inspector.look`.

    `page`: read what only a page shows, too: which slots of spans hold objects, and the heap profile.
    """
    album, beside = Album(most=1), Beside(inspector)
    report = snapshot_target(inspector, freeze=freeze, beside=beside.read, on_look=album.see)
    if page:
        album.read_slots(inspector)
    album.goroutines = goroutines_by_creator(inspector)
    picture = album.picture(0, beside)
    return report, with_profile(picture, inspector) if page else picture


def with_profile(picture: Picture, inspector: Inspector) -> Picture:
    """Return the picture with the heap profile of the process, where it keeps one that is not empty."""
    try:
        profile = heap_profile(inspector)
    except GomemError:
        return picture
    samples = list(profile.samples)
    return replace(picture, profile=replace(profile, samples=samples)) if samples else picture


def goroutines_by_creator(inspector: Inspector) -> GoroutineReport | None:
    """Return the goroutines of a process by who created them; None where they cannot be told."""
    if not inspector.program.is_go:
        return None
    try:
        looks = GoroutineLooks(inspector, "creator")
        looks.look()
        return looks.report()
    except GomemError:
        return None
