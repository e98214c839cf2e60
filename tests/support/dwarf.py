"""Layouts from DWARF, as no cache has kept them."""

from __future__ import annotations

from gomem.tracer.binary.executable import Executable
from gomem.tracer.layout.dwarf import read_raw_layout
from gomem.tracer.layout.layout import Layout


def layout_from_dwarf(exe: Executable) -> tuple[Layout, dict[str, int]]:
    """Return the layout of the runtime in `exe`, and its globals' addresses. Raises what `read_raw_layout` does."""
    raw, addresses = read_raw_layout(exe)
    return Layout(raw, "dwarf"), addresses
