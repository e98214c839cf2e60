"""What the commands that show a memory map do for it: looks are kept, and what only the live process tells is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from gomem.tracer.errors import NotPermitted, TargetError
from gomem.tracer.profile.beside import Beside
from gomem.tracer.report import Report
from gomem.tracer.report.held import holders_of
from gomem.tracer.report.memory_map import Picture
from gomem.tracer.snapshot.glance import glance
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.album import Album
from gomem.tracer.watch.live import LiveSession
from gomem.tracer.watch.portrait import goroutines_by_creator, with_profile


def with_holders(report: Report, picture: Picture) -> Report:
    """Return the report with who holds what, as it was seen; unchanged where nothing was looked at."""
    if report.resident is None or not picture.holders:
        return report
    return replace(report, holders=holders_of(picture.holders, picture.goroutines))


class Audience:
    """Keeps an album of the program that is watched last; does nothing unless somebody wants to see."""

    def __init__(self, *, wanted: bool) -> None:
        """`wanted`: a map is to be shown."""
        self._wanted = wanted
        self._album: Album | None = None
        self._session: LiveSession | None = None
        self._picture: Picture | None = None

    def begins(self, session: LiveSession) -> None:
        """Take the looks of a session that begins; what was seen of the program before is forgotten."""
        if self._wanted:
            self._album, self._session, self._picture = Album(), session, None
            session.on_look = self._album.see

    def glance(self, inspector: Inspector) -> None:
        """Take the main figures of now between two looks; a watch has a few glances in a second."""
        if self._album is not None:
            try:
                self._album.glance(time.monotonic_ns(), glance(inspector))
            except (TargetError, NotPermitted):  # the watch will say so
                return

    @contextmanager
    def until_its_end(self, inspector: Inspector) -> Iterator[None]:
        """Read at the end of the block what only the live process tells."""
        beside = self._beside(inspector) if self._album is not None else None
        yield
        if self._album is not None and self._session is not None:
            self._album.read_slots(inspector)
            self._album.goroutines = goroutines_by_creator(inspector)
            picture = self._album.picture(self._session.activity.start, beside)
            self._picture = with_profile(picture, inspector)

    def _beside(self, inspector: Inspector) -> Beside | None:
        try:
            beside = Beside(inspector)
        except TargetError:  # it has ended; the watch will say so
            return None
        inspector.beside_last = beside.read
        return beside

    def picture(self) -> Picture:
        """Return what was seen."""
        if self._album is None or self._session is None:
            return Picture()
        return self._picture or self._album.picture(self._session.activity.start)
