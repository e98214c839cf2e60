"""The difference in one sentence, whose figures are rounded such that they still add up. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gomem.tracer.report.difference.contract import Cause, Part

_MOST_PARTS: Final = 5
_SMALL: Final = 0.02  # of all that changed: a part below this share is named with others
_FROM, _MOSTLY, _PARTLY = 0.9, 0.5, 0.2  # which share of a part a cause has
_MOST_NAME: Final = 120
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Steps:
    """How sizes of one sentence are rounded: all to multiples of one step, with so many digits of one unit."""

    unit: str
    bytes: int
    digits: int

    def said(self, steps: int) -> str:
        """Return a number of steps as a size without a sign."""
        return f"{abs(steps) / self.scale:,.{self.digits}f} {self.unit}"

    @property
    def scale(self) -> int:
        """The steps of one unit."""
        return int(10**self.digits)

    def of(self, size: int) -> int:
        """Return the steps that are nearest to a size in bytes."""
        return _rounded(size, self)


def steps_for(largest: int) -> Steps:
    """Return how to round sizes of which the largest has so many bytes: to about three digits."""
    if largest >= 10 * _GIB:
        return Steps("GiB", _GIB, 1)
    if largest >= _GIB:
        return Steps("GiB", _GIB, 2)
    if largest >= 100 * _MIB:
        return Steps("MiB", _MIB, 0)
    if largest >= _MIB:
        return Steps("MiB", _MIB, 1)
    return Steps("KiB", _KIB, 0) if largest >= _KIB else Steps("B", 1, 0)


def _rounded(size: int, steps: Steps) -> int:
    """Return the nearest number of steps, halves away from zero."""
    scaled = abs(size) * steps.scale
    return (1 if size >= 0 else -1) * ((2 * scaled + steps.bytes) // (2 * steps.bytes))


def rounded(sizes: Sequence[int], steps: Steps) -> list[int]:
    """Return sizes in steps; they sum to the steps of their sum, as those that lose most are rounded up instead."""
    scale = steps.scale
    floors = [size * scale // steps.bytes for size in sizes]
    missing = _rounded(sum(sizes), steps) - sum(floors)
    by_loss = sorted(range(len(sizes)), key=lambda at: -(sizes[at] * scale % steps.bytes))
    for at in by_loss[: max(missing, 0)]:
        floors[at] += 1
    return floors


def headline(grown: int, parts: Sequence[Part], goroutines: int | None, *, same_process: bool) -> str:
    """Return the sentence. `goroutines`: how many more there are, None where that is not known."""
    steps = steps_for(max((abs(part.grown) for part in parts), default=0))
    small = _SMALL * sum(abs(part.grown) for part in parts)
    ordered = sorted(parts, key=lambda part: -abs(part.grown))
    named = [part for part in ordered if abs(part.grown) >= small and steps.of(part.grown)][:_MOST_PARTS]
    named += [part for part in parts if part.id == "unexplained" and part not in named and steps.of(part.grown)]
    rest = [part for part in parts if part not in named and part.grown]
    figures = rounded([*(part.grown for part in named), sum(part.grown for part in rest)], steps)
    items = [(figure, _item(figure, part, steps, goroutines)) for figure, part in zip(figures, named, strict=False)]
    if figures[-1]:
        items.append((figures[-1], _sized(figures[-1], "in smaller changes", steps, grows=figures[-1] > 0)))
    return _whole(sum(figures), [(figure, item) for figure, item in items if figure], steps, same_process)


def _whole(total: int, items: Sequence[tuple[int, str]], steps: Steps, same_process: bool) -> str:
    if not total:
        said = "RSS has not changed" if same_process else "RSS is as large in both"
        return f"{said}{': ' + ', '.join(item for _, item in items) if items else ''}."
    verb = (("grew" if total > 0 else "shrank") if same_process else "is larger" if total > 0 else "is smaller") + " by"
    along = [item for figure, item in items if figure * total > 0]
    against = [item for figure, item in items if figure * total < 0]
    return f"RSS {verb} {steps.said(total)}: {', '.join(along)}{'; against that ' if against else ''}" + (
        ", ".join(against) + "."
    )


def _item(figure: int, part: Part, steps: Steps, goroutines: int | None) -> str:
    what = part.what
    if part.id == "stacks" and goroutines and goroutines * figure > 0:
        count = _creator_count(part.causes, goroutines)
        what = f"{what} of {abs(goroutines):,} goroutines{count}"
    else:
        what += "".join(_causes(part))
    if part.id == "unexplained":
        return f"{steps.said(figure)} unexplained"
    if part.id == "absent":  # less RAM, for there is more of it
        return f"{steps.said(figure)} of heap in use that " + ("came into RAM" if figure > 0 else "is not in RAM")
    return _sized(figure, what, steps, grows=figure > 0)


def _sized(figure: int, what: str, steps: Steps, *, grows: bool) -> str:
    of = "of " if what.startswith("the ") else ""
    return f"{steps.said(figure)} {'more' if grows else 'less'} {of}{what}"


def _creator_count(causes: Sequence[Cause], goroutines: int) -> str:
    """Say who created most of the goroutines that there are more, or fewer."""
    first = max(causes, key=lambda one: abs(one.count or 0), default=None)
    if first is None or first.count is None:
        return ""
    share = first.count / goroutines
    if share >= _FROM:
        return f" created by {cut(first.what)}"
    return f", {abs(first.count):,} of them created by {cut(first.what)}" if share >= _PARTLY else ""


def _causes(part: Part) -> Iterator[str]:
    known = [one for one in part.causes if one.grown * part.grown > 0]
    if not known or part.id not in _PREPOSITIONS:
        return
    word = _PREPOSITIONS[part.id]
    share = known[0].grown / part.grown
    whom = f"{word} {cut(known[0].what)}".lstrip()
    if share >= _FROM:
        yield f" {whom}"
    elif share >= _MOSTLY:
        yield f", most of it {whom}"
    elif share >= _PARTLY:
        yield f", the largest part of it {whom}"


_PREPOSITIONS: Final = {
    "live": "from", "since": "from", "in-use": "from", "files": "of", "shared-memory": "of", "c-heap": "of",
    "runtime": "for", "other": "",
}  # fmt: skip


def cut(name: str) -> str:
    """Return a name that somebody else has chosen, short enough for a sentence."""
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 3]}..."
