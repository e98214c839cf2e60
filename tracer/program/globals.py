"""The addresses of the runtime's globals: from the symbol table, or in stripped programs from code.

A recipe (`tracer/layout/globals.json`) names a runtime function and which fields of the global its code
reads, writes or takes the address of. The layout gives the fields' offsets; the one base address from which
all of them hit something the function really touches is the global. That holds whatever order the compiler
chose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import TypedDict

from gomem.tracer.binary.code import Access, Reference, references
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.errors import BinaryError, LayoutError
from gomem.tracer.layout.layout import Layout


class Recipe(TypedDict, total=False):
    """One way to find a global; fields are dotted names of the layout, or byte offsets."""

    function: str
    read: list[str | int]
    write: list[str | int]
    address: list[str | int]
    size: int  # bytes of every access, where that tells the global from others
    argument_of: str  # the last address taken before this function is called
    unless: str  # a function: in programs that have it, this recipe says nothing


# What all else hangs on must be found in two independent ways.
_OPINIONS = {"mheap_": 2}
_ACCESSES: tuple[Access, ...] = ("read", "write", "address")


@cache
def recipes() -> Mapping[str, list[Recipe]]:
    """Return the recipes of every global."""
    text = resources.files("gomem.tracer.layout").joinpath("globals.json").read_text(encoding="utf-8")
    loaded: dict[str, list[Recipe]] = json.loads(text)
    return loaded


def find_globals(exe: Executable, functions: FunctionTable, layout: Layout, names: Iterable[str]) -> dict[str, int]:
    """Return the link-time addresses of those globals that could be found, without doubt, by any means."""
    wanted = list(names)
    found = _from_symbols(exe, wanted)
    missing = [name for name in wanted if name not in found]
    return found | find_in_code(exe, functions, layout, missing)


def _from_symbols(exe: Executable, names: list[str]) -> dict[str, int]:
    try:
        symbols = exe.symbols([f"runtime.{name}" for name in names])
    except BinaryError:
        return {}
    return {name.removeprefix("runtime."): address for name, address in symbols.items()}


def find_in_code(exe: Executable, functions: FunctionTable, layout: Layout, names: Iterable[str]) -> dict[str, int]:
    """Return the link-time addresses that the recipes find; where two recipes disagree, nothing.

    Recipes with the same function are alternatives, for compilers differ (-N, -l, -race, PGO). A function that fits
    none has no say; with a layout that nobody measured for the program, it is a sign that the layout is wrong.
    """
    seen: dict[str, list[Reference]] = {}
    found = {}
    for name in names:
        opinions: dict[str, set[int]] = {}
        for recipe in recipes().get(name, []):
            bases = _candidates(exe, functions, layout, name, recipe, seen)
            if bases is not None:
                opinions.setdefault(recipe["function"], set()).update(bases)
        said = [bases for bases in opinions.values() if bases or not layout.confirmed]
        if len(said) >= _OPINIONS.get(name, 1):
            common = set.intersection(*said)
            if len(common) == 1:
                found[name] = common.pop()
    return found


def _candidates(
    exe: Executable,
    functions: FunctionTable,
    layout: Layout,
    name: str,
    recipe: Recipe,
    seen: dict[str, list[Reference]],
) -> set[int] | None:
    """Return the bases that fit one recipe; None if this release or program has no such function or field."""
    function = recipe["function"]
    if "unless" in recipe and functions.lookup(recipe["unless"]):
        return None
    if function not in seen:
        entries = functions.lookup(function)
        if not entries:
            return None
        try:
            seen[function] = references(exe, entries[0])
        except BinaryError:
            return None
    if "argument_of" in recipe:
        return _arguments(functions, seen[function], recipe["argument_of"])
    try:
        return _constellation(layout, name, recipe, seen[function])
    except LayoutError:
        return None


def _arguments(functions: FunctionTable, found: list[Reference], callee: str) -> set[int] | None:
    entries = {function.entry for function in functions.lookup(callee)}
    bases = {
        before.target
        for before, call in pairwise(found)
        if call.access == "call" and call.target in entries and before.access == "address"
    }
    return bases if entries else None


def _constellation(layout: Layout, name: str, recipe: Recipe, found: list[Reference]) -> set[int]:
    size = recipe.get("size")
    bases: set[int] | None = None
    by_access: dict[Access, list[str | int]] = {
        "read": recipe.get("read", []), "write": recipe.get("write", []), "address": recipe.get("address", [])
    }  # fmt: skip
    for access in _ACCESSES:
        targets = {
            reference.target
            for reference in found
            if reference.access == access and size in (None, reference.operand_size)
        }
        for field in by_access[access]:
            offset = field if isinstance(field, int) else layout.offset(name, field)
            fitting = {target - offset for target in targets}
            bases = fitting if bases is None else bases & fitting
    return bases or set()
