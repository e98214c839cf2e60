"""What a report could not see."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

LimitKind = Literal["gap", "note"]


class Limit(Struct, frozen=True):
    """Something this report could not see: what, why, and what would fix it.

    `id` names its kind for programs, in kebab-case, and stays what it is when the words change. A "note" is no gap: all
    is there that was meant to be, and it tells what follows for the figures.
    """

    id: Annotated[str, Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
    what: str
    why: str
    fix: str
    kind: LimitKind = "gap"
