"""The web page of `gomem serve` in Debian's chromium: the table, the last hour of a process, its map."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from gomem.exporters.units import size
from tests.support.axe import keeps_out
from tests.support.browser import Browser, browser
from tests.support.builds import build
from tests.support.parked import parked
from tests.support.processes import running, wait_until
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.live

HOSTILE = "<img src=x onerror=alert(1)>\\u202e\x1b[2J"
WIDE, PHONE = (1280, 900), (390, 844)
SHAPE = {"live": 40, "garbage": 0.5, "goroutines": 100, "big": 12, "bigdrop": 5, "release": True}


@dataclass(frozen=True)
class Shown:
    """What is served: a process that stands still, one that moves and has a hostile name, and what the first says."""

    served: Serving
    still: int
    moving: int
    memstats: dict[str, Any]


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    program = tmp_path_factory.mktemp("hostile") / HOSTILE.replace("/", "")
    shutil.copy(build("churn", "1.25.5"), program)
    with ExitStack() as life:
        still = life.enter_context(parked(build("parked", "1.27.3"), SHAPE))
        moving = life.enter_context(running(program, "-mb", "16", "-phase", "300ms", "-seconds", "600"))
        words = ("--pid", still.pid, "--pid", moving.pid, "--interval", "0.5", "--backend", "procfs", "--reports")
        served = life.enter_context(serving(*words))
        for pid in (still.pid, moving.pid):
            served.until(lambda pid=pid: len(course(served, pid)["times"]) > 1, "two looks")  # type: ignore[misc]
        yield Shown(served, still.pid, moving.pid, still.memstats())


def course(served: Serving, pid: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(served.get(f"/targets/{pid}/history.json"))
    except OSError:  # nothing is known yet
        return {"times": []}
    return found


def opened(window: Browser, shown: Shown, path: str, *, dark: bool = False, width: tuple[int, int] = WIDE) -> None:
    """Open a page, and wait until it has asked for what is new."""
    window.resize(*width)
    window.visit(shown.served.url + path, dark=dark)
    settled(window, "return Number(document.documentElement.dataset.asked ?? 0) > 0", True)


def settled(window: Browser, script: str, wanted: object) -> None:
    for _ in range(400):
        if (found := window.run(script)) == wanted:
            return
        time.sleep(0.05)
    raise AssertionError(f"{script}: {found!r} is not {wanted!r}; {window.complaints()}")


def pids(window: Browser) -> list[int]:
    return [int(name[1:]) for name in window.run("return [...place('processes').tBodies[0].rows].map((r) => r.id)")]


def only_ours(window: Browser, shown: Shown) -> None:
    assert window.complaints() == []
    assert [address for address in window.requests() if not address.startswith(shown.served.url)] == []


def test_every_figure_of_the_table_is_that_of_the_json_and_of_the_process(window: Browser, shown: Shown) -> None:
    opened(window, shown, "/")
    window.run("place('pause').click()")
    told, cells, sums = window.run(
        "return [told, Object.fromEntries([...place('processes').tBodies[0].rows].map("
        "(row) => [row.id, [...row.cells].slice(2, 8).map((cell) => cell.innerText)])),"
        "Object.fromEntries([...document.querySelectorAll('[data-sum]')].map("
        "(sum) => [sum.dataset.sum, [sum.value, sum.innerText]]))]"
    )
    rows = {row["pid"]: row["figures"] for row in told["rows"]}
    assert set(rows) == {shown.still, shown.moving}
    for row in told["rows"]:
        names = ("rss", "live", "free", "stacks", "outside", "file")
        assert cells[f"p{row['pid']}"] == [size(row["figures"][name]) for name in names]
        assert sum(bytes for _, _, bytes in row["parts"]) == row["figures"]["rss"]
    for name, (value, text) in sums.items():
        whole = sum(figures[name] for figures in rows.values())
        assert (value, text) == (str(whole), size(whole))
    report = json.loads(shown.served.get(f"/targets/{shown.still}/report.json"))
    assert rows[shown.still]["live"] == report["heap"]["live"]
    assert report["memstats"]["HeapInuse"] == shown.memstats["HeapInuse"]
    only_ours(window, shown)


def test_bars_are_on_one_scale(window: Browser, shown: Shown) -> None:
    opened(window, shown, "/")
    window.run("place('pause').click()")
    told, ends = window.run(
        "return [told, Object.fromEntries([...document.querySelectorAll('svg.bar')].map((bar) =>"
        "[bar.closest('tr').id, (bar.lastChild.getBoundingClientRect().right - bar.getBoundingClientRect().left)"
        " / bar.getBoundingClientRect().width]))]"
    )
    rss = {row["pid"]: row["figures"]["rss"] for row in told["rows"]}
    for pid, total in rss.items():
        assert ends[f"p{pid}"] == pytest.approx(total / max(rss.values()), abs=0.01)


def test_a_click_sorts_and_words_filter_and_both_stay_when_new_figures_come(window: Browser, shown: Shown) -> None:
    opened(window, shown, "/")
    window.element("[data-column=stacks] a").click()  # a hundred goroutines against one
    assert pids(window) == [shown.still, shown.moving]
    assert window.element("[data-column=stacks]").get_attribute("aria-sort") == "descending"
    window.element("[data-column=stacks] a").click()
    assert pids(window) == [shown.moving, shown.still]
    window.press("/", "p", "a", "r", "k")
    assert pids(window) == [shown.still]
    assert window.text("#shown") == "1 of 2"
    asked = window.run("return Number(document.documentElement.dataset.asked)")
    settled(window, f"return Number(document.documentElement.dataset.asked) > {asked}", True)
    assert pids(window) == [shown.still]
    assert window.run("return document.activeElement.id") == "filter"
    assert window.address.endswith("/?sort=stacks&filter=park")
    opened(window, shown, "/?sort=stacks&filter=park")
    assert pids(window) == [shown.still]
    only_ours(window, shown)


def test_it_goes_on_by_itself_and_rests_when_it_is_told_to(window: Browser, shown: Shown) -> None:
    opened(window, shown, "/")
    cycles = f"told.rows.find((row) => row.pid === {shown.moving}).figures.cycles"
    first = window.run(f"return {cycles}")
    settled(window, f"return {cycles} > {first}", True)
    window.element("#pause").click()
    asked = window.run("return document.documentElement.dataset.asked")
    assert window.text("#refreshed").startswith("paused since")
    time.sleep(2.5)
    assert window.run("return document.documentElement.dataset.asked") == asked


def test_a_process_has_its_last_hour_and_any_moment_of_it(window: Browser, shown: Shown) -> None:
    opened(window, shown, "/")
    window.element(f"#p{shown.moving} a").click()
    settled(window, "return document.querySelectorAll('svg.chart').length >= 4", True)
    window.run("place('pause').click()")
    at, moments = window.run("return [course.times, course.figures.rss]")
    assert len(at) >= 2
    window.run("const slider = place('moment'); slider.value = 0; slider.dispatchEvent(new Event('input'))")
    assert f"RSS {size(moments[0])}, heap in use" in window.text("#course-told")
    assert window.run("return document.querySelectorAll('line.now').length") >= 4
    window.element("#peak").click()
    assert f"RSS {size(max(moments))}, heap in use" in window.text("#course-told")
    window.run("place('moment').focus()")
    window.press("HOME")
    assert f"RSS {size(moments[0])}, heap in use" in window.text("#course-told")
    only_ours(window, shown)


def test_findings_are_told_with_what_to_do_and_figures_are_those_of_the_report(window: Browser, shown: Shown) -> None:
    opened(window, shown, f"/targets/{shown.still}")
    report = json.loads(shown.served.get(f"/targets/{shown.still}/report.json"))
    assert report["findings"]
    words = window.text("[data-part=findings]").lower()
    for finding in report["findings"]:
        for told in (finding["severity"], finding["title"], finding["action"]):
            assert " ".join(told.split()).lower() in words
    figures = window.run(
        "return [...document.querySelectorAll('[data-is]')].map((e) => [e.dataset.is, e.value, e.innerText])"
    )
    assert len(figures) >= 5
    for path, value, text in figures:
        told = report
        for step in path.split("."):
            told = told[step]
        assert (value, text) == (str(told), size(told)), path


def test_the_map_is_taken_when_it_is_asked_for(window: Browser, shown: Shown) -> None:
    opened(window, shown, f"/targets/{shown.still}")
    window.element("nav a[href$=map]").click()
    settled(window, "return document.documentElement.dataset.ready !== undefined", True)
    report, totals = window.run("return [report, view.map.totals()]")
    assert report["process"]["pid"] == shown.still
    assert totals["resident"] == report["resident"]["total"]
    pages = {row["name"]: row["bytes"] for row in totals["pages"]}
    assert pages["in_use"] == shown.memstats["HeapInuse"]
    only_ours(window, shown)


def test_it_answers_without_scripts(window: Browser, shown: Shown) -> None:
    window.scripts(allowed=False)
    try:
        window.visit(f"{shown.served.url}/")
        window.element("#filter").send_keys("parked")
        window.element("#apply").click()
        wait_until(lambda: "filter=parked" in window.address, "the answer to the form")
        assert window.count("#processes tbody tr") == 1
        window.element("[data-column=live] a").click()
        assert window.element("[data-column=live]").get_attribute("aria-sort") == "descending"
        window.element(f"#p{shown.still} a").click()
        assert "Findings" in window.text("main")
        window.element("#course-table summary").click()
        assert size(json.loads(shown.served.get(f"/targets/{shown.still}/report.json"))["heap"]["live"]) in window.text(
            "#course-table tbody"
        )
    finally:
        window.scripts(allowed=True)


def test_a_hostile_name_is_words(window: Browser, shown: Shown) -> None:
    for path in ("/", f"/targets/{shown.moving}"):
        opened(window, shown, path)
        assert "<img src=x onerror=alert(1)>" in window.text("body")
        assert window.run("return document.querySelectorAll('img, [onerror]').length") == 0
        only_ours(window, shown)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_serious_keeps_anybody_out(window: Browser, shown: Shown, dark: bool) -> None:
    for path in ("/", f"/targets/{shown.still}"):
        opened(window, shown, path, dark=dark)
        window.run("for (const each of document.querySelectorAll('details')) each.open = true;")
        assert keeps_out(window) == []


@pytest.mark.parametrize("width", [WIDE, PHONE], ids=["desk", "phone"])
def test_pages_are_as_wide_as_the_window(window: Browser, shown: Shown, width: tuple[int, int]) -> None:
    for path in ("/", f"/targets/{shown.moving}"):
        opened(window, shown, path, width=width)
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
