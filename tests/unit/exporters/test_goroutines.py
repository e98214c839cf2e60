"""Goroutines as a page and as JSON. To accept a changed page, run with GOMEM_UPDATE_GOLDEN=1, and look at the diff."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from gomem.exporters.goroutines import SORTS, Sort, goroutines_json, goroutines_text, in_order
from gomem.exporters.json.schema import GOROUTINES_FILE, goroutines_schema, load_schema, validate
from gomem.exporters.text.console import Sheet
from gomem.tracer.report import Limit, ProcessFacts
from gomem.tracer.report.goroutines import EndedGoroutines, GoroutineGroup, GoroutineLook, GoroutineReport, Place

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "\x1b[31mred\x1b[0m \x07 [bold]markup[/] \u202e\n\r\udcff\x00"


def group(at: Place, counts: list[int], stack: int, wait: float | None, *, grows: bool = False) -> GoroutineGroup:
    count = counts[-1]
    reasons = {"select": count - 1, "chan receive": 1} if count > 1 else {"chan receive": 1}
    return GoroutineGroup(
        at, None, None, None, count, count * stack, count * stack // 2, reasons, wait, count, counts,
        [count // 2, count // 2 + 1, count], grows,
    )  # fmt: skip


REPORT = GoroutineReport(
    taken_at="2026-03-01T12:00:00.000Z",
    process=ProcessFacts(4711, 4711, "2026-03-01T11:00:00.000Z", "/srv/checkout", ["checkout"], go_version="go1.25.5"),
    limits=[Limit("goroutines-unreadable", "some goroutines", "3 of the runtime's goroutines cannot be read", "")],
    by="creator",
    goroutines=101_302,
    system_goroutines=5,
    stack_bytes=205 << 20,
    stack_resident=101 << 20,
    system_stack_bytes=10240,
    stack_inuse=210 << 20,
    longest_wait=4011.5,
    ended=EndedGoroutines(500_000, 240_000_000, 4096, 4096),
    looks=[GoroutineLook(0.0, 90_000, 12), GoroutineLook(5.0, 95_000, 13), GoroutineLook(10.0, 101_302, 13)],
    groups=[
        group(Place(""), [1, 1, 1], 4096, None),
        group(
            Place("example.org/checkout/internal/orders.(*Service[...]).Watch", "/src/internal/orders/watch.go", 217),
            [90_000, 95_000, 101_000], 2048, 4011.5, grows=True,
        ),
        group(Place("net/http.(*Server).Serve", "/go/src/net/http/server.go", 3285), [250, 301, 300], 8192, 59.0),
    ],
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_page_is_as_in_the_golden_file_and_no_figure_is_cut(width: int) -> None:
    page = goroutines_text(in_order(REPORT, "growth"), 20, Sheet(width, terminal=True))
    plain = re.sub(r"\x1b\[[\d;]*m", "", page)
    assert all(len(line) <= width for line in plain.splitlines()), plain
    for figure in ("101,000", "+11,000", "101,302", "205 MiB", "229 MiB", "66 min 52 s"):
        assert figure in plain
    golden = GOLDEN / f"goroutines.{width}.txt"
    if os.environ.get("GOMEM_UPDATE_GOLDEN"):
        golden.write_text(plain)
    assert plain.splitlines() == golden.read_text().splitlines()


def test_in_a_pipe_a_name_is_in_one_piece() -> None:
    page = goroutines_text(REPORT, 20, Sheet())
    assert any("orders.(*Service[...]).Watch  watch.go:217" in line for line in page.splitlines())


@pytest.mark.parametrize(
    ("sort", "first"),
    [("count", 101_000), ("stack", 101_000), ("resident", 101_000), ("wait", 101_000), ("growth", 101_000)],
)
def test_the_largest_is_first(sort: Sort, first: int) -> None:
    report = in_order(replace(REPORT, groups=REPORT.groups[::-1]), sort)
    assert report.groups[0].goroutines == first
    assert report.groups[-1].goroutines == 1
    assert set(SORTS) >= {sort}


def test_only_the_first_groups_are_shown_and_the_page_says_so() -> None:
    page = goroutines_text(in_order(REPORT, "count"), 1, Sheet())
    assert "the first 1 of 3 groups" in page
    assert "net/http" not in page


@pytest.mark.parametrize("by", ["creator", "start", "reason", "stack"])
def test_names_cannot_command_the_terminal(by: str) -> None:
    place = Place(HOSTILE, HOSTILE, 1)
    one = group(place, [1, 2, 3], 2048, 1.0, grows=True)
    others = {
        "creator": one,
        "start": replace(one, creator=None, start=place),
        "reason": replace(one, creator=None, reason=HOSTILE, reasons={HOSTILE: 3}),
        "stack": replace(one, creator=None, stack=[place] * 40),
    }
    report = replace(REPORT, by=by, groups=[others[by]])
    for page in (goroutines_text(report, 20, Sheet()), goroutines_text(report, 20, Sheet(80, terminal=True))):
        assert all(line.isprintable() for line in re.sub(r"\x1b\[[\d;]*m", "", page).splitlines())
        assert "\x1b[31m" not in page
    assert all(character.isprintable() for character in goroutines_json(report).rstrip("\n"))


@pytest.mark.parametrize("by", ["creator", "start", "reason", "stack"])
def test_json_is_valid_and_one_line(by: str) -> None:
    text = goroutines_json(replace(REPORT, by=by))
    assert text.count("\n") == 1
    body = json.loads(text)
    validate(body, GOROUTINES_FILE)
    assert body["schema"] == "gomem.goroutines/1"
    with pytest.raises(ValueError, match="goroutines"):
        validate(body | {"goroutines": -1}, GOROUTINES_FILE)


def test_the_schema_in_the_file_is_that_of_the_types() -> None:
    Draft202012Validator.check_schema(load_schema(GOROUTINES_FILE))
    kinds = json.dumps(load_schema(GOROUTINES_FILE), sort_keys=True), json.dumps(goroutines_schema(), sort_keys=True)
    assert kinds[0] == kinds[1], "write it anew: python -m gomem.exporters.json.schema"
