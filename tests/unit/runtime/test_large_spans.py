"""The largest objects are told by what their spans say; a span that lies costs the answer to it, nothing else."""

from __future__ import annotations

import pytest

from gomem.tracer.runtime.large_spans import LARGEST, LargeSpan, read_largest, records_types
from gomem.tracer.runtime.spans import MANUAL, read_spans
from tests.support.runtime_image import ARENA, PAGE, RuntimeImage, table

STACK = (0x401000, 0x402000)


def large(runtime: RuntimeImage, at: int, pages: int, noscan: int = 0) -> int:
    return runtime.span(ARENA + at * PAGE, pages, span_class=noscan, size=pages * PAGE, capacity=1, objects=1)


def largest(runtime: RuntimeImage) -> list[LargeSpan]:
    spans = read_spans(runtime.image, runtime.layout, runtime.finish().record("mheap_"))
    return read_largest(runtime.image, runtime.layout, spans)


def record(runtime: RuntimeImage, kind: int, *, bucket: int = 0, following: int = 0) -> int:
    """Return the address of a special."""
    special = runtime.room(runtime.layout.size("specialprofile"))
    runtime.set("special", special, "kind", kind)
    runtime.set("special", special, "next", following)
    runtime.set("specialprofile", special, "b", bucket)
    return special


def bucket(runtime: RuntimeImage, depth: int = len(STACK), kind: int = 1) -> int:
    header = runtime.layout.size("bucket")
    address = runtime.room(header + 8 * len(STACK))
    runtime.set("bucket", address, "typ", kind)
    runtime.set("bucket", address, "nstk", depth)
    runtime.image.words(address + header, *STACK)
    return address


@pytest.fixture
def runtime() -> RuntimeImage:
    return RuntimeImage("1.27.3")


def profile_kind(runtime: RuntimeImage) -> int:
    return runtime.layout.constant("kind_special_profile")


def test_the_largest_come_first_and_small_and_manual_spans_not_at_all(runtime: RuntimeImage) -> None:
    for at in range(LARGEST + 5):
        large(runtime, at * 100, at + 5, noscan=at % 2)
    runtime.span(ARENA + 9000 * PAGE, 99, MANUAL, 0, 0, 0)
    runtime.span(ARENA + 9100 * PAGE, 1)
    found = largest(runtime)
    assert [one.size // PAGE for one in found] == list(range(LARGEST + 4 + 5, 9, -1))
    assert [one.noscan for one in found[:2]] == [False, True]


def test_the_type_is_what_the_span_has(runtime: RuntimeImage) -> None:
    runtime.set("mspan", large(runtime, 0, 9), "largeType", 0x500000)
    assert [one.type_address for one in largest(runtime)] == [0x500000]
    assert records_types(runtime.layout)
    assert not records_types(table("1.21.13"))


def test_the_stack_is_that_of_the_profile_among_other_specials(runtime: RuntimeImage) -> None:
    span, kind = large(runtime, 0, 9), profile_kind(runtime)
    mine = record(runtime, kind, bucket=bucket(runtime))
    runtime.set("mspan", span, "specials", record(runtime, 1, following=record(runtime, 1, following=mine)))
    assert [one.stack for one in largest(runtime)] == [STACK]


def test_no_stack_is_told_where_the_record_makes_no_sense(runtime: RuntimeImage) -> None:
    kind = profile_kind(runtime)
    circle = record(runtime, 1)
    runtime.set("special", circle, "next", circle)
    lies = [
        circle,
        0xDEAD0000,
        record(runtime, kind, bucket=0xDEAD0000),
        record(runtime, kind, bucket=bucket(runtime, kind=2)),
        record(runtime, kind, bucket=bucket(runtime, depth=1 << 60)),
    ]
    for at, special in enumerate(lies):
        runtime.set("mspan", large(runtime, at * 10, 5), "specials", special)
    found = largest(runtime)
    assert len(found) == len(lies)
    assert {one.stack for one in found} <= {()}


def test_a_span_that_was_used_again_meanwhile_has_no_type(runtime: RuntimeImage) -> None:
    span = large(runtime, 0, 9)
    spans = read_spans(runtime.image, runtime.layout, runtime.finish().record("mheap_"))
    runtime.set("mspan", span, "startAddr", ARENA + 7 * PAGE)
    runtime.set("mspan", span, "largeType", 0x500000)
    (found,) = read_largest(runtime.image, runtime.layout, spans)
    assert (found.start, found.type_address) == (ARENA, 0)
