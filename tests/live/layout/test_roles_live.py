"""The functions chosen for the roles really see every call: checked in each toolchain's machine code and DWARF."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from gomem.tracer.events.record import ROLE_KINDS, EventKind
from gomem.tracer.layout.roles import Probe, resolve_roles


class Code:
    """The functions of a program, and who calls whom directly."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            text, symtab = elf.get_section_by_name(".text"), elf.get_section_by_name(".symtab")
            assert text is not None
            assert isinstance(symtab, SymbolTableSection)
            self.base, self.text = int(text["sh_addr"]), text.data()
            symbols = symtab.iter_symbols()
            starts = {s["st_value"]: s.name for s in symbols if s["st_info"]["type"] == "STT_FUNC"}
            self.inlined = _inlined(elf)
        self.starts = sorted(starts)
        self.names = [starts[address].removeprefix("runtime.").removesuffix(".abi0") for address in self.starts]
        self.callers = self._callers()

    def _callers(self) -> dict[str, set[str]]:
        """Map each function to its direct callers: calls (E8) and tail jumps (E9) that lead to a function's start."""
        code = np.frombuffer(self.text, dtype=np.uint8)
        places = np.flatnonzero((code[:-5] == 0xE8) | (code[:-5] == 0xE9))
        relative = sum(code[places + 1 + i].astype(np.int64) << (8 * i) for i in range(4))
        relative = np.where(relative >= 1 << 31, relative - (1 << 32), relative)
        targets = self.base + places + 5 + relative
        known = np.isin(targets, np.array(self.starts))
        callers: dict[str, set[str]] = defaultdict(set)
        for place, target in zip(places[known].tolist(), targets[known].tolist(), strict=True):
            caller = self.names[bisect_right(self.starts, self.base + place) - 1]
            callee = self.names[bisect_right(self.starts, target) - 1]
            if caller != callee:
                callers[callee].add(caller)
        return callers


def _inlined(elf: ELFFile) -> set[str]:
    """Return the functions of package runtime that are inlined somewhere in it."""
    names, origins = {}, set()
    for unit in elf.get_dwarf_info(relocate_dwarf_sections=False).iter_CUs():
        if unit.get_top_DIE().attributes["DW_AT_name"].value != b"runtime":
            continue
        for die in unit.iter_DIEs():
            if die.tag == "DW_TAG_subprogram" and "DW_AT_name" in die.attributes:
                names[die.offset] = die.attributes["DW_AT_name"].value.decode().removeprefix("runtime.")
            elif die.tag == "DW_TAG_inlined_subroutine":
                origins.add(die.attributes["DW_AT_abstract_origin"].value)
    return {names[origin] for origin in origins if origin in names}


@pytest.fixture(scope="module")
def code(program: Path) -> Code:
    return Code(program)


@pytest.fixture(scope="module")
def probes(any_release: str, code: Code) -> list[Probe]:
    present = {f"runtime.{name}" for name in code.names}
    return resolve_roles(f"go{any_release}", "amd64", present.__contains__)


def chosen(probes: list[Probe], *kinds: EventKind) -> set[str]:
    return {probe.symbol.removeprefix("runtime.") for probe in probes if probe.kind in kinds}


def test_every_role_has_a_function_that_sees_it_all(probes: list[Probe]) -> None:
    assert {probe.kind for probe in probes} == set(ROLE_KINDS)
    assert not [probe for probe in probes if probe.misses]


def test_no_chosen_function_is_inlined_anywhere(code: Code, probes: list[Probe]) -> None:
    assert not chosen(probes, *ROLE_KINDS) & code.inlined
    # The test can fail: the twins that were passed over are inlined.
    assert {"sysUsed", "sysFreeOS"} <= code.inlined


def test_all_of_the_runtimes_mappings_go_through_the_chosen_functions(code: Code, probes: list[Probe]) -> None:
    """Sysargs looks for the page size in a mapping of its own where the kernel gives no auxiliary vector."""
    roles = chosen(
        probes, EventKind.RESERVE, EventKind.MAP, EventKind.USED, EventKind.UNUSED, EventKind.FAULT, EventKind.ALLOC
    )
    assert code.callers["mmap"] <= roles | {"sysargs"}
    assert code.callers["mmap"] >= chosen(probes, EventKind.RESERVE, EventKind.MAP, EventKind.ALLOC)
    assert chosen(probes, EventKind.FREE) == {"munmap"}


def test_growth_and_garbage_collection_have_one_caller_each(code: Code, probes: list[Probe]) -> None:
    """One call of startCycle and of gcMarkTermination in each cycle, and arenas only for growth."""
    assert code.callers["(*gcControllerState).startCycle"] == {"gcStart"}
    assert code.callers["gcMarkTermination"] == {"gcMarkDone"}
    assert code.callers["(*mheap).grow"] == {"(*mheap).allocSpan"}
    assert code.callers["(*mheap).sysAlloc"] == {"(*mheap).grow"}


def test_every_span_passes_one_probe_on_its_way_in_and_one_on_its_way_out(code: Code, probes: list[Probe]) -> None:
    """User arenas (GOEXPERIMENT=arenas) alone make a span past allocSpan, and reuse it without freeing it."""
    (made,), (freed,) = chosen(probes, EventKind.SPAN_ALLOC), chosen(probes, EventKind.SPAN_FREE)
    if made == "(*mheap).initSpan":
        assert code.callers[made] - {"(*mheap).allocUserArenaChunk"} == {"(*mheap).allocSpan"}
    assert made in ("(*mheap).initSpan", "(*mheap).allocSpan")
    # freeSpan's closure calls it, also where freeSpan itself was inlined.
    assert all(name.partition(".func")[0].endswith(("freeSpan", "freeManual")) for name in code.callers[freed])


def test_no_allocation_passes_two_probes(code: Code, probes: list[Probe]) -> None:
    """Only a tiny allocation under runtime/secret does: its slow path, which is not probed, calls another variant."""
    allocators = chosen(probes, EventKind.MALLOCGC)
    for allocator in allocators:
        assert not code.callers[allocator] & allocators


def test_every_allocation_passes_a_probe(code: Code, probes: list[Probe]) -> None:
    """What mallocgc calls to allocate is probed wherever mallocgc itself is not."""
    allocators = chosen(probes, EventKind.MALLOCGC)
    if "mallocgc" not in allocators:
        reached = {name for name, callers in code.callers.items() if "mallocgc" in callers and "mallocgc" in name}
        assert {name for name in reached if not name.endswith("Debug")} <= allocators
        entries = {name for name in code.names if name.startswith("mallocgc") and not name.endswith("SlowPath")}
        assert entries - {"mallocgc"} == allocators
