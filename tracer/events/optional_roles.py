"""What can be watched beside the default: roles that cost something, and so only come when asked for."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from gomem.tracer.report import Limit


class OptionalRole(StrEnum):
    """A role that is asked for: by `--with` and its name, allocations by `--allocs`."""

    PAGE_FAULTS = "page-faults"
    RSS = "rss"
    SPANS = "spans"
    ALLOCATIONS = "allocations"


ROLES_OF_WITH = tuple(role for role in OptionalRole if role is not OptionalRole.ALLOCATIONS)
RESIDENCY_ROLES = frozenset((OptionalRole.PAGE_FAULTS, OptionalRole.RSS))

DESCRIPTIONS = {
    OptionalRole.PAGE_FAULTS: "which kinds of mappings are faulted in, counted in the kernel",
    OptionalRole.RSS: "the kernel's own count of resident bytes at each change, with its peak",
    OptionalRole.SPANS: "spans that come and go, by class and GC cycle, within --budget",
    OptionalRole.ALLOCATIONS: "allocations by size class and type, in bursts within --budget",
}


def not_seen(roles: Collection[OptionalRole], why: str) -> list[Limit]:
    """Return the limits for roles that were asked for where BPF, which alone sees them, does not work."""
    fix = "gomem doctor tells what BPF lacks here"
    return [no_role(role, why, fix) for role in OptionalRole if role in roles]


def no_role(role: OptionalRole, why: str, fix: str = "") -> Limit:
    """Return the limit for a role that was asked for, and cannot be had."""
    return Limit(f"no-{role}", DESCRIPTIONS[role], why, fix)


def unseen_role(role: OptionalRole, seconds: float, why: str) -> Limit:
    """Return the limit for a role that was not seen for some of the time."""
    return Limit(f"unseen-{role}", f"{DESCRIPTIONS[role]}: {seconds:.1f} s of it", why, "")
