from __future__ import annotations

import pytest

from gomem.tracer.errors import SnapshotError
from gomem.tracer.report import McacheRow
from gomem.tracer.runtime.caches import PCaches, read_p_caches
from gomem.tracer.runtime.pages import PageCache
from tests.support.runtime_image import ARENA, PAGE, RuntimeImage


def caches_of(runtime: RuntimeImage) -> PCaches:
    runtime.finish()
    return read_p_caches(runtime.image, runtime.layout, runtime.globals["allp"])


@pytest.mark.parametrize("release", ["1.19.8", "1.21.13", "1.27.3"])
def test_what_mcaches_have_not_told_the_statistics_is_counted_by_size_class(release: str) -> None:
    runtime = RuntimeImage(release)
    first = runtime.span(span_class=10, objects=20, before=3)
    second = runtime.span(span_class=11, objects=170, before=170)
    third = runtime.span(span_class=134, size=32768, capacity=1, pages=4, objects=1, before=0)
    runtime.p(first, second, tiny=7)
    runtime.p(third, tiny=2)
    caches = caches_of(runtime)
    assert caches.unflushed.tiny_allocs == 9
    small = caches.unflushed.small_allocs.tolist()
    assert len(small) == len(runtime.layout.constants("class_to_size"))
    assert {size_class: count for size_class, count in enumerate(small) if count} == {5: 17, 67: 1}
    assert caches.rows == [McacheRow(0, 2, 24), McacheRow(1, 1, 3)]


def test_idle_slots_hold_the_empty_mspan_which_counts_as_none() -> None:
    runtime = RuntimeImage()
    runtime.p()
    caches = caches_of(runtime)
    assert caches.rows == [McacheRow(0, 0, 0)]
    assert not caches.unflushed.small_allocs.any()


def test_page_caches_are_read_where_they_lie() -> None:
    runtime = RuntimeImage()
    runtime.p(cache=(ARENA + PAGE, 5, 4))
    runtime.p(cache=(ARENA, 0, 3))
    assert [cache for cache in caches_of(runtime).page_caches if cache.free] == [PageCache(ARENA + PAGE, 5, 4)]


def test_a_p_without_an_mcache_still_has_its_page_cache() -> None:
    runtime = RuntimeImage()
    runtime.set("p", runtime.p(cache=(ARENA, 1, 0)), "mcache", 0)
    caches = caches_of(runtime)
    assert (caches.rows, len(caches.page_caches)) == ([], 1)


def test_before_the_scheduler_is_up_there_are_no_ps() -> None:
    runtime = RuntimeImage()
    runtime.image.words(runtime.globals["allp"], 0, 0, 0)
    assert read_p_caches(runtime.image, runtime.layout, runtime.globals["allp"]).rows == []


@pytest.mark.parametrize(("length", "capacity"), [(1 << 40, 1 << 40), (2, 1), (4097, 4097)])
def test_a_number_of_ps_that_no_runtime_has_is_refused(length: int, capacity: int) -> None:
    runtime = RuntimeImage()
    runtime.p()
    runtime.finish()
    runtime.image.words(runtime.globals["allp"] + 8, length, capacity)
    with pytest.raises(SnapshotError, match="Ps"):
        read_p_caches(runtime.image, runtime.layout, runtime.globals["allp"])


@pytest.mark.parametrize("wrong", [{"span_class": 136}, {"span_class": 255}, {"objects": 1, "before": 2}])
def test_a_cached_span_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    runtime = RuntimeImage()
    runtime.p(runtime.span(**wrong))
    with pytest.raises(SnapshotError, match="mspan"):
        caches_of(runtime)


@pytest.mark.parametrize("wrong", [1, 0x7F0000000001, 0x7F0000000004, 1 << 46, 1 << 63, (1 << 64) - 1])
def test_a_cached_span_where_none_can_be_is_refused(wrong: int) -> None:
    runtime = RuntimeImage()
    runtime.p(runtime.span(), wrong)
    with pytest.raises(SnapshotError):
        caches_of(runtime)
