"""The page. To accept a changed one, run with GOMEM_UPDATE_GOLDEN=1, and look at the diff of golden/."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from gomem.exporters.json.report import render_json
from gomem.exporters.text.memory import _KIND_MEANS, _PAGE_ROWS, _STATE_MEANS
from gomem.exporters.text.report import render_for, render_text
from gomem.exporters.verdict import verdict
from gomem.tracer.report import (
    CallerMappings,
    Finding,
    KindRow,
    Limit,
    LoggedEvent,
    MappingSums,
    OomKill,
    Report,
    Transition,
    UserMappings,
)
from gomem.tracer.report.findings.rules import find
from tests.support.samples.reports import (
    SAMPLES,
    WITHOUT_A_LOOK,
    grown_and_scavenged,
    kernel_only,
    launched,
    lazily_freed,
)

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "\x1b[31mred\x1b[0m \x07 \x9b2J [bold]markup[/] :smile: \u202e\n\r\t\udcff\x00 [/nothing]"

every_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


def section(page: str, title: str) -> str:
    """The lines of a section of a plain page; `title` is a regular expression."""
    found = re.search(rf"^{title}.*?(?=\n\n|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title}"
    return found.group()


@pytest.mark.parametrize("name", [*SAMPLES, *WITHOUT_A_LOOK])
@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_page_is_as_in_the_golden_file(name: str, width: int) -> None:
    page = render_text({**SAMPLES, **WITHOUT_A_LOOK}[name](), width=width)
    golden = GOLDEN / f"{name}.{width}.txt"
    if os.environ.get("GOMEM_UPDATE_GOLDEN"):
        golden.write_text(page)
    assert page.splitlines() == golden.read_text().splitlines()


@every_sample
@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_plain_page_is_ascii_and_fits(sample: Callable[[], Report], width: int) -> None:
    page = render_text(sample(), width=width)
    assert page.isascii()
    assert all(line.isprintable() for line in page.splitlines())
    assert max(len(line) for line in page.splitlines()) <= width
    assert page.endswith("\n")


NUMBER = re.compile(r"(?:0x[0-9a-f]+|[<-]?\d[\d,.]*\d|[<-]?\d)(?: (?:[KMGTPE]i)?B\b| (?:ms|s|min|h)\b| ?%)?")


def numbers(page: str) -> set[str]:
    """The figures of a page with their units, each as it stands within a line."""
    return {found for line in page.splitlines() for found in NUMBER.findall(line)}


@every_sample
def test_no_figure_is_cut_however_narrow_the_page(sample: Callable[[], Report]) -> None:
    report = sample()
    whole = numbers(render_text(report, width=120))
    for width in (*range(40, 161), 200):  # no page is wider than 160 columns
        cut = numbers(render_text(report, width=width)) - whole
        assert not cut, f"at {width} columns"


@every_sample
@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_the_rows_mean_is_said_on_narrow_pages_too(sample: Callable[[], Report], width: int) -> None:
    remarks = (*_KIND_MEANS.values(), *_STATE_MEANS.values(), *(meaning for _, _, meaning in _PAGE_ROWS))
    wide, narrow = (" ".join(render_text(sample(), width=columns).split()) for columns in (160, width))
    assert [remark for remark in remarks if remark in wide and remark not in narrow] == []


@every_sample
def test_rss_comes_before_vsz(sample: Callable[[], Report]) -> None:
    report = replace(sample(), findings=[], ending=None, chapters=None)
    page = render_text(report)
    assert page.splitlines()[1].startswith("RSS ")
    assert page.index("\nRSS ", page.index("\n\n")) < page.index("\nVSZ ")
    assert "VSZ" not in page[: page.index("\nVSZ ")]


@every_sample
def test_terminal_page_has_colour_and_says_the_same(
    sample: Callable[[], Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    page = render_text(sample(), width=100, terminal=True, blocks=False)
    assert "\x1b[" in page
    bare = re.sub(r"\x1b\[[0-9;]*m", "", page)
    assert [line.rstrip() for line in bare.splitlines()] == render_text(sample(), width=100).splitlines()


def test_pages_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = render_text(lazily_freed())
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "40"), ("TTY_COMPATIBLE", "1"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    assert render_text(lazily_freed()) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", render_text(lazily_freed(), terminal=True))


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


COLOUR = re.compile(r"\x1b\[(?:\d+;)*3\d")
SAID_OF_COLOUR = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "COLUMNS")


@pytest.mark.parametrize(
    ("stream", "said", "coloured"),
    [
        (io.StringIO, {}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"FORCE_COLOR": "0"}, False),
        (io.StringIO, {"CLICOLOR_FORCE": "1"}, True),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"CLICOLOR": "0"}, False),
        (Terminal, {"CLICOLOR": "0", "CLICOLOR_FORCE": "1"}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (Terminal, {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colours_are_as_the_environment_asks(
    stream: type[io.StringIO], said: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SAID_OF_COLOUR:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    page = render_for(lazily_freed(), stream())
    assert bool(COLOUR.search(page)) is coloured
    if stream is io.StringIO and not coloured:
        assert page == render_text(lazily_freed())


def test_last_lines_say_what_is_missing_and_only_that() -> None:
    quiet = " ".join(render_text(grown_and_scavenged()).rpartition("\n\n")[2].split())
    assert quiet == (
        "gomem: used 213 ms of CPU time and 96.0 MiB of RAM, slowed the process by less than 0.1%. No event was lost, "
        "and what the events tell agrees with what was read. The figures agree with each other to the byte."
    )
    torn = " ".join(render_text(SAMPLES["busy_and_inexact"]()).rpartition("\n\n")[2].split())
    assert "1,204 events were lost: counts of events are too low." in torn
    assert "differs from what was read by 14.0 MiB" in torn
    assert "The process moved while it was read: figures may be off by 3.00 MiB." in torn
    assert "agree" not in torn


def test_verdict_says_what_rss_is_made_of() -> None:
    assert verdict(lazily_freed()).startswith(
        "RSS 739 MiB: 512 MiB is memory the Go runtime already gave back (MADV_FREE) and the kernel may take any time"
    )
    assert verdict(lazily_freed()).endswith("the live heap is 17.0 MiB.")
    assert "no Go runtime was found" in verdict(kernel_only())


def test_rss_table_shows_every_byte_once() -> None:
    rows = section(render_text(lazily_freed()), r"RSS \S+ MiB  ").splitlines()
    assert any("2 more kinds" in row for row in rows)
    assert rows[-1].split()[:3] == ["sum", "739", "MiB"]


def test_who_mapped_what_is_shown_where_it_is_large_and_was_watched() -> None:
    report = grown_and_scavenged()
    large, rest = MappingSums(16, 80 << 30, 79 << 30, 1 << 30, 0), MappingSums(2, 1 << 20, 0, 0, 0)
    rows = [CallerMappings("main.(*Memory).Reserve", [], large), CallerMappings(None, [], rest)]
    report = replace(
        report, user_mappings=UserMappings(MappingSums(20, 82 << 30, 79 << 30, 1 << 30, 0), rows, rest, [])
    )
    shown = section(render_text(report), "Mappings of the program's own").splitlines()
    assert shown[1].split() == ["mapped", "by", "in", "RAM", "mapped", "no", "access", "mappings", "swap"]
    assert re.search(r"main\.\(\*Memory\)\.Reserve +1\.00 GiB +80\.0 GiB +79\.0 GiB +16", shown[2])
    assert [line.strip().split("  ")[0] for line in shown[3:5]] == ["code without a name", "(before it was watched)"]
    unwatched = replace(report, user_mappings=UserMappings(large, None, None, []))
    assert "Mappings of the program" not in render_text(unwatched)


def test_swap_column_appears_only_with_swap() -> None:
    report = lazily_freed()
    assert report.kinds is not None
    assert "swap" not in section(render_text(report), r"RSS \S+ MiB  ")
    swapped = [replace(report.kinds[0], swap=5 << 20), *report.kinds[1:]]
    page = section(render_text(replace(report, kinds=swapped)), r"RSS \S+ MiB  ")
    assert "swap" in page.splitlines()[1]
    assert page.count("5.00 MiB") == 2


def test_long_event_log_is_cut_and_the_rest_counted() -> None:
    log = section(render_text(launched()), "First events").splitlines()
    assert len(log) == 1 + 1 + 15 + 1
    assert log[-1].strip() == "and 5 more, of which 3 were not kept"


def test_nothing_that_happened_is_said_so() -> None:
    page = render_text(replace(grown_and_scavenged(), events={}, madvise={}, transitions=[]))
    assert "no system call or runtime event" in page


def hostile(said: str = HOSTILE) -> Report:
    report = launched()
    assert report.kinds is not None
    cgroup = grown_and_scavenged().process.cgroup
    assert cgroup is not None
    return replace(
        report,
        backend_reason=said,
        process=replace(
            report.process, exe=f"/tmp/{said}", cmdline=[said], go_version=said, main_module=said,
            pod=said, container_id=said, cgroup=replace(cgroup, path=said)),
        kinds=[*report.kinds, KindRow(said, 1, 4096, 0, 0, 0, 4096, 0)],
        transitions=[Transition("None", "Ready", "alloc", said, 1, 1)],
        events={said: next(iter((report.events or {}).values())), "madvise": (report.events or {})["mmap"]},
        madvise={said: (report.events or {})["mmap"]},
        event_log=[LoggedEvent(0.1, said, 1, 1, said, [said])],
        findings=[Finding("x", "info", said, said, {}, said)],
        limits=[Limit("some-limit", said, said, said)],
    )  # fmt: skip


@pytest.mark.parametrize("width", [60, 160])
def test_words_of_the_target_cannot_reach_the_terminal(width: int) -> None:
    page = render_text(hostile(), width=width)
    assert all(line.isprintable() for line in page.splitlines())
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", render_text(hostile(), width=width, terminal=True))
    assert all(line.isprintable() for line in coloured.splitlines())
    assert "[bold]markup[/]" in page
    assert ":smile:" in page
    assert "\\x1b[31mred" in page


@given(st.text(max_size=40), st.integers(1, 3000))
@settings(max_examples=30)
def test_whatever_a_target_is_called_the_page_is_printable_and_bounded(name: str, times: int) -> None:
    page = render_text(hostile(name * times), width=100)
    assert all(line.isprintable() for line in page.splitlines())
    assert len(page) < 60_000


def test_a_hostile_length_does_not_flood_the_page() -> None:
    report = launched()
    long = "x" * 1_000_000
    process = replace(report.process, exe="/" + long, main_module=long, go_version=long, pod=long)
    transitions = [Transition("None", "Ready", "alloc", long, 1, 1)]
    assert len(render_text(replace(report, process=process, transitions=transitions))) < 20_000


def holes(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all fields of a report that its types allow to be None, and of its lists and dictionaries."""
    found: list[tuple[str, ...]] = []
    for name, kind in get_type_hints(type(value)).items():
        here = (*path, name)
        if type(None) in get_args(kind) or get_origin(kind) in (list, dict):
            found.append(here)
        inner = getattr(value, name)
        if isinstance(inner, Struct):
            found += holes(inner, here)
    return found


def punched(value: Any, path: tuple[str, ...]) -> Any:
    inner = getattr(value, path[0], None)
    if len(path) > 1:
        return value if inner is None else replace(value, **{path[0]: punched(inner, path[1:])})
    allows_none = type(None) in get_args(get_type_hints(type(value))[path[0]])
    empty: object = None if allows_none else [] if isinstance(inner, list) else {}
    return replace(value, **{path[0]: empty})


HOLES = sorted({path for sample in SAMPLES.values() for path in holes(sample())})


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.sets(st.sampled_from(HOLES), max_size=12), st.booleans())
def test_missing_parts_never_break_a_renderer_or_a_rule(
    name: str, missing: set[tuple[str, ...]], terminal: bool
) -> None:
    report = SAMPLES[name]()
    for path in sorted(missing):
        report = punched(report, path)
    report = replace(report, findings=find(report))
    page = render_text(report, width=80, terminal=terminal)
    assert verdict(report) in " ".join(re.sub(r"\x1b\[[0-9;]*m", "", page).split())
    assert "None" not in re.sub(r"None to|to None", "", page)
    render_json(report)


@pytest.mark.parametrize("path", HOLES, ids=".".join)
def test_each_missing_part_alone_breaks_nothing(path: tuple[str, ...]) -> None:
    full = replace(grown_and_scavenged(), event_log=launched().event_log)
    report = punched(full, path)
    render_text(replace(report, findings=find(report)), width=100)


def test_missing_memstats_fields_are_unknown_and_not_zero() -> None:
    page = section(render_text(replace(lazily_freed(), memstats={"HeapInuse": 5, "Sys": None})), "MemStats")
    assert "Sys ?" in page
    assert "HeapInuse 5 B" in page


def test_how_it_ended_is_said_before_anything_else() -> None:
    page = render_text(SAMPLES["killed_for_memory"](), width=160).splitlines()
    assert page[1].startswith("Chapter 1: bash -c ulimit")
    assert page[2].startswith("Killed by SIGKILL")
    said = " ".join(page[: next(at for at, line in enumerate(page) if line.startswith("RSS "))])
    assert "cgroup /kubepods/burstable/pod4c/9f2d was at its limit of 64.0 MiB" in said
    assert "brk failed with ENOMEM" in said
    assert render_text(WITHOUT_A_LOOK["ended_early"]()).splitlines()[1].startswith("Exited with code 2; its peak RSS")


def test_what_it_did_is_below_only_where_it_was_watched() -> None:
    report = WITHOUT_A_LOOK["ended_early"]()
    assert "what it did until then is below" in render_text(report)
    page = render_text(replace(report, events=None, backend="procfs"))
    assert "It ended before its memory could be looked at." in page


def test_calls_that_failed_are_not_told_of_a_program_that_ended_well_or_long_after() -> None:
    report = SAMPLES["killed_for_memory"]()
    assert report.ending is not None
    well = replace(report, ending=replace(report.ending, exit_code=0, signal=None, oom=None))
    assert "failed with" not in render_text(well)
    late = [replace(call, seconds=10.0) for call in report.ending.failed_calls]
    assert "failed with" not in render_text(replace(report, ending=replace(report.ending, failed_calls=late)))


def test_a_kill_that_the_counter_alone_tells_is_not_called_the_processs_own() -> None:
    report = SAMPLES["killed_for_memory"]()
    assert report.ending is not None
    counted = replace(report.ending, oom=OomKill(None, "/a", None, proven=False, kills=2))
    page = " ".join(render_text(replace(report, ending=counted)).split())
    assert "cgroup /a counted 2 OOM kills meanwhile, and it may be among them" in page
    assert "OOM killer" not in page
