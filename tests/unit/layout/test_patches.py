"""Patch releases of one minor: what was measured comes back, what was not is not guessed."""

from __future__ import annotations

import copy

import pytest

from gomem.tracer.errors import LayoutError
from gomem.tracer.layout.layout import RawLayout
from gomem.tracer.layout.patches import add_measured, for_patch, neighbours


def table(patch: int, field_offset: int = 8, constant: int = 64) -> RawLayout:
    return {
        "go": f"1.23.{patch}",
        "goarch": "amd64",
        "measured": [f"1.23.{patch}"],
        "constants": {"page_cache_pages": constant},
        "structs": {
            "m": {
                "size": field_offset + 8,
                "fields": {
                    "g0": {"offset": 0, "size": 8, "type": "*runtime.g"},
                    "alllink": {"offset": field_offset, "size": 8, "type": "*runtime.m"},
                },
            }
        },
        "globals": {"allm": {"type": "*runtime.m", "size": 8}},
    }


def rows(raw: RawLayout) -> tuple[object, object, object]:
    return raw["constants"], raw["structs"], raw["globals"]


def test_an_equal_patch_confirms_all_between_them() -> None:
    raw = table(9)
    add_measured(raw, table(4))
    assert raw["measured"] == ["1.23.4", "1.23.9"]
    assert for_patch(raw, 6) == (raw, True)


def test_every_measured_patch_comes_back_as_it_was() -> None:
    tables = [table(9, 32), table(4, 16), table(1, 8, constant=32)]
    for row in (1, 2):
        raw = copy.deepcopy(tables[0])
        for other in (tables[row], tables[3 - row]):
            add_measured(raw, other)
        for each in tables:
            found, confirmed = for_patch(raw, int(each["go"].split(".")[2]))
            assert confirmed
            assert rows(found) == rows(each)


def test_a_struct_that_an_earlier_patch_lacks_is_absent_there() -> None:
    raw, earlier = table(9), table(1)
    del earlier["structs"]["m"]
    add_measured(raw, earlier)
    assert "m" not in for_patch(raw, 1)[0]["structs"]
    assert "m" in for_patch(raw, 9)[0]["structs"]
    assert "m" not in for_patch(raw, 5)[0]["structs"]


def test_between_patches_that_differ_only_what_they_share_is_known() -> None:
    raw = table(9, 32)
    add_measured(raw, table(1, 8, constant=32))
    found, confirmed = for_patch(raw, 5)
    assert not confirmed
    assert set(found["structs"]["m"]["fields"]) == {"g0"}
    assert "size" not in found["structs"]["m"]
    assert "page_cache_pages" not in found["constants"]
    assert found["globals"] == raw["globals"]


def test_around_an_unmeasured_patch_are_the_whole_tables_of_both_sides() -> None:
    raw = table(9, 32)
    for other in (table(4, 16), table(1, 8, constant=32)):
        add_measured(raw, other)
    newer, older = neighbours(raw, 3)
    assert (rows(newer), rows(older)) == (rows(table(4, 16)), rows(table(1, 8, constant=32)))
    newer, older = neighbours(raw, 7)
    assert (rows(newer), rows(older)) == (rows(table(9, 32)), rows(table(4, 16)))
    assert [neighbours(raw, patch) for patch in (9, 4, 1, 0, 10, None)] == [[]] * 6


@pytest.mark.parametrize("patch", [0, 10, None])
def test_beyond_what_was_measured_the_closest_rows_are_not_confirmed(patch: int | None) -> None:
    raw = table(9, 32)
    add_measured(raw, table(1, 8))
    found, confirmed = for_patch(raw, patch)
    assert not confirmed
    assert found["structs"]["m"]["fields"]["alllink"]["offset"] == (8 if patch == 0 else 32)


def test_another_minor_is_no_patch_release() -> None:
    other = table(1)
    other["go"] = "1.22.1"
    with pytest.raises(LayoutError, match="no patch release"):
        add_measured(table(9), other)
