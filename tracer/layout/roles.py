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
- Every span that the heap hands out passes initSpan (Go 1.20 and later), where its address is known, or allocSpan (Go
  1.17 to 1.19), where it is not yet. All that it takes back passes freeSpanLocked, whose mspan still says what it was;
  a chunk of GOEXPERIMENT=arenas alone is reused without it. Stacks pass as spans, the small ones many to a span.
- Every span that an mcache takes to allocate small objects from passes refill, every large object allocLarge (Go 1.16
  and later) or largeAlloc. Neither is inlined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NotRequired, TypedDict, cast

from gomem.tracer.errors import LayoutError
from gomem.tracer.events.record import EventKind
from gomem.tracer.layout.tables import minor_of

_MAX_SIZE_CLASS = 67
_WORD = 8


class _WordOf(TypedDict):
    word: int
    shift: NotRequired[int]
    bytes: NotRequired[int]
    field: NotRequired[str]


class _Alternative(TypedDict):
    symbols: list[str]
    arguments: list[int | _WordOf | None]
    needs: NotRequired[str]
    misses: NotRequired[str]
    registers: NotRequired[bool]


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
    `stack_offset` bytes from the stack pointer. Of that, the low `bytes` are the value; with a `field`
    ("mspan.npages") it is a pointer to that struct, and the value is in the field. The event's args[index] is
    value << shift.
    """

    index: int
    register: str
    stack_offset: int = 0
    shift: int = 0
    bytes: int = 8
    field: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A function to probe for a role; `symbol` is its full name ("runtime.sysMapOS"), `misses` what it does not see."""

    kind: EventKind
    symbol: str
    arguments: tuple[Argument, ...]
    misses: str = ""

    @property
    def role(self) -> str:
        """Return the role's name as reports spell it: "reserve", "gc_start", ..."""
        return self.kind.name.lower()


def resolve_roles(go_version: str, goarch: str, has_function: Callable[[str], bool]) -> list[Probe]:
    """Return the probes that see each role of events in this binary; a role without a function has none.

    `has_function` says whether the binary has an out-of-line function of that full name. Roles that are not rare are
    among the answers, too; whether they are placed is the caller's decision. Raises LayoutError for an unknown
    architecture or version.
    """
    in_registers, locate = _argument_locator(go_version, goarch)
    probes = []
    for role, alternatives in _data()["roles"].items():
        for alternative in alternatives:
            if alternative.get("registers") and not in_registers:
                continue
            present = [s for s in _expand(alternative["symbols"]) if has_function(f"runtime.{s}")]
            if present and has_function(f"runtime.{alternative.get('needs', present[0])}"):
                arguments = tuple(locate(i, a) for i, a in enumerate(alternative["arguments"]) if a is not None)
                misses = alternative.get("misses", "")
                probes += [Probe(EventKind[role], f"runtime.{s}", arguments, misses) for s in present]
                break
    return probes


def _argument_locator(go_version: str, goarch: str) -> tuple[bool, Callable[[int, int | _WordOf], Argument]]:
    """Return whether arguments come in registers, and what finds them."""
    abi = _data()["abi"].get(goarch)
    minor = minor_of(go_version)
    fix = "trace without runtime probes: system calls and snapshots still work"
    if abi is None:
        raise LayoutError(f"no calling convention known for {goarch}", fix)
    if minor is None:
        raise LayoutError(f"{go_version!r} names no Go release", fix)
    # Go 1.17 and 1.18 can be built with GOEXPERIMENT=noregabi, which the version then says after "X:".
    in_registers = minor >= tuple(abi["registers_since"]) and not re.search(r"\bX:\S*noregabi", go_version)

    def locate(index: int, argument: int | _WordOf) -> Argument:
        if isinstance(argument, int):
            argument = {"word": argument}
        word, shift = argument["word"], argument.get("shift", 0)
        size, field = argument.get("bytes", _WORD), argument.get("field", "")
        if in_registers:
            return Argument(index, abi["registers"][word], 0, shift, size, field)
        return Argument(index, "", abi["stack_base"] + _WORD * word, shift, size, field)

    return in_registers, locate


def _expand(symbols: list[str]) -> Iterator[str]:
    for symbol in symbols:
        if "#" in symbol:
            yield from (symbol.replace("#", str(number)) for number in range(1, _MAX_SIZE_CLASS + 1))
        else:
            yield symbol


@cache
def _data() -> _Roles:
    return cast(_Roles, json.loads(files("gomem.tracer.layout").joinpath("roles.json").read_text(encoding="utf-8")))
