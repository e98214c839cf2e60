"""Publishing views of a fleet: soon when something has changed, now and then when nothing has."""

from __future__ import annotations

import time
from collections.abc import Callable

from gomem.tracer.fleet.cgroups import Cgroups
from gomem.tracer.fleet.roster import Roster
from gomem.tracer.fleet.view import FleetView, Health
from gomem.tracer.proc.clocks import TimeOfDay

_GAP = 1.0  # seconds between two views, when something has changed
_EVERY = 5.0  # seconds, when nothing has


class Publisher:
    """Makes the views. `publish` gets each of them; `health` tells how we are doing."""

    def __init__(
        self, roster: Roster, cgroups: Cgroups, health: Callable[[], Health], publish: Callable[[FleetView], None]
    ) -> None:
        self._roster = roster
        self._cgroups = cgroups
        self._health = health
        self._publish = publish
        self._today = TimeOfDay()
        self._published = float("-inf")  # time.monotonic()

    def publish(self) -> None:
        """Publish a view, if it is time to."""
        roster, now = self._roster, time.monotonic()
        if now - self._published < (_GAP if roster.changed else _EVERY) and not roster.urgent:
            return
        self._published = now
        roster.changed = roster.urgent = False
        self._today.look()
        self._publish(FleetView(roster.views(self._today), self._health(), time.time(), self._cgroups.views(), now))
