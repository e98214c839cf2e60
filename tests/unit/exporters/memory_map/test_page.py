"""The page of a memory map: it has every column, says what the report says, and its size has a limit."""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from gomem.exporters.json.report import render_json
from gomem.exporters.memory_map.encoding import encode_map
from gomem.exporters.memory_map.page import map_page
from gomem.tracer.report import KINDS
from gomem.tracer.report.memory_map import HeldBytes, Picture
from tests.support.samples.maps import hostile, large, seen
from tests.support.samples.profiles import MARKUP
from tests.support.samples.reports import SAMPLES, WITHOUT_A_LOOK

TYPES: dict[str, np.dtype[Any]] = {"u8": np.dtype("<u1"), "u32": np.dtype("<u4"), "f64": np.dtype("<f8")}


def element(page: str, name: str) -> str:
    found = re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def columns(page: str, index: int = 0) -> dict[str, Any]:
    told = json.loads(element(page, "content"))["maps"][index]
    raw = zlib.decompress(base64.b64decode(element(page, f"map-{index}")))
    found, at = {}, 0
    for name, kind, length in told["columns"]:
        size = length * TYPES[kind].itemsize
        planes = np.frombuffer(raw, np.uint8, size, at).reshape(TYPES[kind].itemsize, length)
        found[name] = np.ascontiguousarray(planes.T).view(TYPES[kind]).reshape(-1)
        at += size
    assert at == len(raw)
    return found


def test_every_kind_of_mapping_has_a_colour() -> None:
    script = files("gomem.exporters.memory_map").joinpath("colours.js").read_text()
    table = script[script.index("KIND_COLOURS = {") : script.index("};", script.index("KIND_COLOURS = {"))]
    assert set(re.findall(r"(\w+): \"", table)) == set(KINDS)


def test_every_column_comes_back() -> None:
    report, picture = seen()
    shown = picture.moments[-1].map
    found = columns(map_page(report, picture))
    assert np.array_equal(found["pages"], shown.pages)
    assert np.array_equal(np.cumsum(found["span_step"]), shown.spans.first)
    assert np.array_equal(found["span_object_size"], shown.spans.object_size)
    start = np.cumsum(found["area_gap"] + np.concatenate(([0], found["area_size"][:-1])))
    assert np.array_equal(start, shown.areas.start)
    assert np.array_equal(found["area_resident"], shown.areas.resident)
    assert np.array_equal(found["arena_base"], shown.arenas.base)


def test_the_report_in_the_page_is_the_json_report() -> None:
    report, picture = seen()
    assert json.loads(element(map_page(report, picture), "report")) == json.loads(render_json(report))


@pytest.mark.parametrize("name", [*SAMPLES, *WITHOUT_A_LOOK])
def test_a_report_without_a_map_is_a_page_too(name: str) -> None:
    page = map_page((SAMPLES | WITHOUT_A_LOOK)[name](), Picture())
    assert 'id="map"' not in page
    assert json.loads(element(page, "content"))["maps"] == []


def test_a_heap_of_10_gb_is_less_than_5_mb() -> None:
    report, picture = large()
    shown = picture.moments[-1].map
    assert len(shown.pages) == 1_310_720
    assert len(shown.spans.first) > 500_000
    assert len(map_page(report, picture)) < 5_000_000


def test_names_are_text_wherever_they_are() -> None:
    page = map_page(*hostile(1000))
    assert MARKUP not in page
    assert page.count("<script") == 5
    assert "alert(1)" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_small_holders_are_one_and_the_sum_stays() -> None:
    report, picture = seen()
    many = [HeldBytes(("Go heap", "spans in use", f"call {at}"), 10) for at in range(9000)]
    held = [HeldBytes(("executable", "/srv/program"), 1_000_000), *many]
    page = map_page(report, Picture(picture.moments, held))
    told = json.loads(element(page, "content"))["holders"]
    assert told == [
        [["executable", "/srv/program"], 1_000_000, False],
        [["Go heap", "spans in use", "9,000 smaller"], 90_000, False],
    ]


def test_a_map_of_nothing_can_be_told() -> None:
    _, picture = seen()
    shown = picture.moments[-1].map
    encoded = encode_map(shown)
    assert {name for name, _, _ in encoded.columns} >= {"pages", "span_class", "area_kind"}
