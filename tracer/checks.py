"""The one shape of everything that `gomem doctor` finds out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that works here or does not.

    `ok` is None where the question does not arise, or the answer only narrows what can be done. `fix` says what
    to do about it, or is "".
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""
