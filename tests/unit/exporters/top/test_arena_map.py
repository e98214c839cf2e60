"""The map in characters: each cell is of the pages that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.exporters.top.arena_map import arena_lines, cells_of
from gomem.tracer.report.memory_map import PageUse
from tests.support.samples.maps import large, seen

IN_RAM = 8 | 16


def test_a_cell_has_the_commonest_state_and_its_share_in_ram() -> None:
    pages = np.array(
        [PageUse.IN_USE | IN_RAM, PageUse.IN_USE, PageUse.FREE | IN_RAM, PageUse.SCAVENGED] + [PageUse.NOT_GROWN] * 3,
        np.uint8,
    )
    cells = cells_of(pages, 4)
    assert cells.state.tolist() == [PageUse.IN_USE, PageUse.NOT_GROWN]
    assert cells.resident.tolist() == [0.5, 0.0]
    one_by_one = cells_of(pages, 1)
    assert one_by_one.state.tolist() == (pages & 7).tolist()
    assert one_by_one.resident.tolist() == [1, 0, 1, 0, 0, 0, 0]


def test_what_is_not_grown_hides_nothing() -> None:
    pages = np.array([PageUse.NOT_GROWN] * 63 + [PageUse.STACK], np.uint8)
    assert cells_of(pages, 64).state.tolist() == [PageUse.STACK]


@pytest.mark.parametrize("dots", [True, False])
@pytest.mark.parametrize(("width", "height"), [(50, 10), (78, 16), (118, 26)])
def test_a_map_is_no_wider_than_it_may_be(width: int, height: int, dots: bool) -> None:
    shown = seen()[1].moments[-1].map
    lines = arena_lines(shown, width, height, dots=dots)
    assert max(len(line) for line in lines[1:]) <= width
    assert len(lines) <= height + 2 * len(shown.arenas.base)


def test_dots_are_where_pages_are_in_ram() -> None:
    shown = large(1)[1].moments[-1].map
    lines = arena_lines(shown, 64, 100, dots=True)
    drawn = "".join(line.plain for line in lines[2:])
    dots = sum(bin(ord(character) - 0x2800).count("1") for character in drawn)
    each = 1
    while len(cells_of(shown.pages, each).state) > dots_of(drawn):
        each *= 2
    assert dots == int((cells_of(shown.pages, each).resident >= 0.5).sum())


def dots_of(drawn: str) -> int:
    return 8 * len(drawn)


def test_a_heap_of_10_gb_is_some_hundred_lines() -> None:
    shown = large()[1].moments[-1].map
    assert len(arena_lines(shown, 80, 20, dots=False)) < 400
