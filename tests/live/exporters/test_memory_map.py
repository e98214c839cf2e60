"""The memory map in Debian's chromium: every figure is the report's, and nothing leaves the page."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gomem.exporters.memory_map.page import map_page
from gomem.exporters.pprof.decode import read_profile
from gomem.exporters.units import size
from gomem.tracer.kernel.residency import Page
from gomem.tracer.report import GcCycleRow, LoggedEvent, Report
from gomem.tracer.report.memory_map import Picture
from tests.support import looks
from tests.support.axe import keeps_out
from tests.support.browser import Browser, browser
from tests.support.builds import build
from tests.support.command import gomem, report_of
from tests.support.heapprofile import profiled
from tests.support.parked import parked
from tests.support.recordings import recorded
from tests.support.samples.maps import HEAP, hostile, large, seen, with_residency

pytestmark = pytest.mark.live

STATES = {"in_use": "in_use", "stack": "stacks", "work_buf": "work_bufs", "free": "free", "scavenged": "scavenged"}
# A span of many small objects.
SLOTTED = "view.map.span_class.findIndex((number, at) => number >> 1 && view.map.span_capacity[at] > 8)"
COLOUR = """
const colour = (at) => {
  const box = view.layout.box({at});
  const [x, y] = [box.x + box.w / 2, box.y + box.h / 2].map((middle) => middle * devicePixelRatio);
  return [...view.canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
};
"""
OS_PAGE, PRESENT = looks.OS_PAGE, int(Page.PRESENT)
WIDE, PHONE = (1200, 900), (390, 844)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, int]]:
    """The page of a process that stands still, the JSON report that another run gave of it, and its own MemStats."""
    page = tmp_path_factory.mktemp("page") / "map.html"
    shape = {"live": 40, "garbage": 0.5, "goroutines": 100, "big": 12, "bigdrop": 5, "dirty": 700, "release": True}
    with parked(build("parked", "1.27.3"), {**shape, "regrow": 8}) as target:
        assert gomem("snapshot", target.pid, "--format", "html", "-o", page).status == 0
        watching = ("trace", target.pid, "-d", 1, "--backend", "procfs", "--format", "html", "-o", watched(page))
        assert gomem(*watching).status == 0
        report = report_of("snapshot", target.pid)
        return page, report, {name: value for name, value in target.memstats().items() if isinstance(value, int)}


def watched(page: Path) -> Path:
    return page.with_name("watched.html")


def opened(window: Browser, page: Path, *, dark: bool = False, width: tuple[int, int] = WIDE) -> None:
    window.resize(*width)
    window.open(page, dark=dark)
    for _ in range(400):
        if window.run("return document.documentElement.dataset.ready"):
            return
        time.sleep(0.05)
    raise AssertionError(f"the page does not get ready: {window.complaints()}")


def shown(window: Browser, seen: tuple[Report, Picture], directory: Path, *, dark: bool = False) -> Path:
    page = directory / "map.html"
    page.write_text(map_page(*seen))
    opened(window, page, dark=dark)
    return page


def at(report: dict[str, Any], path: str) -> Any:
    value: Any = report
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else value[step]
    return value


def click(window: Browser, item: str) -> None:
    """Click where an item of the layout is."""
    window.run(
        "const item = eval(arguments[0]); const box = view.layout.box(item);"
        "const place = view.canvas.getBoundingClientRect();"
        "view.canvas.dispatchEvent(new MouseEvent('click', {bubbles: true,"
        " clientX: place.left + box.x + box.w / 2, clientY: place.top + box.y + box.h / 2}));",
        item,
    )


def test_every_figure_is_that_of_the_json_report(window: Browser, real: tuple[Path, dict[str, Any], Any]) -> None:
    page, report, memstats = real
    opened(window, page)
    figures = window.run(
        "return [...document.querySelectorAll('[data-is]')].map((e) => [e.dataset.is, e.value, e.innerText])"
    )
    assert len(figures) > 60
    for path, value, text in figures:
        told = at(report, path)
        assert value == ("" if told is None else str(told)), path
        assert text.strip() in (size(told), f"{told:,}" if isinstance(told, int) else "?"), path
    totals = window.run("return view.map.totals()")
    assert totals["resident"] == report["resident"]["total"]
    for row in report["kinds"]:
        assert totals["kinds"][row["kind"]] == {name: row[name] for name in ("resident", "swap", "virtual")}, row
    pages = {row["name"]: row for row in totals["pages"]}
    for name, field in STATES.items():
        assert pages[name]["bytes"] == report["heap"]["pages"][field]
        assert pages[name]["resident"] == report["heap"]["resident"][field]
    assert pages["not_grown"]["resident"] == report["heap"]["resident"]["outside"]
    for row in report["spans"]:
        told = totals["classes"][str(row["span_class"])]
        assert told == {name: row[name] for name in ("spans", "pages", "objects", "capacity")}
    # And what the program says of itself.
    assert pages["in_use"]["bytes"] == memstats["HeapInuse"]
    assert pages["scavenged"]["bytes"] == memstats["HeapReleased"]
    assert window.complaints() == window.requests() == []


def test_slots_that_hold_objects_are_as_many_as_the_span_has(window: Browser, real: tuple[Path, Any, Any]) -> None:
    opened(window, real[0])
    found = window.run(
        "const map = view.map; const found = [];"
        "for (let span = 0; span < map.spans && found.length < 300; span++) {"
        "  if (!map.span_slots[span]) continue;"
        "  let used = 0; for (let at = 0; at < map.span_capacity[span]; at++) used += map.isUsed(span, at);"
        "  found.push([used, map.span_objects[span]]);"
        "} return found;"
    )
    assert len(found) > 20
    assert all(used == objects for used, objects in found)


def test_a_large_object_is_shown_where_it_is(window: Browser, real: tuple[Path, dict[str, Any], Any]) -> None:
    page, report, _ = real
    opened(window, page)
    largest = report["heap"]["large_objects"]["largest"][0]
    window.element("#largest button").click()
    assert window.run("return view.place.level") == "chunk"
    told = window.text("#told")
    assert told.startswith(f"{largest['address']:#x}: in use")
    assert f"a large object of {size(largest['size'])}" in told


def test_the_areas_of_the_treemap_are_in_proportion_and_sum_to_rss(
    window: Browser, real: tuple[Path, Any, Any]
) -> None:
    page, report, _ = real
    opened(window, page)
    leaves = window.run("return d3.selectAll('#tree g').data().map((d) => [d.value, (d.x1 - d.x0) * (d.y1 - d.y0)])")
    total = report["resident"]["total"]
    assert sum(value for value, _ in leaves) == total
    whole = sum(area for _, area in leaves)
    for value, area in leaves:
        assert area / whole == pytest.approx(value / total, rel=0.001, abs=1e-6)
    assert window.text("#tree-sum") == size(total)


def test_a_click_goes_in_and_escape_goes_out(window: Browser, real: tuple[Path, Any, Any]) -> None:
    opened(window, real[0])
    click(window, "view.layout.items.find((item) => item.kind === 'arena')")
    assert window.run("return view.place.level") == "arena"
    assert window.text("#told").startswith("Arena 0x")
    click(window, f"({{kind: 'page', at: view.map.span_first[{SLOTTED}]}})")
    assert window.run("return view.place.level") == "chunk"
    click(window, "view.cursor")
    assert window.run("return view.place.level") == "span"
    capacity, objects = window.run(
        "return [view.map.span_capacity[view.place.span], view.map.span_objects[view.place.span]]"
    )
    assert f"{objects:,} of {capacity:,} slots hold objects" in window.text("#told")
    window.run("view.canvas.focus()")
    for level in ("chunk", "arena", "space", "space"):
        window.press("ESCAPE")
        assert window.run("return view.place.level") == level
    assert window.complaints() == []


def test_the_keyboard_alone_does(window: Browser, real: tuple[Path, Any, Any]) -> None:
    opened(window, real[0])
    window.run("document.getElementById('search').focus()")
    window.press("TAB")
    assert window.run("return document.activeElement.id") == "map"
    assert window.text("#told").startswith("Arena 0x")
    window.press("ENTER", "ARROW_RIGHT", "ARROW_DOWN")
    first, cursor, columns = window.run("return [view.layout.firstPage, view.cursor.at, view.layout.columns]")
    assert cursor == first + 1 + columns
    told = window.text("#told")
    assert told.startswith(window.run("return address(view.map.addressOf(view.cursor.at))"))
    window.press("ENTER")
    assert window.run("return view.place.level") == "chunk"


def test_an_address_is_found(window: Browser, tmp_path: Path) -> None:
    shown(window, seen(), tmp_path)
    window.press("/")
    box = window.element("#search")
    box.send_keys(f"{HEAP + 3 * 8192 + 17:#x}")
    window.press("ENTER")
    assert window.run("return [view.place.level, view.cursor.at]") == ["chunk", 3]
    assert window.text("#told").startswith(f"{HEAP + 3 * 8192:#x}: goroutine stack")
    box.clear()
    box.send_keys("0x400000")
    assert "/srv/program" in window.text("#told")
    box.clear()
    box.send_keys("0x1000")
    assert window.text("#found") == "nothing is mapped there"
    assert window.complaints() == []


def test_a_size_is_found_with_all_its_spans(window: Browser, real: tuple[Path, dict[str, Any], Any]) -> None:
    page, report, _ = real
    opened(window, page)
    rows = [row for row in report["spans"] if row["object_size"] == 48]
    spans, pages = sum(row["spans"] for row in rows), sum(row["pages"] for row in rows)
    assert spans > 1
    window.element("#search").send_keys("48 B")
    assert window.text("#found") == f"{spans:,} spans, {size(pages * 8192)}"
    window.press("ENTER")
    assert "(48 B, with" in window.text("#told")
    window.press("ESCAPE")
    assert window.text("#found") == ""


def picture(window: Browser) -> str:
    return str(window.run("return view.canvas.toDataURL()"))


def test_hue_is_the_state_and_strength_is_residency(window: Browser, tmp_path: Path) -> None:
    shown(window, seen(), tmp_path)
    click(window, "view.layout.items.find((item) => item.kind === 'arena')")
    colours = window.run(
        COLOUR + "return {used: colour(0), stack: colour(3), pale: colour(400), free: colour(15), "
        "scavenged: colour(22), palette}"
    )
    palette = colours["palette"]
    assert colours["used"] == palette["in_use"]
    assert colours["stack"] == palette["stack"]
    assert colours["free"] == palette["free"]
    assert colours["pale"] not in (palette["free"], palette["card"])  # free, and not in RAM
    assert colours["scavenged"] not in (palette["scavenged"], palette["contradiction"])


def test_filters_leave_only_what_is_asked_for(window: Browser, real: tuple[Path, Any, Any]) -> None:
    opened(window, real[0])
    everything = picture(window)
    window.choose("#filter", "only what is resident")
    resident = picture(window)
    window.choose("#filter", "only holes")
    holes = picture(window)
    assert everything != resident != holes != everything
    window.choose("#filter", "everything")
    assert picture(window) == everything


def test_a_heap_of_10_gb_opens(window: Browser, tmp_path: Path) -> None:
    page = shown(window, large(), tmp_path)
    assert page.stat().st_size < 5_000_000
    assert window.run("return view.map.pages.length") == 1_310_720
    click(window, "view.layout.items[77]")
    assert window.run("return view.place.level") == "arena"
    assert window.complaints() == []


def test_names_that_are_markup_and_a_million_mappings_do_nothing(window: Browser, tmp_path: Path) -> None:
    shown(window, hostile(), tmp_path)
    assert window.run("return view.map.areas") == 1_000_000
    assert window.run("return view.layout.items.length") < 2500
    assert window.run("return document.querySelectorAll('b:not(details b), [onclick], img').length") == 0
    assert window.run("return document.querySelectorAll('script:not([type])').length") == 2
    window.element("#search").send_keys("alert(1)")
    assert "areas" in window.text("#found")
    assert window.complaints() == window.requests() == []


def test_the_page_cannot_ask_for_anything(window: Browser, tmp_path: Path) -> None:
    shown(window, seen(), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        window.run(f"fetch('http://127.0.0.1:{server.getsockname()[1]}/').catch(() => 0)")
        with pytest.raises(TimeoutError):
            server.accept()
    assert any("Content Security Policy" in said for said in window.complaints())


def test_the_report_can_be_saved_as_it_is(window: Browser, real: tuple[Path, dict[str, Any], Any]) -> None:
    page, report, _ = real
    opened(window, page)
    saved = json.loads(
        window.run_async(
            "HTMLAnchorElement.prototype.click = () => {};"
            "URL.createObjectURL = (blob) => { blob.text().then(done); return '#'; };"
            "document.getElementById('save').click();"
        )
    )
    assert list(saved) == list(report)
    for still in ("kinds", "spans", "span_states", "virtual", "structure", "thread_stacks"):
        assert saved[still] == report[still]


def moments() -> tuple[Report, Picture]:
    """Three looks: at first little is in RAM, then much, at the end something between."""
    few, many = [(0, 6, PRESENT)], [(0, 30, PRESENT), (40, 10, PRESENT)]
    return seen(*(with_residency(looks.look(), ranges) for ranges in (few, many, [(0, 20, PRESENT)])))


def settled(window: Browser, script: str, wanted: object) -> None:
    for _ in range(200):
        if (found := window.run(script)) == wanted:
            return
        time.sleep(0.02)
    raise AssertionError(f"{script}: {found!r} is not {wanted!r}")


def test_the_slider_replays_the_map_and_the_peak_is_found(window: Browser, tmp_path: Path) -> None:
    report, picture = moments()
    shown(window, (report, picture), tmp_path)
    assert report.resident is not None
    resident = [6, 40, 20]
    assert window.run("return [moments.at, view.map.totals().resident]") == [2, 20 * OS_PAGE]
    assert report.resident.total == 20 * OS_PAGE
    for at, pages in enumerate(resident):
        window.run(
            "const slider = document.getElementById('moment'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'))",
            at,
        )
        settled(window, "return view.map.totals().resident", pages * OS_PAGE)
        assert f"{at + 1} of 3: {at + 1}.00 s, RSS {size(pages * OS_PAGE)}" in window.text("#moment-told")
    window.element("#peak").click()
    settled(window, "return view.map.totals().resident", 40 * OS_PAGE)
    assert window.complaints() == window.requests() == []


def test_a_difference_of_two_moments_has_every_page_that_changed(window: Browser, tmp_path: Path) -> None:
    shown(window, moments(), tmp_path)
    click(window, "view.layout.items.find((item) => item.kind === 'arena')")
    before = picture(window)
    window.choose("#against", f"2.00 s, RSS {size(40 * OS_PAGE)}")
    settled(window, "return view.changes && view.changes.sums", {"grew": 0, "shrank": 20 * OS_PAGE, "otherwise": 0})
    assert window.run("return view.place.level") == "arena"
    assert f"{size(20 * OS_PAGE)} less" in window.text("#moment-told")
    assert window.run(COLOUR + "return [colour(2), colour(12), palette.in_use]")[1:] == [
        window.run("return palette.in_use")] * 2  # fmt: skip
    window.choose("#against", "nothing")
    settled(window, "return view.changes", None)
    assert picture(window) == before


def test_the_time_line_has_every_figure_where_it_belongs(window: Browser, tmp_path: Path) -> None:
    report, pictured = moments()
    cycles = [GcCycleRow(0.5, 0.75, 50 * OS_PAGE, 20 * OS_PAGE, 10 * OS_PAGE, 0.2)]
    shown(window, (replace(report, gc_cycles=cycles), pictured), tmp_path)
    drawn = window.run(
        "const dots = (n) => [...document.querySelectorAll(`#course > div:nth-child(${n}) circle.look`)]"
        ".map((dot) => [dot.cx.baseVal.value, dot.cy.baseVal.value]);"
        "const band = document.querySelector('#course .cycle');"
        "return {rss: dots(1).slice(0, 3), band: [band.x.baseVal.value, band.width.baseVal.value],"
        " space: dots(2).length}"
    )
    (first, low), (second, high), (third, middle) = drawn["rss"]
    assert second - first == pytest.approx(third - second, abs=0.5)
    assert (low - middle) / (low - high) == pytest.approx((20 - 6) / (40 - 6), abs=0.02)
    left, width = drawn["band"]
    assert (left - first) / (second - first) == pytest.approx(-0.5, abs=0.02)
    assert width / (second - first) == pytest.approx(0.25, abs=0.02)
    assert drawn["space"] == 9
    rows = window.run("return document.querySelectorAll('[aria-label=\"Memory over time\"] tbody tr').length")
    assert rows == 3
    window.run("document.querySelector('#course svg').dispatchEvent(new MouseEvent('click', {clientX: 0, clientY: 0}))")
    settled(window, "return moments.at", 0)
    assert window.complaints() == []


def test_a_heap_profile_is_a_flame_graph_in_the_page(window: Browser, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    with profiled(build("heapprofile", "1.27.3"), "-rate", 512) as process:
        assert gomem("snapshot", process.pid, "--format", "html", "-o", page).status == 0
        own = read_profile(str(process.writes(tmp_path)))
    in_use = [each.type for each in own.sample_types].index("inuse_space")
    whole = sum(sample.values[in_use] for sample in own.samples)
    opened(window, page)
    assert window.text("#flame-sum") == f"inuse_space: {size(whole)}"
    window.element("#flame-search").send_keys("main.")
    assert "frame" in window.text("#flame-found")
    window.run("view.canvas.focus()")
    window.press("/")
    assert window.run("return document.activeElement.id") == "search"
    assert window.complaints() == window.requests() == []


def test_what_was_watched_has_who_made_it(window: Browser, real: tuple[Path, dict[str, Any], Any]) -> None:
    page, report, _ = real
    opened(window, watched(page))
    assert window.run("return content.maps.length") >= 2
    assert window.run("return content.course.length") > window.run("return content.maps.length")
    assert window.run("return view.map.totals().resident === report.resident.total")
    holders = window.run("return content.holders")
    total = report["resident"]["total"]
    assert sum(resident for _, resident, _ in holders) == window.run("return report.resident.total")
    assert abs(sum(resident for _, resident, _ in holders) - total) < total / 50
    assert any(path[-1].startswith("main.") for path, _, _ in holders)
    assert "main." in window.text("section[aria-labelledby=goroutines-title] tbody tr")
    assert window.complaints() == window.requests() == []


def test_a_recording_is_shown_as_it_was(window: Browser, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    assert gomem("replay", recorded(tmp_path / "r"), "--format", "html", "-o", page).status == 0
    opened(window, page)
    report, map_of = window.run("return [report, view.map.totals()]")
    assert map_of["resident"] == report["resident"]["total"]


def test_the_last_event_at_an_address_is_told(window: Browser, tmp_path: Path) -> None:
    report, pictured = seen()
    log = [LoggedEvent(at, name, HEAP, 4 << 20, by, []) for at, name, by in ((1.0, "map", "a.b"), (2.5, "grow", "c.d"))]
    shown(window, (replace(report, event_log=log), pictured), tmp_path)
    window.element("#search").send_keys(f"{HEAP + 8192 * 100:#x}")
    assert window.text("#told").endswith("Last event: grow of 4.00 MiB at 2.500 s by c.d.")
    window.element("#search").clear()
    window.element("#search").send_keys(f"{HEAP + 8192 * 600:#x}")
    assert "Last event" not in window.text("#told")


def test_on_paper_it_is_light_and_every_finding_is_open(window: Browser, real: tuple[Path, Any, Any]) -> None:
    opened(window, real[0], dark=True)
    window.media("print", dark=True)
    ground = window.run(
        "window.dispatchEvent(new Event('beforeprint'));"
        "return [getComputedStyle(document.body).backgroundColor, palette.ground,"
        " document.querySelectorAll('.finding:not([open])').length,"
        " getComputedStyle(document.querySelector('.tools')).display]"
    )
    window.media("", dark=False)
    assert ground == ["rgb(255, 255, 255)", [255, 255, 255], 0, "none"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_serious_keeps_anybody_out(window: Browser, real: tuple[Path, Any, Any], dark: bool) -> None:
    opened(window, real[0], dark=dark)
    window.run("for (const each of document.querySelectorAll('details')) each.open = true;")
    assert keeps_out(window) == []


@pytest.mark.parametrize("width", [WIDE, PHONE], ids=["desk", "phone"])
def test_the_page_is_as_wide_as_the_window(
    window: Browser, real: tuple[Path, Any, Any], width: tuple[int, int]
) -> None:
    opened(window, real[0], width=width)
    for step in ("0", "view.enter({kind: 'arena', at: 0})", "view.enter(view.layout.first())"):
        window.run(step)
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        assert window.run("return view.canvas.getBoundingClientRect().right <= innerWidth")
