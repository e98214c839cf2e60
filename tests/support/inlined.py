"""Which functions DWARF says are inlined at addresses of a Go program: the compiler's second word on it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.dwarf.ranges import BaseAddressEntry, RangeLists
from elftools.elf.elffile import ELFFile

_INLINED, _BLOCK = "DW_TAG_inlined_subroutine", "DW_TAG_lexical_block"


def inlined_functions(program: Path, every: int, seed: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Yield addresses within each `every`-th function that has inlined calls, with all functions, innermost first."""
    chosen = random.Random(seed)
    with open(program, "rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        with_calls = (die for die in _functions(dwarf) if any(child.tag == _INLINED for child in die.iter_children()))
        for number, die in enumerate(with_calls):
            if number % every == 0:
                ((low, high),) = _ranges(dwarf, die)
                for address in chosen.sample(range(low, high), min(12, high - low)):
                    yield address, [*_chain(dwarf, die, address), _name(die)]


def _functions(dwarf: DWARFInfo) -> Iterator[DIE]:
    for unit in dwarf.iter_CUs():
        for die in unit.get_top_DIE().iter_children():
            if die.tag == "DW_TAG_subprogram" and "DW_AT_low_pc" in die.attributes:
                yield die


def _chain(dwarf: DWARFInfo, die: DIE, address: int) -> list[str]:
    """Return the calls that are inlined at an address; the ranges of an outer one may leave out those within it."""
    for child in die.iter_children():
        if child.tag not in (_INLINED, _BLOCK):
            continue
        within = _chain(dwarf, child, address)
        own = [_name(child)] if child.tag == _INLINED else []
        if within or (own and any(low <= address < high for low, high in _ranges(dwarf, child))):
            return within + own
    return []


def _name(die: DIE) -> str:
    while "DW_AT_abstract_origin" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_abstract_origin")
    return str(die.attributes["DW_AT_name"].value.decode())


def _ranges(dwarf: DWARFInfo, die: DIE) -> list[tuple[int, int]]:
    """Return where a DIE's code is; Go 1.13 and 1.14 write DWARF 4, with offsets from the unit's first address."""
    values = {name: attribute.value for name, attribute in die.attributes.items()}
    if "DW_AT_low_pc" in values:
        low, high = values["DW_AT_low_pc"], values["DW_AT_high_pc"]
        return [(low, high if die.attributes["DW_AT_high_pc"].form == "DW_FORM_addr" else low + high)]
    lists = dwarf.range_lists()
    assert isinstance(lists, RangeLists)
    base, found = die.cu.get_top_DIE().attributes["DW_AT_low_pc"].value, []
    for entry in lists.get_range_list_at_offset(values["DW_AT_ranges"]):
        if isinstance(entry, BaseAddressEntry):
            base = entry.base_address
        else:
            found.append((base + entry.begin_offset, base + entry.end_offset))
    return found
