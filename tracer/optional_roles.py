"""What can be watched beside the default: roles that cost something, and so only come when asked for."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from tracer.report import Limit


class OptionalRole(StrEnum):
    """A role of `--with`; the value is its name on the command line."""

    PAGE_FAULTS = "page-faults"
    RSS = "rss"
    SPANS = "spans"


RESIDENCY_ROLES = frozenset((OptionalRole.PAGE_FAULTS, OptionalRole.RSS))

DESCRIPTIONS = {
    OptionalRole.PAGE_FAULTS: "which kinds of mappings are faulted in, counted in the kernel",
    OptionalRole.RSS: "the kernel's own count of resident bytes at each change, with its peak",
    OptionalRole.SPANS: "spans that come and go, by class and GC cycle, within --budget",
}


def not_seen(roles: Collection[OptionalRole], why: str) -> list[Limit]:
    """Return the limits for roles that were asked for where nothing can watch for them."""
    return [Limit(DESCRIPTIONS[role], why, "use --backend bpf") for role in OptionalRole if role in roles]
