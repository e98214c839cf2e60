"""The flame graph in Debian's chromium: every figure is the profile's, and nothing leaves the page."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.flamegraph.page import flame_graph
from gomem.exporters.pprof.decode import read_profile
from gomem.exporters.profile.difference import difference
from gomem.exporters.units import clean, size
from gomem.tracer.report.profile import Profile
from tests.support.browser import Browser, browser
from tests.support.builds import build
from tests.support.npm import packed_file
from tests.support.pprof import written_by_go
from tests.support.samples.profiles import MARKUP, heap, hostile

pytestmark = pytest.mark.live

Stack = tuple[str, ...]
VENDOR = Path(__file__).parents[3] / "exporters/vendor"
SPACE = 3
BEFORE = heap(("main;work;make", 3, 3000), ("main;gone", 1, 1000))
AFTER = heap(("main;work;make", 5, 5000), ("main;new", 2, 200))

# Each frame that is drawn: the names that lead to it, what its tooltip says, where it is, and its colours.
FRAMES = """
return d3.selectAll("#chart g.frame").nodes().map((shape) => {
  const node = d3.select(shape).datum();
  const box = shape.querySelector("rect").getBoundingClientRect();
  return {
    stack: node.ancestors().reverse().slice(1).map((each) => each.data.name),
    title: shape.querySelector("title").textContent,
    left: box.left, width: box.width,
    fill: getComputedStyle(shape.querySelector("rect")).fill,
    label: shape.querySelector("div").textContent,
    ink: getComputedStyle(shape.querySelector("div")).color,
    highlight: !!node.highlight,
  };
});
"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = written_by_go(build("profiles", "1.27.3"), tmp_path_factory.mktemp("profiles"))
    return {file.name.removesuffix(".pb.gz"): file for file in files}


def opened(window: Browser, profile: Profile, directory: Path, *, dark: bool = False, index: int = SPACE) -> None:
    page = directory / "page.html"
    page.write_text(flame_graph(profile, index))
    window.open(page, dark=dark)


def frames(window: Browser) -> dict[Stack, dict[str, Any]]:
    """The frames that are drawn, by the functions that lead to them; two of the same are a mistake."""
    drawn = settled(window)
    by_stack = {tuple(frame["stack"]): frame for frame in drawn}
    assert len(by_stack) == len(drawn)
    return by_stack


def settled(window: Browser) -> list[dict[str, Any]]:
    """What is drawn when nothing moves any more."""
    drawn: list[dict[str, Any]] = []
    for _ in range(100):
        before, drawn = drawn, window.run(FRAMES)
        if drawn == before:
            return drawn
        time.sleep(0.03)
    raise AssertionError("the graph does not come to rest")


def truth(profile: Profile, index: int) -> dict[Stack, int]:
    """The value of each frame, added up from the samples; inlined functions are told from others."""
    sums: Counter[Stack] = Counter()
    for sample in profile.samples:
        names = [line.function for at in sample.stack for line in profile.locations[at].lines]
        for depth in range(len(names) + 1):
            sums[tuple(reversed(names[len(names) - depth :]))] += sample.values[index]
    return sums


def test_every_frame_has_the_value_of_the_profile(window: Browser, written: dict[str, Path], tmp_path: Path) -> None:
    profile = read_profile(str(written["heap.after"]))
    opened(window, profile, tmp_path)
    for index, of in enumerate(profile.sample_types):
        window.choose("#type", of.type)
        known, drawn = truth(profile, index), frames(window)
        whole, (left, width) = known[()], (drawn[()]["left"], drawn[()]["width"])
        assert set(drawn) <= set(known)
        for stack, value in known.items():
            if value * width < 0.6 * whole:
                continue  # narrower than half a pixel
            frame = drawn[stack]
            shown = size(value) if of.unit == "bytes" else f"{value:,}"
            assert f": {shown}, {100 * value / whole:.2f}% of all" in frame["title"]
            assert frame["width"] == pytest.approx(width * value / whole, abs=0.1)
            assert left - 0.1 <= frame["left"] <= left + width
        assert (size(whole) if of.unit == "bytes" else f"{whole:,}") in window.text("#sum")
    assert len(drawn) > 15
    assert window.complaints() == window.requests() == []


def test_a_difference_shows_what_was_what_is_and_what_changed(window: Browser, tmp_path: Path) -> None:
    opened(window, difference(BEFORE, AFTER), tmp_path)
    assert window.text("#sum") == f"inuse_space: {size(4000)} before, {size(5200)} after: +{size(1200)}"
    drawn = frames(window)
    assert ("main", "gone") not in drawn
    assert drawn["main", "work", "make"]["title"] == (
        f"make: {size(3000)} before, {size(5000)} after: +{size(2000)}, 50.00% of all before"
    )
    assert drawn["main", "new"]["width"] == pytest.approx(drawn[()]["width"] * 200 / 5200, abs=0.1)
    window.choose("#show", "before, coloured by the change")
    drawn = frames(window)
    assert ("main", "new") not in drawn
    assert f"-{size(1000)}, -25.00% of all before" in drawn["main", "gone"]["title"]
    window.choose("#show", "the change alone")
    drawn = frames(window)
    assert drawn["main", "gone"]["width"] == pytest.approx(drawn[()]["width"] * 1000 / 3200, abs=0.1)
    assert drawn["main", "work"]["width"] == pytest.approx(drawn[()]["width"] * 2000 / 3200, abs=0.1)
    assert len({drawn["main", "gone"]["fill"], drawn["main", "work"]["fill"], drawn[()]["fill"]}) == 3
    assert window.complaints() == []


def test_a_name_is_found_and_what_it_holds_is_told(window: Browser, tmp_path: Path) -> None:
    opened(window, heap(("main;work;worker", 1, 300), ("main;make", 1, 100)), tmp_path)
    window.press("/")
    window.press("W", "O", "R", "K")
    assert {stack for stack, frame in frames(window).items() if frame["highlight"]} == {
        ("main", "work"), ("main", "work", "worker")}  # fmt: skip
    assert window.text("#found") == "2 frames, 300 B, 75.00%"
    window.press("ESCAPE")
    assert window.text("#found") == ""
    assert not any(frame["highlight"] for frame in frames(window).values())
    window.element("#search").send_keys("(*[")  # no regular expression
    assert window.text("#found") == "0 frames, 0 B, 0.00%"
    assert window.complaints() == []


def test_a_click_zooms_and_escape_shows_all_again(window: Browser, tmp_path: Path) -> None:
    opened(window, AFTER, tmp_path)
    whole = frames(window)
    window.run(
        "d3.selectAll('#chart g.frame').filter((d) => d.data.name === 'new').node()"
        ".dispatchEvent(new MouseEvent('click'))"
    )
    zoomed = frames(window)
    assert set(zoomed) == {(), ("main",), ("main", "new")}
    assert zoomed["main", "new"]["width"] == pytest.approx(whole[()]["width"], abs=0.1)
    window.press("ESCAPE")
    assert {stack: frame["width"] for stack, frame in frames(window).items()} == {
        stack: frame["width"] for stack, frame in whole.items()}  # fmt: skip


def test_the_keyboard_alone_does(window: Browser, tmp_path: Path) -> None:
    opened(window, AFTER, tmp_path)
    window.press("TAB", "TAB", "TAB", "TAB")
    assert window.text("#told").startswith("all: ")
    window.press("ARROW_DOWN", "ARROW_DOWN", "ARROW_RIGHT")
    assert window.text("#told").startswith("new: 200 B")
    window.press("ARROW_RIGHT", "ARROW_LEFT")
    assert window.text("#told").startswith("work: ")
    window.press("ENTER")
    assert set(frames(window)) == {(), ("main",), ("main", "work"), ("main", "work", "make")}
    window.press("ARROW_DOWN")
    assert window.text("#told").startswith("make: ")
    window.press("ESCAPE")
    assert len(frames(window)) == 5


def test_a_label_leaves_the_path_of_the_package_out(window: Browser, tmp_path: Path) -> None:
    names = ("net/http.(*conn).serve", "example.org/a/b.F[example.org/c/d.T]", "main.main", "[lib.so]")
    opened(window, heap(*[(name, 1, 1) for name in names]), tmp_path)
    labels = {stack[-1]: frame["label"] for stack, frame in frames(window).items() if stack}
    assert labels == dict(zip(names, ("http.(*conn).serve", "b.F[example.org/c/d.T]", *names[2:]), strict=True))
    window.element("#search").send_keys("net/http")
    assert window.text("#found").startswith("1 frame, ")


def test_names_that_are_markup_are_shown_and_do_nothing(window: Browser, tmp_path: Path) -> None:
    opened(window, hostile(), tmp_path)
    names = {stack[-1] for stack in frames(window) if stack}
    assert clean(MARKUP.replace("|", ";"), 500) in names
    assert window.run("return document.querySelectorAll('b, script:not([type])').length") == 3
    assert window.complaints() == window.requests() == []


@pytest.mark.parametrize(
    "way",
    [
        "fetch('{}')",
        "document.body.append(Object.assign(new Image(), {{src: '{}'}}))",
        "document.head.append(Object.assign(document.createElement('script'), {{src: '{}'}}))",
        "navigator.sendBeacon('{}')",
        "new WebSocket('{}'.replace('http', 'ws'))",
    ],
)
def test_the_page_cannot_ask_for_anything(window: Browser, tmp_path: Path, way: str) -> None:
    opened(window, AFTER, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        window.run("try {" + way.format(f"http://127.0.0.1:{server.getsockname()[1]}/") + "} catch {}")
        with pytest.raises(TimeoutError):
            server.accept()
    assert any("Content Security Policy" in said for said in window.complaints())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_label_can_be_read(window: Browser, written: dict[str, Path], tmp_path: Path, dark: bool) -> None:
    before, after = (read_profile(str(written[f"heap.{when}"])) for when in ("before", "after"))
    grounds = set()
    for profile in (after, difference(before, after)):
        opened(window, profile, tmp_path, dark=dark)
        window.element("#search").send_keys("grow")
        grounds.add(window.run("return getComputedStyle(document.body).backgroundColor"))
        for frame in frames(window).values():
            assert contrast(frame["fill"], frame["ink"]) >= 4.5, frame
    (ground,) = grounds
    assert (luminance(ground) < 0.1) == dark


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(1, 2, 3)`."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_stacks_without_end_are_cut_and_it_is_told(window: Browser, tmp_path: Path) -> None:
    calls = ";".join(f"f{at}" for at in range(2000))
    wide = [(f"main;g{at}", 1, at + 1) for at in range(3000)]
    opened(window, heap((calls, 1, 10_000_000), *wide), tmp_path)
    assert "1 samples end in calls that are not shown" in window.text("#cut")
    assert len(frames(window)) > 500
    window.element("#search").send_keys("f")
    assert window.text("#found").startswith("500 frames, 9.54 MiB")
    assert window.complaints() == []


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("d3@7.9.2", "package/dist/d3.min.js"),
        ("d3-flame-graph@5.0.0", "package/dist/d3-flamegraph.umd.min.js"),
        ("d3-flame-graph@5.0.0", "package/LICENSE"),
    ],
)
def test_the_libraries_are_those_of_the_registry(package: str, path: str) -> None:
    name = "LICENSE.d3-flame-graph" if path.endswith("LICENSE") else path.rpartition("/")[2]
    assert (VENDOR / name).read_bytes() == packed_file(package, path)
