"""Looks at the goroutines of a process that is watched, now and then, to tell which go statements' become more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from gomem.tracer.errors import GomemError
from gomem.tracer.report.goroutine_growth import GoroutineGrowth
from gomem.tracer.snapshot.inspection import Inspector

if TYPE_CHECKING:  # one look alone does not wait for what these take to import
    from gomem.tracer.profile.goroutine_looks import GoroutineLooks
    from gomem.tracer.report.goroutines import GoroutineGroup

_LEAST_APART = 0.25  # seconds
_NEXT_AFTER = 8  # of the time until now, a look comes again after one part
_SHARE = 0.05  # of our time at the most, for processes with very many goroutines
_LOOKS_KEPT = 16  # of the time until now, two looks that are kept are one part apart at the least


class GoroutineWatch:
    """Takes looks at goroutines when there are looks at memory, ever less often, and keeps what they tell of growth."""

    def __init__(self, inspector: Inspector) -> None:
        """`inspector` has been looked with by the first `see`."""
        self.growth: GoroutineGrowth | None = None  # from the second look on
        self._inspector = inspector
        self._looks: GoroutineLooks | None = None
        self._first: Sequence[GoroutineGroup] | None = None
        self._due = 0.0  # time.monotonic()
        self._over = False

    def see(self, *, last: bool) -> None:
        """Look if it is time to, and at the end if that is not the first time; does without what cannot be read.

        Who was looked at once only has no growth, and is not kept waiting for it.
        """
        if self._over or (self._first is None if last else time.monotonic() < self._due):
            return
        self._over = last
        try:
            looks = self._looks = self._looks or self._begun()
        except GomemError:
            self._over = True
            return
        began = time.monotonic()
        with suppress(GomemError):  # of its end, or another program, the watch itself will tell
            self._look(looks)
        ended, known = time.monotonic(), looks.moments[-1].seconds if looks.moments else 0.0
        self._due = ended + max(known / _NEXT_AFTER, (ended - began) / _SHARE, _LEAST_APART)

    def _begun(self) -> GoroutineLooks:
        from gomem.tracer.profile.goroutine_looks import GoroutineLooks

        return GoroutineLooks(self._inspector, "creator", in_ram=False)

    def _look(self, looks: GoroutineLooks) -> None:
        from gomem.tracer.profile.goroutine_growth import growth_of, too_near

        looks.look()
        if self._first is None:
            self._first = looks.groups()
            return
        while (at := too_near(looks.moments, _LOOKS_KEPT)) is not None:
            looks.forget(at)
        self.growth = growth_of(self._first, looks.groups(), looks.moments)
