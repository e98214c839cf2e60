"""The largest objects, one by one: each has a span of its own.

Source: mallocgcLarge in runtime/malloc.go, mspan.largeType in runtime/mheap.go (Go 1.22 and later; only of objects with
pointers), specialprofile in runtime/mheap.go, bucket in runtime/mprof.go.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory
from gomem.tracer.runtime.pages import PAGE
from gomem.tracer.runtime.profile_list import MOST_FRAMES, Shape
from gomem.tracer.runtime.spans import IN_USE, Spans
from gomem.tracer.runtime.structs import read_record

LARGEST = 10
_WORD = 8
# An object has one record of the profile, and few other specials: a finalizer, cleanups, a weak handle.
_MOST_SPECIALS = 32
_FRAMES = 64  # of a stack that is looked through for the first function that is not the runtime's
_MEM_PROFILE = 1  # bucketType


class LargeSpan(Struct, frozen=True):
    """An object of more than 32 KB and the span that it has for itself; addresses and bytes.

    `type_address`: that of the abi.Type of its elements, 0 where the runtime keeps none. `stack`: the return addresses
    of the call that allocated it, the innermost first, where the heap profile has a record of it. The names of both
    are filled in later, where the program is known, and so is how many of its OS pages in huge pages were `sampled`,
    and how many of these had nothing but `zeros`.
    """

    start: int
    size: int
    noscan: bool
    type_address: int = 0
    stack: tuple[int, ...] = ()
    type_name: str | None = None
    type_size: int | None = None
    function: str | None = None
    file: str = ""
    line: int = 0
    sampled: int = 0
    zeros: int = 0


def large_spans(spans: Spans) -> NDArray[np.bool_]:
    """Return a mask of the spans in use that hold one large object: their size class is 0."""
    return spans.with_state(IN_USE) & (spans.span_class <= 1)


def records_types(layout: Layout) -> bool:
    """Tell whether the release keeps the types of large objects."""
    return layout.has("mspan", "largeType")


def read_largest(memory: Memory, layout: Layout, spans: Spans) -> list[LargeSpan]:
    """Read the largest objects, the largest first; one whose span has changed meanwhile is as it was.

    Raises TargetGone only.
    """
    large = np.flatnonzero(large_spans(spans))
    order = np.argsort(spans.pages[large].astype(np.int64) * -1, kind="stable")[:LARGEST]
    found = []
    for at in large[order].tolist():
        plain = LargeSpan(int(spans.start[at]), int(spans.pages[at]) * PAGE, bool(spans.span_class[at] & 1))
        try:
            found.append(_read(memory, layout, int(spans.address[at]), plain))
        except (SnapshotError, LayoutError):
            found.append(plain)
    return found


def _read(memory: Memory, layout: Layout, address: int, plain: LargeSpan) -> LargeSpan:
    span = read_record(memory, layout, "mspan", address)
    if span.number("startAddr") != plain.start or span.number("spanclass") != plain.noscan:
        return plain
    typed = span.number("largeType") if span.has("largeType") else 0
    return LargeSpan(plain.start, plain.size, plain.noscan, typed, _stack(memory, layout, span.number("specials")))


def _stack(memory: Memory, layout: Layout, special: int) -> tuple[int, ...]:
    """Return the stack of the heap profile's record among a span's specials; () for none that can be read."""
    try:
        return _recorded(memory, layout, special)
    except (SnapshotError, LayoutError):
        return ()


def _recorded(memory: Memory, layout: Layout, special: int) -> tuple[int, ...]:
    kind, follow = layout.field("special", "kind"), layout.offset("special", "next")
    wanted = layout.constant("kind_special_profile")
    for _ in range(_MOST_SPECIALS):
        if not special:
            break
        raw = memory.read(special, layout.size("special"))
        if int.from_bytes(raw[kind.offset : kind.offset + kind.size], "little") == wanted:
            bucket = memory.read(special + layout.offset("specialprofile", "b"), _WORD)
            return _stack_of(memory, layout, int.from_bytes(bucket, "little"))
        special = int.from_bytes(raw[follow : follow + _WORD], "little")
    return ()


def _stack_of(memory: Memory, layout: Layout, bucket: int) -> tuple[int, ...]:
    shape = Shape(layout)
    words = np.frombuffer(memory.read(bucket, shape.header * _WORD), "<u8")
    depth = int(words[shape.depth])
    if int(words[shape.kind]) != _MEM_PROFILE or depth > MOST_FRAMES:
        return ()
    depth = min(depth, _FRAMES)
    return tuple(np.frombuffer(memory.read(bucket + shape.header * _WORD, depth * _WORD), "<u8").tolist())
