"""An album keeps the first, the last and the fullest look, and others spread over time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gomem.tracer.snapshot.glance import Glance
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.watch.album import Album
from tests.support import looks
from tests.support.samples.maps import with_residency

SECOND = 1_000_000_000
LOOK = looks.look()


def with_pages(count: int) -> Snapshot:
    return with_residency(LOOK, [(0, count, 1)])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_first_last_and_peak_are_kept_whatever_comes(pages: list[int], most: int) -> None:
    album = Album(most)
    for at, count in enumerate(pages):
        album.see(with_pages(count), (at + 1) * SECOND)
    picture = album.picture(SECOND)
    kept = [moment.seconds for moment in picture.moments]
    assert len(kept) == min(len(pages), most)
    assert kept == sorted(set(kept))
    assert kept[-1] == len(pages) - 1
    if most > 2:
        resident = {moment.seconds: int(moment.map.arenas.resident.sum()) for moment in picture.moments}
        assert kept[0] == 0
        assert max(resident.values()) == max(pages) * looks.OS_PAGE
    assert [point.rss for _, point in picture.course] == [count * looks.OS_PAGE for count in pages]
    assert sum(held.resident for held in picture.holders) == pages[-1] * looks.OS_PAGE


def test_glances_stand_between_looks() -> None:
    album = Album()
    album.see(with_pages(3), SECOND)
    album.glance(2 * SECOND, Glance(77, 50, 20))
    album.see(with_pages(4), 3 * SECOND)
    course = album.picture(SECOND).course
    assert [at for at, _ in course] == [0, 1, 2]
    assert (course[1][1].rss, course[1][1].in_use, course[1][1].reserved) == (77, 50, None)
    assert None not in (course[2][1].reserved, course[2][1].threads)


def test_an_album_of_nothing_is_a_picture_of_nothing() -> None:
    picture = Album().picture(0)
    assert (picture.moments, picture.holders, picture.course) == ((), (), ())


def test_without_the_runtime_its_figures_are_not_known() -> None:
    album = Album()
    album.see(replace(LOOK, runtime=None), SECOND)
    (_, point) = album.picture(0).course[0]
    assert (point.in_use, point.live, point.ready) == (None, None, None)
