"""The profiles that are served of a process, by the name that net/http/pprof has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from gomem.exporters.http.response import Response
from gomem.exporters.pprof.encode import encode
from gomem.tracer.profile.goroutine import goroutine_profile
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.profile.resident import resident_profile
from gomem.tracer.report.profile import Profile
from gomem.tracer.snapshot.inspection import Inspector

PROFILE = "profile"  # the class of their addresses


@dataclass(frozen=True, slots=True)
class Kind:
    """`take` reads such a profile of a process; `what` tells people what it shows."""

    take: Callable[[Inspector], Profile]
    what: str


def allocated(inspector: Inspector) -> Profile:
    """Return the heap profile, shown first by what was allocated since the start, as /debug/pprof/allocs has it."""
    return replace(heap_profile(inspector), default_type="alloc_space")


KINDS: Mapping[str, Kind] = {
    "allocs": Kind(allocated, "who has allocated since the start"),
    "goroutine": Kind(goroutine_profile, "where each goroutine is"),
    "heap": Kind(heap_profile, "who has allocated what is in use"),
    "resident": Kind(resident_profile, "who holds each byte of RSS"),
}


def _answer(name: str, inspector: Inspector) -> Response:
    named = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(200, encode(KINDS[name].take(inspector)), "application/octet-stream", named, PROFILE)


# How the answer to a request for each is made.
PROFILES: Mapping[str, Callable[[Inspector], Response]] = {name: partial(_answer, name) for name in KINDS}
