"""The program, driven by keys and mouse. To accept changed pictures, run with GOMEM_UPDATE_GOLDEN=1, and look at them.

pytest-textual-snapshot needs a pytest older than 9: the pictures are Textual's own, and are compared here.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input

from gomem.exporters.top.app import Top
from gomem.exporters.top.panel import Panel
from gomem.exporters.top.table import Table
from gomem.tracer.fleet.view import FleetView
from tests.support.samples.top import Engine, course, opened

GOLDEN = Path(__file__).parent / "golden"
SIZES = [(80, 24), (120, 40), (50, 20)]
HOSTILE = "\x1b[31mred\x1b]0;title\x07 [bold]markup[/] [@click=app.quit]x[/] :smile: \u202e\u4e2d\u6587\n\r\t\udcff\x00"

Drive = Callable[[Pilot[None], Top], Awaitable[None]]


def run(
    engine: Engine, size: tuple[int, int], drive: Drive, monkeypatch: pytest.MonkeyPatch, colours: bool = True
) -> Top:
    """Run the program headless, until all views are shown, and do with it what `drive` does."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    app = Top(engine)

    async def session() -> None:
        async with app.run_test(size=size) as pilot:
            while len(engine.views) > 1:
                app._look()
            app._look()
            await pilot.pause()
            await drive(pilot, app)

    asyncio.run(session())
    assert app.failed is None
    return app


def screen(app: Top) -> list[str]:
    """The characters that are on the screen."""
    height = app.size.height
    lines = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in line) for line in lines[:height]]


def names(app: Top) -> list[int | None]:
    return [row.pid for row in app.query_one(Table).rows]


def picture(app: Top) -> str:
    svg = app.export_screenshot(title="gomem top")
    return re.sub(r"terminal-\d+", "terminal", svg)


def looks_like(app: Top, name: str) -> None:
    golden = GOLDEN / f"{name}.svg"
    shown = picture(app)
    if os.environ.get("GOMEM_UPDATE_GOLDEN"):
        golden.write_text(shown)
    assert shown == golden.read_text(), f"it is not as in {golden}"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_table_is_as_in_the_picture(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        looks_like(app, f"table-{size[0]}x{size[1]}")

    run(Engine(course(), hidden="2 processes may not be looked at: not root"), size, drive, monkeypatch)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_an_opened_process_is_as_in_the_picture(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("P", "enter")
        await pilot.pause()
        looks_like(app, f"opened-{size[0]}x{size[1]}")

    run(Engine([opened()]), size, drive, monkeypatch)


def test_without_colours_there_are_none_and_the_map_is_in_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("P", "enter")
        await pilot.pause()
        assert any("⠀" < character <= "⣿" for line in screen(app) for character in line)
        assert app.no_color
        assert app.native_ansi_color  # then Textual's filter leaves no colour, not even greys

    run(Engine([opened()]), (80, 24), drive, monkeypatch, colours=False)


def test_keys_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        by_rss = names(app)
        await pilot.press("P")
        assert names(app) == [11, 22, 33, 44, 55, 66]
        await pilot.press("I")
        assert names(app) == [66, 55, 44, 33, 22, 11]
        await pilot.press("M")
        assert names(app) == by_rss
        await pilot.press("f6")
        await pilot.press("home", "enter")
        await pilot.pause()
        assert app.query_one(Table).sorted_by == "pid"

    run(Engine(course()), (80, 24), drive, monkeypatch)


def test_a_click_on_a_title_sorts_and_a_click_on_a_row_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(course())

    async def drive(pilot: Pilot[None], app: Top) -> None:
        await pilot.click(Table, offset=(5, 0))
        assert app.query_one(Table).sorted_by == "pid"
        await pilot.click(Table, offset=(12, 2))
        assert app.query_one(Table).row is not None
        assert app.query_one(Table).row.pid == 22  # type: ignore[union-attr]
        await pilot.click(Table, offset=(12, 2))
        await pilot.pause()
        assert engine.asked == [("open", 22)]
        assert app.query_one(Panel).display

    run(engine, (80, 24), drive, monkeypatch)


def test_a_filter_leaves_what_has_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("slash", *"shop")
        assert names(app) == [22]
        await pilot.press("enter")
        assert names(app) == [22]
        assert app.focused is app.query_one(Table)
        await pilot.press("escape")
        assert len(names(app)) == 6
        await pilot.press("slash", *"nobody")
        await pilot.pause()
        assert any("None has 'nobody' in it" in line for line in screen(app))
        await pilot.press("escape")
        assert not app.query_one("#filter", Input).display
        assert len(names(app)) == 6

    run(Engine(course()), (80, 24), drive, monkeypatch)


def test_pods_fold_and_unfold(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("f5")
        groups = list(app.query_one(Table).rows)
        assert {row.pid for row in groups} == {None}
        assert sum(row.members for row in groups) == 6
        await pilot.press("home", "enter")
        await pilot.pause()
        unfolded = app.query_one(Table).rows
        assert len(unfolded) == len(groups) + groups[0].members
        assert unfolded[1].pid is not None
        await pilot.press("t")
        assert None not in names(app)

    run(Engine(course()), (80, 24), drive, monkeypatch)


def test_a_frozen_view_stays_and_the_histories_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = course(15)
    engine = Engine([first])

    async def drive(pilot: Pilot[None], app: Top) -> None:
        before = list(app.query_one(Table).rows)
        await pilot.press("z")
        for one in rest:
            engine.views[:] = [one]
            app._look()
        assert list(app.query_one(Table).rows) == before
        assert "FROZEN" in screen(app)[0]
        await pilot.press("z")
        app._look()
        assert len(app.query_one(Table).rows[0].spark) == 15

    run(engine, (80, 24), drive, monkeypatch)


def test_every_page_of_an_opened_process_can_be_seen_and_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([opened()])

    async def drive(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("P", "enter")
        for number, said in ((2, "Findings"), (3, "GC cycle"), (4, "events since"), (5, "looked at"), (7, "RSS")):
            await pilot.press(str(number))
            await pilot.pause()
            assert any(said in line for line in screen(app)), (number, screen(app))
        await pilot.press("tab", "plus", "w", "r", "escape")
        await pilot.pause()
        assert not app.query_one(Panel).display
        assert engine.asked == [("open", 77), ("write", 77), ("record", 77), ("open", None)]

    run(engine, (80, 24), drive, monkeypatch)


@pytest.mark.parametrize("key", ["q", "f10", "ctrl+c"])
def test_it_quits(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        await pilot.press(key)
        await pilot.pause()
        assert not app.is_running or app._exit

    run(Engine(course()), (80, 24), drive, monkeypatch)


def test_help_and_menu_fit_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(pilot: Pilot[None], app: Top) -> None:
        for key in ("f1", "f6"):
            await pilot.press(key)
            await pilot.pause()
            assert len(app.screen_stack) == 2
            await pilot.press("escape")
            await pilot.pause()
            assert len(app.screen_stack) == 1

    run(Engine(course()), (50, 20), drive, monkeypatch)


def test_the_end_of_the_engine_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(course())

    async def drive(pilot: Pilot[None], app: Top) -> None:
        engine.over = True
        app._look()
        await pilot.pause()
        assert app._exit

    run(engine, (80, 24), drive, monkeypatch)


def hostile() -> FleetView:
    one = opened()
    report = one.targets[0].report
    assert report is not None
    from msgspec import structs

    process = structs.replace(report.process, exe=f"/srv/{HOSTILE}", cmdline=[HOSTILE] * 3, main_module=HOSTILE)
    findings = [structs.replace(finding, title=HOSTILE, id="a-b") for finding in report.findings]
    report = structs.replace(report, process=process, findings=findings)
    targets = (
        replace(one.targets[0], name=HOSTILE, report=report),
        replace(one.targets[1], name=HOSTILE * 50, why=HOSTILE, workload=replace(one.targets[1].workload, pod=HOSTILE)),
    )
    return replace(one, targets=targets)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_hostile_names_are_only_shown(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([hostile()], said=HOSTILE, hidden=HOSTILE)

    async def drive(pilot: Pilot[None], app: Top) -> None:
        def check() -> None:
            lines = screen(app)
            assert all(character.isprintable() for line in lines for character in line), lines
            assert {cell_len(line) for line in lines} == {size[0]}

        check()
        assert any("\\x1b[31m" in line for line in screen(app))
        await pilot.press("P", "enter")
        for number in range(1, 8):
            await pilot.press(str(number))
            await pilot.pause()
            check()
        await pilot.press("escape", "f5")
        await pilot.pause()
        check()
        assert app.is_running

    run(engine, size, drive, monkeypatch)
