"""Collapsed stacks: one line for each stack, as Brendan Gregg's flamegraph.pl and many others read them.

A line is `main;work;make 300`; of a difference `main;work;make 200 300`, as his difffolded.pl writes it: before, after.
"""

from __future__ import annotations

from gomem.exporters.profile.frames import Frame, frames_by_location, stack_of
from gomem.exporters.profile.sample_type import is_base, is_difference
from gomem.exporters.units import clean
from gomem.tracer.errors import GomemError
from gomem.tracer.report.profile import Profile

_MOST = 256 << 20  # characters
_LONGEST_NAME = 400


def folded(profile: Profile, index: int) -> str:
    """Return the stacks by one of the profile's values, sorted. Raises GomemError where they are too long to hold."""
    both = is_difference(profile)
    return "".join(
        f"{stack} {before} {after}\n" if both else f"{stack} {after}\n"
        for stack, (before, after) in sorted(_sums(profile, index).items())
    )


def _sums(profile: Profile, index: int) -> dict[str, tuple[int, int]]:
    """Return the value before and after of each stack that has one."""
    frames = [tuple(map(_fit, some)) for some in frames_by_location(profile)]
    sums: dict[str, tuple[int, int]] = {}
    left = _MOST
    for sample in profile.samples:
        value = sample.values[index]
        stack = ";".join(frame.name for frame in stack_of(sample.stack, frames))
        if value == 0 or not stack:
            continue
        left -= len(stack) if stack not in sums else 0
        if left < 0:
            raise GomemError(f"the stacks have more than {_MOST >> 20} MB of names", "write them in pprof's format")
        before, after = sums.get(stack, (0, 0))
        sums[stack] = (before - value, after) if is_base(sample) else (before, after + value)
    return sums


def _fit(frame: Frame) -> Frame:
    """Return a frame whose name ends neither a stack nor a call of it."""
    return Frame(clean(frame.name, _LONGEST_NAME).replace(";", "\\x3b"), frame.inlined)
