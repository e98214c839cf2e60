"""Limits that say which events of a role are not seen."""

from __future__ import annotations

from gomem.tracer.events.record import EventKind
from gomem.tracer.report import Limit


def some_unseen(kind: EventKind, why: str, fix: str = "") -> Limit:
    """Return the limit for a role some of whose events are not seen, or are not seen all the time."""
    return Limit("role-partly-unseen", f"all events of role {kind.name.lower()}", why, fix)


def refused(role: str, symbol: str, reason: str, where: str = "") -> Limit:
    """Return the limit for a probe that the kernel refused; `where`: the plugin that it was for."""
    what = f"events of role {role}{f' in {where}' if where else ''}"
    return Limit("role-refused", what, f"{symbol}: {reason}", "")
