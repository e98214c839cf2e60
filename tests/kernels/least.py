"""The smallest sets of rights that are enough, found by taking rights away, and docs/security.md's tables of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

FILE = "rights.json"  # in the results of a machine: a line for each that was found
WORKS = "works"
Set = frozenset[str]
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Need:
    """What one mode of gomem needs on a kernel: capabilities, for user id 0 and what that may read anyway.

    `without`: what gomem said when one of them was missing. `another_user`: what it said with the same capabilities as
    a user other than 0; "" if they were enough.
    """

    mode: str
    capabilities: Sequence[str]
    without: Mapping[str, str]
    another_user: str = ""


@dataclass(frozen=True, slots=True)
class Confined:
    """How one mode does, with the capabilities that it needs and no more, in a surrounding that forbids something.

    `said`: "" if it does all that it did, else what gomem said.
    """

    surrounding: str
    mode: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Rights:
    """All that was found on a kernel."""

    needs: Sequence[Need] = ()
    confined: Sequence[Confined] = ()


class OnKernel(Protocol):
    """What was found on a kernel of this name."""

    @property
    def kernel(self) -> str: ...

    @property
    def rights(self) -> Rights: ...


def smallest(groups: Sequence[Set], lacks: Callable[[Set], str]) -> tuple[Set, dict[str, str]]:
    """Return a set of which nothing may be missing, and what was said when each of it was.

    `lacks`: what is missing with a set, "" if nothing is. The groups are taken away in this order, each as a whole if
    it can be, else in halves; together they are enough.
    """
    has: Set = frozenset().union(*groups)
    said: dict[str, str] = {}
    rest = list(groups)
    while rest:
        group = rest.pop(0)
        why = lacks(has - group)
        if not why:
            has -= group
        elif len(group) == 1:
            said.update({name: why for name in group})
        else:
            names = sorted(group)
            middle = len(names) // 2
            rest[:0] = [frozenset(names[:middle]), frozenset(names[middle:])]
    return has, said


def blocks(found: Sequence[OnKernel]) -> dict[str, str]:
    """Return the generated parts of docs/security.md, by name."""
    return {"rights": "\n".join(_needs(found)), "surroundings": "\n".join(_surroundings(found))}


def replaced(text: str, parts: Mapping[str, str]) -> str:
    """Return a page with its generated parts replaced; raises ValueError if it has not each of them once."""
    for name, part in parts.items():
        begin, end = f"<!-- {name}: written by make test-kernels -->\n", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"there is no single place for {name}")
        before, rest = text.split(begin)
        text = f"{before}{begin}{part}\n{end}{rest.split(end)[1]}"
    return text


def _needs(found: Sequence[OnKernel]) -> Iterator[str]:
    tried = [one for one in found if one.rights.needs]
    by_kernel = {one.kernel: {need.mode: need for need in one.rights.needs} for one in tried}
    yield from _head(["with user id 0", *by_kernel])
    for mode in dict.fromkeys(mode for needs in by_kernel.values() for mode in needs):
        yield _row([mode, *(_capabilities(needs.get(mode)) for needs in by_kernel.values())])
    others = [
        f"- {mode} on {', '.join(kernels)}: {said}"
        for (mode, said), kernels in _grouped(
            ((need.mode, need.another_user), kernel)
            for kernel, needs in by_kernel.items()
            for need in needs.values()
            if need.another_user
        ).items()
    ]
    yield ""
    yield "With another user id the same ambient capabilities are enough" + (
        ", but for:" if others else " for all of it."
    )
    if others:
        yield ""
        yield from others


def _surroundings(found: Sequence[OnKernel]) -> Iterator[str]:
    tried = {one.kernel: one.rights.confined for one in found if one.rights.confined}
    yield from _head(["", *tried])
    rows = dict.fromkeys((one.surrounding, one.mode) for all_of_it in tried.values() for one in all_of_it)
    notes: list[tuple[tuple[str, str, str], str]] = []
    for surrounding, mode in rows:
        cells = []
        for kernel, all_of_it in tried.items():
            said = next((one.said for one in all_of_it if (one.surrounding, one.mode) == (surrounding, mode)), None)
            cells.append("not tried" if said is None else "not all" if said else WORKS)
            if said:
                notes.append(((mode, surrounding, said), kernel))
        yield _row([f"{mode}, {surrounding}", *cells])
    if notes:
        yield ""
        for (mode, surrounding, said), kernels in _grouped(notes).items():
            yield f"- {mode}, {surrounding}, on {', '.join(kernels)}: {said}"


def _grouped(pairs: Iterable[tuple[Key, str]]) -> dict[Key, list[str]]:
    grouped: dict[Key, list[str]] = {}
    for key, kernel in pairs:
        grouped.setdefault(key, []).append(kernel)
    return grouped


def _capabilities(need: Need | None) -> str:
    if need is None:
        return "not tried"
    return " ".join(f"`{re.sub('^CAP_', '', name)}`" for name in need.capabilities) or "none"


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), f"|{' --- |' * len(names)}"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
