"""From roles to uprobes: which arguments a cookie has room for, and which the program has to look for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gomem.bpf.probes.placing import place
from gomem.bpf.probes.uprobes import cookie
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.roles import Argument, Probe, resolve_roles
from gomem.tracer.layout.tables import table_for
from tests.support.builds import build

RELEASE = "1.25.5"
MORE_ARGUMENTS = 4 << 24  # bpf/programs/programs.c


@pytest.fixture(scope="module")
def path() -> Path:
    return build("tiny", RELEASE)


@pytest.fixture(scope="module")
def layout() -> Layout:
    table = table_for(f"go{RELEASE}", "amd64")
    assert table is not None
    return table


def placed(path: Path, layout: Layout | None, *more: Probe) -> dict[EventKind, UprobeSpec]:
    exe = Executable.open(path)
    functions = FunctionTable.find(exe)
    probes = resolve_roles(f"go{RELEASE}", "amd64", lambda name: bool(functions.lookup(name)))
    found = {spec.kind: spec for spec in place(exe, functions, more or probes, layout=layout)}
    exe.close()
    return found


def test_what_fits_a_cookie_is_in_it(path: Path, layout: Layout) -> None:
    grow = placed(path, layout)[EventKind.GROW]
    assert (grow.args, grow.operands) == (("0", "rbx*8192", "rbx"), ())
    assert not cookie(grow, 0) & MORE_ARGUMENTS


def test_fields_of_structs_are_where_the_layout_has_them(path: Path, layout: Layout) -> None:
    start = placed(path, layout)[EventKind.GC_START]
    at = [layout.offset("gcControllerState", name) for name in ("heapLive", "heapMarked", "lastHeapGoal")]
    assert start.operands[:3] == tuple(f"[rax+{offset}]" for offset in at)
    assert cookie(start, 0) & MORE_ARGUMENTS


def test_probes_of_spans_have_all_their_arguments_in_one_place(path: Path, layout: Layout) -> None:
    specs = placed(path, layout)
    assert specs[EventKind.SPAN_ALLOC].operands == ("rsi", "r8*8192", "u8 rdi", "u8 rcx", "0", "0")
    assert specs[EventKind.SPAN_FREE].operands[3:] == ("u8 rcx", "0", "0")
    assert specs[EventKind.SPAN_FREE].args == ()


def test_without_a_layout_a_rare_role_tells_less_and_a_span_nothing(path: Path) -> None:
    specs = placed(path, None)
    assert specs[EventKind.GC_START].operands == ()
    assert EventKind.SPAN_FREE not in specs
    assert EventKind.SPAN_ALLOC in specs


def test_a_layout_without_the_field_is_as_none(path: Path, layout: Layout) -> None:
    odd = Probe(EventKind.SPAN_FREE, "runtime.(*mheap).freeSpanLocked", (Argument(0, "bx", field="mspan.nothing"),))
    assert placed(path, layout, odd) == {}
