"""The stacks of a profile as one tree of calls, which is as large as a page can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gomem.exporters.profile.frames import Frame, frames_by_location, stack_of
from gomem.exporters.profile.sample_type import is_base
from gomem.exporters.units import clean
from gomem.tracer.report.profile import Profile, Sample

MOST = 50_000  # frames: a browser draws the page in a second or two
DEEPEST = 500  # calls: the library's search calls itself for each
LONGEST_NAME = 500
NOT_SHOWN = "(calls that are not shown)"
ROOT = "all"


@dataclass(slots=True)
class FlameTree:
    """Frames by index, each after its caller; frame 0 is all of the profile.

    `own` has the values of the stacks that end in a frame: one for each sample type, and of a difference before that
    those of the base. `cut` is how many samples end in a frame that stands for calls that are not shown.
    """

    names: list[str] = field(default_factory=lambda: [ROOT])
    name: list[int] = field(default_factory=lambda: [0])
    caller: list[int] = field(default_factory=lambda: [-1])
    inlined: list[int] = field(default_factory=list)  # frames
    own: dict[int, list[int]] = field(default_factory=dict)
    cut: int = 0


def flame_tree(profile: Profile, *, difference: bool, most: int = MOST, deepest: int = DEEPEST) -> FlameTree:
    """Return the tree. Where it would be too large, the calls of the least samples are not shown one by one."""
    grown = _Growing(most, deepest)
    frames = frames_by_location(profile)
    types = len(profile.sample_types)
    for sample in _the_largest_first(profile):
        frame = grown.frame(stack_of(sample.stack, frames))
        values = grown.tree.own.setdefault(frame, [0] * (2 * types if difference else types))
        base = is_base(sample)
        first = types if difference and not base else 0
        for at, value in enumerate(sample.values):
            values[first + at] += -value if base else value
    return grown.tree


def _the_largest_first(profile: Profile) -> Iterator[Sample]:
    """Return the samples by their largest share of any value."""
    sums = [0] * len(profile.sample_types)
    for sample in profile.samples:
        sums = [whole + abs(value) for whole, value in zip(sums, sample.values, strict=True)]
    shares = [
        max(abs(value) / (whole or 1) for value, whole in zip(sample.values, sums, strict=True))
        for sample in profile.samples
    ]
    order = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)
    return map(profile.samples.__getitem__, order)


class _Growing:
    """A tree that grows by stacks, up to its limits."""

    def __init__(self, most: int, deepest: int) -> None:
        self.tree = FlameTree()
        self._most = most
        self._deepest = deepest
        self._frames: dict[tuple[int, int, bool], int] = {}
        self._names: dict[str, int] = {}

    def frame(self, stack: Sequence[Frame]) -> int:
        """Return the frame that a stack ends in."""
        at = 0
        for depth, call in enumerate(stack):
            known = self._known(at, call)
            if known is None and (depth >= self._deepest or len(self.tree.name) >= self._most):
                self.tree.cut += 1
                return self._callee(at, Frame(NOT_SHOWN))
            at = self._callee(at, call) if known is None else known
        return at

    def _known(self, caller: int, call: Frame) -> int | None:
        name = self._names.get(call.name)
        return None if name is None else self._frames.get((caller, name, call.inlined))

    def _callee(self, caller: int, call: Frame) -> int:
        tree = self.tree
        name = self._names.setdefault(call.name, len(tree.names))
        if name == len(tree.names):
            tree.names.append(clean(call.name, LONGEST_NAME))
        frame = self._frames.setdefault((caller, name, call.inlined), len(tree.name))
        if frame == len(tree.name):
            tree.name.append(name)
            tree.caller.append(caller)
            if call.inlined:
                tree.inlined.append(frame)
        return frame
