"""The one shape of everything that `gomem doctor` finds out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from gomem.tracer.errors import GomemError


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


def tried(name: str, act: Callable[[], str]) -> Check:
    """Do something that works here or does not; `act` returns what is to be said if it works."""
    try:
        return Check(name, True, act())
    except GomemError as error:
        return Check(name, False, error.what, error.fix)
    except OSError as error:
        return Check(name, False, ": ".join(filter(None, (error.filename, os.strerror(error.errno or 0)))))
