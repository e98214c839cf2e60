"""Which functions are probed for a role, and where their arguments are."""

from __future__ import annotations

import pytest

from gomem.tracer.errors import LayoutError
from gomem.tracer.events.record import ROLE_KINDS, EventKind
from gomem.tracer.layout.roles import Argument, Probe, resolve_roles

BOTH_TWINS = {f"runtime.sys{verb}{os}" for verb in ("Map", "Used", "Unused", "Alloc", "Reserve") for os in ("", "OS")}


def resolve(version: str, *symbols: str, goarch: str = "amd64") -> list[Probe]:
    return resolve_roles(version, goarch, {f"runtime.{symbol}" for symbol in symbols}.__contains__)


def symbols(probes: list[Probe], kind: EventKind) -> list[str]:
    return [probe.symbol.removeprefix("runtime.") for probe in probes if probe.kind is kind]


def test_the_twin_that_talks_to_the_os_is_taken_where_both_are_functions() -> None:
    probes = resolve_roles("go1.27.3", "amd64", BOTH_TWINS.__contains__)
    assert {probe.symbol[-2:] for probe in probes} == {"OS"}
    assert {probe.role for probe in probes} == {"map", "used", "unused", "alloc", "reserve"}


def test_the_outer_function_is_taken_where_its_twin_is_inlined() -> None:
    assert symbols(resolve("go1.21.13", "sysReserve", "sysFault"), EventKind.RESERVE) == ["sysReserve"]
    assert symbols(resolve("go1.21.13", "sysReserve", "sysFault"), EventKind.FAULT) == ["sysFault"]


def test_munmap_sees_more_than_sys_free_does() -> None:
    assert symbols(resolve("go1.23.9", "sysFree", "munmap"), EventKind.FREE) == ["munmap"]
    assert resolve("go1.23.9", "sysFree")[0].misses


def test_a_role_without_a_function_has_no_probe() -> None:
    assert resolve("go1.27.3") == []


def test_mallocgc_alone_is_probed_where_nothing_bypasses_it() -> None:
    present = ["mallocgc", "mallocgcTiny", "mallocgcSmallNoscan", "mallocgcSmallScanNoHeader", "mallocgcLarge"]
    assert symbols(resolve("go1.25.5", *present), EventKind.MALLOCGC) == ["mallocgc"]


def test_specialised_variants_are_probed_with_the_general_leaves_and_without_their_dispatcher() -> None:
    variants = ["mallocgcTinySC2", "mallocgcSmallNoScanSC2", "mallocgcSmallNoScanSC7", "mallocgcSmallScanNoHeaderSC1"]
    leaves = ["mallocgcSmallNoscan", "mallocgcSmallScanNoHeader", "mallocgcSmallScanHeader", "mallocgcLarge"]
    called_by_variants = ["mallocgcTinySlowPath", "mallocgcSmallScanSlowPath", "mallocgcSmallNoScanSlowPath"]
    probes = resolve("go1.27.3", *variants, *leaves, *called_by_variants, "mallocgc")
    assert symbols(probes, EventKind.MALLOCGC) == variants + leaves


def test_register_arguments_since_go_1_17() -> None:
    (reserve,) = resolve("go1.17.13", "sysReserve")
    assert reserve.arguments == (Argument(0, "ax"), Argument(1, "bx"))
    (alloc,) = resolve("go1.27.3", "sysAllocOS")
    assert alloc.arguments == (Argument(1, "ax"),)


def test_stack_arguments_until_go_1_16_and_without_regabi() -> None:
    for version in ("go1.16.8", "go1.17.13 X:noregabi"):
        (reserve,) = resolve(version, "sysReserve")
        assert reserve.arguments == (Argument(0, "", 8), Argument(1, "", 16))


def test_arm64_has_its_own_registers() -> None:
    (reserve,) = resolve("go1.18", "sysReserve", goarch="arm64")
    assert reserve.arguments == (Argument(0, "x0"), Argument(1, "x1"))
    (reserve,) = resolve("go1.17", "sysReserve", goarch="arm64")
    assert reserve.arguments[0].register == ""


def test_grow_gives_bytes_and_pages_of_one_argument() -> None:
    (grow,) = resolve("go1.27.3", "(*mheap).grow")
    assert grow.arguments == (Argument(1, "bx", 0, 13), Argument(2, "bx"))


def test_every_role_of_the_event_contract_can_be_probed() -> None:
    probes = resolve_roles("go1.27.3", "amd64", lambda name: True)
    assert {probe.kind for probe in probes} == set(ROLE_KINDS)


@pytest.mark.parametrize(("version", "goarch"), [("go1.27.3", "riscv64"), ("unknown", "amd64")])
def test_what_has_no_calling_convention_is_refused(version: str, goarch: str) -> None:
    with pytest.raises(LayoutError):
        resolve_roles(version, goarch, lambda name: True)


def test_a_span_is_seen_where_its_address_is_known_or_else_where_it_is_asked_for() -> None:
    (known,) = resolve("go1.20", "(*mheap).initSpan", "(*mheap).allocSpan")
    assert known.symbol == "runtime.(*mheap).initSpan"
    assert known.arguments == (
        Argument(0, "si"), Argument(1, "r8", 0, 13), Argument(2, "di", bytes=1), Argument(3, "cx", bytes=1),
    )  # fmt: skip
    (asked,) = resolve("go1.19", "(*mheap).allocSpan")
    assert asked.arguments == (Argument(1, "bx", 0, 13), Argument(2, "di", bytes=1), Argument(3, "cx", bytes=1))


def test_a_span_that_ends_is_told_by_its_own_struct() -> None:
    (freed,) = resolve("go1.27.3", "(*mheap).freeSpanLocked")
    fields = [argument.field for argument in freed.arguments]
    assert fields == ["mspan.startAddr", "mspan.npages", "mspan.spanclass", ""]
    assert {argument.register for argument in freed.arguments[:3]} == {"bx"}


def test_without_arguments_in_registers_there_are_no_span_events() -> None:
    assert resolve("go1.16.8", "(*mheap).allocSpan", "(*mheap).freeSpanLocked") == []


def test_the_start_of_a_cycle_tells_what_the_pacer_knows() -> None:
    (start,) = resolve("go1.27.3", "(*gcControllerState).startCycle")
    fields = [argument.field.partition(".")[2] for argument in start.arguments]
    assert fields == ["heapLive", "heapMarked", "lastHeapGoal"]
