"""Which line of a program a stack is counted for."""

from __future__ import annotations

import pytest

from gomem.tracer.binary.symbols import Frame
from gomem.tracer.profile.call_sites import CallSite, CallSites
from gomem.tracer.profile.stacks import Symbols
from gomem.tracer.report.profile import Line

BIAS = 0x10000
GARBAGE = 0xDEAD_BEEF
# By the link-time address of a call: functions from the innermost inlined one on; a wrapper has a star.
CODE = {
    100: ["runtime.newobject"],
    110: ["runtime.growslice"],
    120: ["internal/runtime/maps.newTable"],
    130: ["runtime.malg"],
    140: ["runtime.newproc1"],
    150: ["runtime.goexit"],
    160: ["runtime.cgocallback"],
    200: ["main.work"],
    210: ["main.inner", "main.outer", "main.work"],
    220: ["runtime.add", "main.work"],
    230: ["*main.(*T).Made"],
    240: ["runtime/debug.Stack"],
    250: ["reflect.unsafe_New"],
    260: ["reflect.New"],
}
FILES = {"reflect.unsafe_New": "/go/src/runtime/malloc.go", "runtime.newobject": "/go/src/runtime/malloc.go"}


class Table:
    """What a Symbolizer tells, of a program that was never built."""

    logical_stacks = True

    def frames(self, address: int) -> tuple[Frame, ...]:
        names = CODE.get(address, [])
        lines = [Line(name.strip("*"), FILES.get(name, "/src/f.go"), address) for name in names]
        return tuple(
            Frame(address, line, 0, at + 1 < len(names), name.startswith("*"))
            for at, (name, line) in enumerate(zip(names, lines, strict=True))
        )


def site(*calls: int) -> CallSite:
    sites = CallSites(Symbols(Table(), BIAS), 100 + BIAS)  # type: ignore[arg-type]
    return sites.site(sites.number([call + 1 + BIAS for call in calls]))


@pytest.mark.parametrize(
    ("calls", "function"),
    [
        ((100, 200), "main.work"),
        ((110, 200, 210), "main.work"),
        ((120, 210), "main.inner"),
        ((100, 220), "main.work"),  # what is inlined of the runtime is the runtime's
        ((100, 230, 200), "main.work"),  # the compiler's own code stands nowhere in the source
        ((100, 240), "runtime/debug.Stack"),
        ((250, 260, 200), "reflect.New"),  # which is in package runtime under reflect's name
        ((130, 140, 150), "runtime.newproc1"),
        ((130, 160, GARBAGE), "runtime.cgocallback"),
        ((200, GARBAGE), "main.work"),
    ],
)
def test_a_stack_is_counted_for_the_first_function_that_is_not_the_runtimes(
    calls: tuple[int, ...], function: str
) -> None:
    assert site(*calls).function == function


def test_the_line_is_that_of_the_call() -> None:
    assert site(100, 210) == CallSite("main.inner", "/src/f.go", 210, 0)


@pytest.mark.parametrize("calls", [(GARBAGE,), (100, GARBAGE), (GARBAGE, 200)])
def test_code_of_which_nothing_is_known_is_told_by_its_address(calls: tuple[int, ...]) -> None:
    assert site(*calls) == CallSite(None, address=GARBAGE + BIAS)


def test_a_site_has_one_number_and_stacks_without_symbols_have_theirs() -> None:
    sites = CallSites(Symbols(Table(), BIAS))  # type: ignore[arg-type]
    first, second = ([call + 1 + BIAS for call in stack] for stack in ((100, 200), (110, 200, 210)))
    assert sites.number(first) == sites.number(second) == 0
    assert CallSites(None).number(first) == 0
