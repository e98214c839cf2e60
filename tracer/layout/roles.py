"""Which functions of a Go runtime to probe for each role, and where their arguments are at the entry.

The facts are data: roles.json. Why its choices are what they are:

- Of `sysX` and `sysXOS` one is inlined in most releases, wholly or, worse, in some callers only: Go 1.19 still has
  sysUsed as a function, and two of its four callers do not call it. A `...OS` twin that exists as a function
  sees every call of its outer function as well as the direct ones, such as the mapping of the heap index.
- sysFreeOS is inlined everywhere (Go 1.19 to 1.27), and not only into sysFree: munmap of package runtime sees it all.
- mallocgc dispatches to size-specialised variants where the toolchain has them (Go 1.27; Go 1.26 with
  GOEXPERIMENT=sizespecializedmalloc), and compiled code calls these directly. An allocation passes exactly one of
  the variants' entries and the general leaves, so those are probed and mallocgc is not. The variants' slow paths
  are left out, because only the variants call them.
- startCycle is called once for each GC cycle, by gcStart; gcMarkTermination once, by gcMarkDone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NotRequired, TypedDict, cast

from tracer.errors import LayoutError
from tracer.events import Kind
from tracer.layout.tables import minor_of

_MAX_SIZE_CLASS = 67
_WORD = 8


class _ShiftedWord(TypedDict):
    word: int
    shift: int


class _Alternative(TypedDict):
    symbols: list[str]
    arguments: list[int | _ShiftedWord | None]
    needs: NotRequired[str]
    misses: NotRequired[str]


class _Abi(TypedDict):
    registers_since: list[int]
    registers: list[str]
    stack_base: int


class _Roles(TypedDict):
    abi: dict[str, _Abi]
    roles: dict[str, list[_Alternative]]


@dataclass(frozen=True, slots=True)
class Argument:
    """Where one canonical argument of a role lies while the probed function has not yet moved its stack pointer.

    Either in `register` (as pt_regs names it: "ax", "bx", "r8"; "x0" on arm64), or, with register "", in the word at
    `stack_offset` bytes from the stack pointer. The event's args[index] is that value << shift.
    """

    index: int
    register: str
    stack_offset: int = 0
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """A function to probe for a role; `symbol` is its full name ("runtime.sysMapOS"), `misses` what it does not see."""

    kind: Kind
    symbol: str
    arguments: tuple[Argument, ...]
    misses: str = ""

    @property
    def role(self) -> str:
        """Return the role's name as reports spell it: "reserve", "gc_start", ..."""
        return self.kind.name.lower()


def resolve_roles(go_version: str, goarch: str, has_function: Callable[[str], bool]) -> list[Probe]:
    """Return the probes that see each role of tracer.events in this binary; a role without a function has none.

    `has_function` says whether the binary has an out-of-line function of that full name. MALLOCGC is among the
    answers; whether it is placed is the caller's decision. Raises LayoutError for an unknown architecture or version.
    """
    locate = _argument_locator(go_version, goarch)
    probes = []
    for role, alternatives in _data()["roles"].items():
        for alternative in alternatives:
            present = [s for s in _expand(alternative["symbols"]) if has_function(f"runtime.{s}")]
            if present and has_function(f"runtime.{alternative.get('needs', present[0])}"):
                arguments = tuple(locate(i, a) for i, a in enumerate(alternative["arguments"]) if a is not None)
                misses = alternative.get("misses", "")
                probes += [Probe(Kind[role], f"runtime.{s}", arguments, misses) for s in present]
                break
    return probes


def _argument_locator(go_version: str, goarch: str) -> Callable[[int, int | _ShiftedWord], Argument]:
    abi = _data()["abi"].get(goarch)
    minor = minor_of(go_version)
    fix = "trace without runtime probes: system calls and snapshots still work"
    if abi is None:
        raise LayoutError(f"no calling convention known for {goarch}", fix)
    if minor is None:
        raise LayoutError(f"{go_version!r} names no Go release", fix)
    # Go 1.17 and 1.18 can be built with GOEXPERIMENT=noregabi, which the version then says after "X:".
    in_registers = minor >= tuple(abi["registers_since"]) and not re.search(r"\bX:\S*noregabi", go_version)

    def locate(index: int, argument: int | _ShiftedWord) -> Argument:
        word, shift = (argument, 0) if isinstance(argument, int) else (argument["word"], argument["shift"])
        if in_registers:
            return Argument(index, abi["registers"][word], 0, shift)
        return Argument(index, "", abi["stack_base"] + _WORD * word, shift)

    return locate


def _expand(symbols: list[str]) -> Iterator[str]:
    for symbol in symbols:
        if "#" in symbol:
            yield from (symbol.replace("#", str(number)) for number in range(1, _MAX_SIZE_CLASS + 1))
        else:
            yield symbol


@cache
def _data() -> _Roles:
    return cast(_Roles, json.loads(files("tracer.layout").joinpath("roles.json").read_text(encoding="utf-8")))
