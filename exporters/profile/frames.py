"""The names of a stack's calls. Source: NodeInfo.NameComponents in pprof's internal/graph/graph.go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from gomem.tracer.report.profile import Location, Profile

UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True)
class Frame:
    """A call: the name of its function, and whether it is inlined into its caller."""

    name: str
    inlined: bool = False


def frames_by_location(profile: Profile) -> list[tuple[Frame, ...]]:
    """Return the frames of each location, the innermost first. A location without a function has the file's name."""
    return [_frames(location, profile) for location in profile.locations]


def stack_of(locations: Sequence[int], frames: Sequence[tuple[Frame, ...]]) -> list[Frame]:
    """Return the frames of a sample's stack, the outermost first."""
    inwards = [frame for location in locations for frame in frames[location]]
    inwards.reverse()
    return inwards


def _frames(location: Location, profile: Profile) -> tuple[Frame, ...]:
    elsewhere = _file_name(location, profile)
    if not location.lines:
        return (Frame(elsewhere),)
    last = len(location.lines) - 1
    return tuple(Frame(line.function or elsewhere, at < last) for at, line in enumerate(location.lines))


def _file_name(location: Location, profile: Profile) -> str:
    path = "" if location.mapping is None else profile.mappings[location.mapping].path
    return f"[{os.path.basename(path.rstrip('/')) or path}]" if path else UNKNOWN
