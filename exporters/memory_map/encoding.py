"""Columns of a map as text: of each the bytes of equal weight together, which deflate makes small, in base64."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.report.memory_map import MemoryMap

_LEVEL = 6
Column = NDArray[np.uint8] | NDArray[np.uint32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """`columns`: name, type ("u8", "u32", "f64") and length of each, in the order in which `text` has them."""

    columns: list[tuple[str, str, int]]
    text: str


def encode_map(shown: MemoryMap) -> Encoded:
    """Return a map. Areas are told by their distance from the one before, spans by that of their first pages."""
    areas, arenas, spans = shown.areas, shown.arenas, shown.spans
    return encode({
        "area_gap": _gaps(areas.start, areas.size),
        "area_size": areas.size.astype(np.float64),
        "area_kind": areas.kind,
        "area_state": areas.state,
        "area_access": areas.access,
        "area_resident": areas.resident.astype(np.float64),
        "area_swap": areas.swap.astype(np.float64),
        "area_huge": areas.huge.astype(np.float64),
        "area_name": areas.name,
        "arena_base": arenas.base.astype(np.float64),
        "arena_size": arenas.size.astype(np.float64),
        "arena_resident": arenas.resident.astype(np.float64),
        "arena_swap": arenas.swap.astype(np.float64),
        "pages": shown.pages,
        "span_step": np.diff(spans.first, prepend=np.uint32(0)).astype(np.uint32),
        "span_pages": spans.pages,
        "span_class": spans.span_class,
        "span_manual": spans.manual,
        "span_capacity": spans.capacity,
        "span_objects": spans.objects,
        "span_object_size": spans.object_size,
        "span_type": spans.type,
        "span_slots": spans.slots_known,
        "slots": spans.slots,
    })  # fmt: skip


def encode(columns: Mapping[str, Column]) -> Encoded:
    """Return columns of any of the three types."""
    types = {"u1": "u8", "u4": "u32", "f8": "f64"}
    packer = zlib.compressobj(_LEVEL)
    packed = [packer.compress(_planes(column)) for column in columns.values()]
    named = [(name, types[column.dtype.str[1:]], len(column)) for name, column in columns.items()]
    return Encoded(named, base64.b64encode(b"".join([*packed, packer.flush()])).decode())


def _planes(column: Column) -> bytes:
    """Return the first byte of all values, then the second of all: little-endian."""
    width = column.dtype.itemsize
    return np.ascontiguousarray(column.view(np.uint8).reshape(-1, width).T).tobytes() if len(column) else b""


def _gaps(start: NDArray[np.uint64], size: NDArray[np.uint64]) -> NDArray[np.float64]:
    end = np.concatenate((np.zeros(1, np.uint64), (start + size)[:-1])) if len(start) else start
    return (start - end).astype(np.float64)
