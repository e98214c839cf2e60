"""Where two layouts contradict each other: a table and the DWARF of the very program."""

from __future__ import annotations

from gomem.tracer.errors import LayoutError
from gomem.tracer.layout.layout import Field, Layout


def contradictions(layout: Layout, other: Layout) -> list[str]:
    """Return in words on what the layouts differ, of all that both have: structs' and fields' places, constants.

    A program's DWARF has not all types, and a table may hold only what patch releases have in common.
    """
    found = []
    for struct in sorted(layout.struct_names & other.struct_names):
        ours, theirs = layout.fields(struct), other.fields(struct)
        found += [
            f"{struct}.{name} at {ours[name].offset} ({ours[name].size} bytes), "
            f"not at {theirs[name].offset} ({theirs[name].size} bytes)"
            for name in ours
            if name in theirs and _place(ours[name]) != _place(theirs[name])
        ]
        sizes = _size(layout, struct), _size(other, struct)
        if None not in sizes and sizes[0] != sizes[1]:
            found.append(f"{struct} of {sizes[0]} bytes, not {sizes[1]}")
    for name in sorted(layout.constant_names & other.constant_names):
        values = _constant(layout, name), _constant(other, name)
        if values[0] != values[1]:
            found.append(f"{name} = {values[0]}, not {values[1]}")
    return found


def _place(field: Field) -> tuple[int, int, int, int]:
    return field.offset, field.size, field.count, field.stride


def _size(layout: Layout, struct: str) -> int | None:
    try:
        return layout.size(struct)
    except LayoutError:  # patch releases differ
        return None


def _constant(layout: Layout, name: str) -> int | tuple[int, ...]:
    try:
        return layout.constant(name)
    except LayoutError:
        return layout.constants(name)
