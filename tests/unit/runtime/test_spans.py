from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.errors import SnapshotError
from gomem.tracer.report import SpanState
from gomem.tracer.runtime.spans import DEAD, IN_USE, MANUAL, READ_OVER, Spans, class_rows, read_spans, state_rows
from tests.support.runtime_image import ARENA, PAGE, RuntimeImage

RELEASES = ["1.19.8", "1.21.13", "1.23.9", "1.27.3"]


def spans_of(runtime: RuntimeImage) -> Spans:
    return read_spans(runtime.image, runtime.layout, runtime.finish().record("mheap_"))


def sizes(runtime: RuntimeImage) -> tuple[int, ...]:
    return runtime.layout.constants("class_to_size")


@pytest.mark.parametrize("release", RELEASES)
def test_every_column_is_read_whatever_its_width(release: str) -> None:
    runtime = RuntimeImage(release)
    runtime.span(ARENA, 3, IN_USE, 0x81, 3 * PAGE - 1, 1, 1, 0)
    runtime.span(ARENA + 3 * PAGE, 1, IN_USE, 5, 8, 1024, 1000, 999)
    # the bytes beside the narrow fields belong to others
    for field in ("needzero", "sweepgen", "divMul"):
        for span in runtime.spans:
            runtime.set("mspan", span, field, -1)
    spans = spans_of(runtime)
    assert spans.address.tolist() == runtime.spans
    assert (spans.start.tolist(), spans.pages.tolist()) == ([ARENA, ARENA + 3 * PAGE], [3, 1])
    assert (spans.state.tolist(), spans.span_class.tolist()) == ([IN_USE, IN_USE], [0x81, 5])
    assert (spans.capacity.tolist(), spans.object_size.tolist()) == ([1, 1024], [3 * PAGE - 1, 8])
    assert spans.objects.tolist() == [1, 1000]


def test_a_heap_without_spans_has_none() -> None:
    spans = spans_of(RuntimeImage())
    assert (len(spans.address), class_rows(spans, [0]), state_rows(spans)["in_use"]) == (0, [], SpanState(0, 0))


@given(st.lists(st.integers(0, 3 * READ_OVER).map(lambda gap: gap // 8 * 8), min_size=1, max_size=12), st.randoms())
def test_spans_are_the_same_in_any_order_and_at_any_distance(gaps: list[int], random: object) -> None:
    runtime = RuntimeImage()
    for number, gap in enumerate(gaps):
        runtime.span(ARENA + number * PAGE, 1, MANUAL, 0, 0, 0, 0, padding=gap)
    expected = dict(zip(runtime.spans, range(len(gaps)), strict=True))
    random.shuffle(runtime.spans)  # type: ignore[attr-defined]
    spans = spans_of(runtime)
    numbers = ((spans.start - np.uint64(ARENA)) // np.uint64(PAGE)).tolist()
    assert dict(zip(spans.address.tolist(), numbers, strict=True)) == expected


def test_neighbouring_spans_are_read_in_one_piece_and_distant_ones_apart() -> None:
    runtime = RuntimeImage()
    size = runtime.layout.size("mspan")
    for padding in (0, 0, READ_OVER, READ_OVER + 64, 1 << 46):
        runtime.span(padding=padding)
    runtime.finish()
    before = runtime.image.bytes_read
    read_spans(runtime.image, runtime.layout, runtime.record("mheap_"))
    read = runtime.image.bytes_read - before - runtime.layout.size("mheap") - 8 * 5
    # three in one piece, and one piece each for the others
    assert read == 3 * size + READ_OVER + 2 * size


def test_class_rows_sum_what_a_loop_sums() -> None:
    runtime = RuntimeImage()
    size = sizes(runtime)
    for number in range(40):
        span_class = (2, 3, 11, 134)[number % 4]
        each = size[span_class >> 1]
        pages = runtime.layout.constants("class_to_allocnpages")[span_class >> 1]
        runtime.span(ARENA + number * 16 * PAGE, pages, IN_USE, span_class, each, pages * PAGE // each, number % 2)
    runtime.span(ARENA + (1 << 30), 700, IN_USE, 1, 700 * PAGE - 100, 1, 1)
    runtime.span(ARENA + (1 << 31), 4, MANUAL, 0, 0, 0, 0)
    runtime.span(0, 0, DEAD, 255, 1 << 63, 9, 9)  # what a dead one holds means nothing
    rows = {row.span_class: row for row in class_rows(spans_of(runtime), size)}
    assert sorted(rows) == [1, 2, 3, 11, 134]
    assert (rows[1].pages, rows[1].object_size, rows[1].tail_waste, rows[1].noscan) == (700, 0, 100, True)
    eleven = rows[11]  # size class 5: 48 bytes, 170 in a page, 32 bytes left
    assert (eleven.size_class, eleven.object_size, eleven.noscan, eleven.spans) == (5, 48, True, 10)
    assert (eleven.capacity, eleven.objects) == (1700, sum(number % 2 for number in range(2, 40, 4)))
    assert (eleven.free_slots, eleven.tail_waste) == (1700 - eleven.objects, 320)
    assert not rows[134].noscan


def test_span_states_count_bytes_of_live_spans_only() -> None:
    runtime = RuntimeImage()
    runtime.span(ARENA, 2)
    runtime.span(ARENA + 2 * PAGE, 5, MANUAL, 0, 0, 0)
    runtime.span(ARENA, 9, DEAD)
    rows = state_rows(spans_of(runtime))
    assert rows == {
        "in_use": SpanState(1, 2 * PAGE), "manual": SpanState(1, 5 * PAGE), "dead": SpanState(1, 0)
    }  # fmt: skip


@pytest.mark.parametrize(
    "impossible",
    [
        {"state": 3},
        {"state": 255},
        {"start": ARENA + 8},
        {"start": (1 << 64) - PAGE},
        {"pages": 1 << 45},
        {"pages": (1 << 64) - 1},
        {"span_class": 136},
        {"objects": 171},
        {"size": PAGE + 1},
        {"size": 49},
        {"size": 1 << 63},
        {"pages": 0},
    ],
)
def test_spans_that_no_heap_has_are_refused(impossible: dict[str, int]) -> None:
    runtime = RuntimeImage()
    runtime.span()
    runtime.span(**impossible)
    with pytest.raises(SnapshotError):
        spans_of(runtime)


def test_a_product_that_overflows_is_no_excuse() -> None:
    # 8-byte slot counts, as up to Go 1.21: 2**61 slots of 8 bytes are 2**64, that is 0
    runtime = RuntimeImage("1.19.8")
    runtime.span(size=8, capacity=1 << 61)
    with pytest.raises(SnapshotError):
        spans_of(runtime)


@pytest.mark.parametrize("wrong", [0, 0x7F0000000004, 1 << 63, (1 << 64) - 8, 0x7F0000000008])
def test_a_list_of_something_else_is_refused(wrong: int) -> None:
    runtime = RuntimeImage()
    runtime.span()
    runtime.spans.append(wrong)
    with pytest.raises(SnapshotError):
        spans_of(runtime)


def test_one_span_listed_twice_is_refused() -> None:
    runtime = RuntimeImage()
    runtime.spans += [runtime.span()]
    with pytest.raises(SnapshotError):
        spans_of(runtime)


@pytest.mark.parametrize(("length", "capacity"), [(1 << 40, 1 << 40), (2, 1), (1 << 27, 1 << 27), (1, 1 << 63)])
def test_a_length_that_memory_does_not_bear_out_is_refused(length: int, capacity: int) -> None:
    runtime = RuntimeImage()
    runtime.span()
    runtime.finish()
    at = runtime.globals["mheap_"] + runtime.layout.offset("mheap", "allspans")
    runtime.image.words(at + 8, length, capacity)
    with pytest.raises(SnapshotError):
        read_spans(runtime.image, runtime.layout, runtime.record("mheap_"))
