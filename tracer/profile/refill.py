"""What a process allocates now, by call stack, as the refills of its mcaches tell: of any Go program, from outside.

A sample is a call stack and a size. Its values are estimates with standard errors, which are labels of the sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import dropwhile

import numpy as np

from gomem.tracer.events.refills import RefillSum
from gomem.tracer.model.refills import Site
from gomem.tracer.profile.stacks import RUNTIME, Locations, Stacks, Symbols, hide_runtime, logical
from gomem.tracer.report import Limit
from gomem.tracer.report.profile import Label, Line, Location, Profile, Sample, ValueType, error_label

OBJECTS, SPACE = ValueType("alloc_objects", "count"), ValueType("alloc_space", "bytes")
_PERIOD = ValueType("refills", "count")
_AT_ONCE = 1 << 16  # addresses
# Above objects whose calls are not known stands why.
_UNSEEN, _UNTOLD = "(no refill was seen)", "(no room for the stack)"


def refill_profile(
    sites: Sequence[Site],
    symbols: Symbols,
    locations: Locations,
    *,
    time_ns: int,
    duration_ns: int,
    comments: tuple[str, ...],
    limits: Sequence[Limit],
) -> Profile:
    """Return the profile of what stacks have allocated in `duration_ns`; `time_ns`: when that began, since 1970."""
    stacks = _by_stack(sites, symbols, locations)
    found = locations.all()
    names = [name for name in (_UNSEEN, _UNTOLD) if any(_name(site) == name for site in sites)]
    at = {name: len(found) + number for number, name in enumerate(names)}
    samples = []
    for site in sorted(sites, key=lambda site: (-site.bytes, site.stack or (), site.size)):
        name = _name(site)
        samples.append(_sample(site, stacks[site.stack or ()] if name is None else (at[name],)))
    return Profile(
        sample_types=(OBJECTS, SPACE),
        samples=tuple(samples),
        locations=(*found, *(Location(0, (Line(name),)) for name in names)),
        mappings=locations.mappings(),
        default_type=SPACE.type,
        period_type=_PERIOD,
        period=1,
        time_ns=time_ns,
        duration_ns=duration_ns,
        comments=comments,
        limits=tuple(limits),
    )


class Callers:
    """Joins what was seen of stacks that differ in functions of the runtime only: it has several ways to allocate."""

    def __init__(self, symbols: Symbols) -> None:
        """`symbols` of the program."""
        self._symbols = symbols
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def joined(self, sums: Iterable[RefillSum]) -> list[RefillSum]:
        """Return the sums by the stacks from the first function on that is not the runtime's; whole where all are."""
        found: dict[tuple[tuple[int, ...], int], RefillSum] = {}
        for one in sums:
            stack = self._from_caller(one.stack)
            key = stack, one.span_class
            found[key] = found[key].plus(one) if key in found else replace(one, stack=stack)
        return list(found.values())

    def _from_caller(self, stack: tuple[int, ...]) -> tuple[int, ...]:
        known = self._known.get(stack)
        if known is None:
            rest = tuple(dropwhile(self._is_runtime, stack))
            known = self._known[stack] = rest or stack
        return known

    def _is_runtime(self, pc: int) -> bool:
        """Tell whether all functions at a call are the runtime's, those that others are inlined in, too."""
        frames = self._symbols.frames(pc - 1)
        return bool(frames) and frames[-1].line.function.startswith(RUNTIME)


def _name(site: Site) -> str | None:
    if site.stack:
        return None
    return _UNSEEN if site.stack is None else _UNTOLD


def _by_stack(sites: Sequence[Site], symbols: Symbols, locations: Locations) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Return the locations of each stack of return addresses."""
    different = list(dict.fromkeys(site.stack for site in sites if site.stack))
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for some in _pieces(different):
        first = np.cumsum([0, *map(len, some)]).astype(np.int64)
        pcs = np.array([pc for stack in some for pc in stack], np.uint64)
        told = hide_runtime(logical(Stacks(first, pcs), symbols), symbols)
        found |= dict(zip(some, locations.of(told), strict=True))
    return found


def _pieces(stacks: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Yield them in turn, as many at once as have not many more addresses than _AT_ONCE."""
    piece: list[tuple[int, ...]] = []
    held = 0
    for stack in stacks:
        piece.append(stack)
        held += len(stack)
        if held >= _AT_ONCE:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


def _sample(site: Site, stack: tuple[int, ...]) -> Sample:
    labels: list[Label] = [("bytes", site.size)] if site.size else []
    if site.objects_error or site.bytes_error:
        labels.append((error_label(OBJECTS.type), site.objects_error))
        labels.append((error_label(SPACE.type), site.bytes_error, SPACE.unit))
    return Sample(stack, (site.objects, site.bytes), tuple(labels))
