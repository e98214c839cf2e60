"""The pages: what they show, and that nothing of a target gets through as markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError, nodes
from msgspec.structs import replace

from gomem.exporters.html.pages import figures_page, index_page, target_page
from gomem.exporters.html.rendering import POLICY, SCRIPTS, STYLE, environment
from gomem.exporters.html.table import Rows, Wish
from gomem.exporters.units import size
from gomem.exporters.verdict import verdict
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import FleetView, TargetState, TargetView
from gomem.tracer.report import Finding, Limit
from tests.support.samples.reports import SAMPLES, grown_and_scavenged
from tests.support.samples.views import several, target, view

_VOID = {"meta", "input"}
_KNOWN = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "nav", "a", "span", "main", "article", "svg",
    "rect", "ul", "li", "b", "i", "div", "table", "tr", "th", "td", "dl", "dt", "dd", "header", "footer", "section",
    "thead", "tbody", "form", "label", "input", "button", "data", "path", "details", "summary", "noscript", "script",
}  # fmt: skip
_FORBIDDEN = {"src", "srcset", "style", "srcdoc", "formaction"}


class Page(HTMLParser):
    """A page as a browser would read it."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.style = ""
        self.scripts: list[str] = []
        self.feed(raw.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.scripts += [""] if tag == "script" else []
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        elif self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.words += data


def flat(words: str) -> str:
    return " ".join(words.split())


def index(now: FleetView, query: str = "") -> bytes:
    return index_page(now, Rows(None).of(now), Wish.of(query))


def test_the_list_has_every_target_with_state_reason_figures_and_verdict() -> None:
    now = several()
    page = Page(index(now))
    words = flat(page.words)
    for one in now.targets:
        assert f"/targets/{one.pid}" in page.links
        assert f"{one.name} {one.pid}" in words
        assert flat(one.why) in words
        if one.report is None:
            continue
        told = [flat(verdict(one.report)), *(flat(finding.title) for finding in one.report.findings)]
        assert one.why or any(each in words for each in told)
        assert one.report.resident is not None
        assert size(one.report.resident.total) in words
        if one.report.heap is not None:
            ram = one.report.heap.resident
            assert size(ram.free) in words
            assert size(ram.stacks) in words
    assert "kernel only" in words
    assert "shop, ingest-7d9f, ingest, worker-1" in words


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_in_ram_comes_before_the_address_space(name: str) -> None:
    one = target(7, SAMPLES[name]())
    words = flat(Page(target_page(one, False)).words)
    assert 0 <= words.index("In RAM") < words.index("Address space")
    rows = words.partition("RAM and address space by kind")[2]
    assert 0 <= rows.index("in RAM") < rows.index("address space")


def test_those_with_the_most_memory_come_first_and_those_unknown_last() -> None:
    now = several()
    found = [link for link in Page(index(now)).links if link.startswith("/targets/")]
    totals = {f"/targets/{one.pid}": one.report.resident.total if one.report and one.report.resident else -1
              for one in now.targets}  # fmt: skip
    assert [totals[link] for link in found] == sorted(totals.values(), reverse=True)


def test_a_page_of_thousands_is_cut_and_says_so() -> None:
    crowd = view(*(target(pid, None, TargetState.STARTING) for pid in range(1, 2001)))
    page = Page(index(crowd))
    assert sum(link.startswith("/targets/") for link in page.links) == 500
    assert "and 1,500 more" in flat(page.words)


def test_no_view_yet_is_said() -> None:
    assert "not done yet" in Page(index_page(None)).words


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("with_report", [False, True])
def test_the_page_of_a_target_is_whole_for_every_kind_of_report(name: str, with_report: bool) -> None:
    report = SAMPLES[name]()
    page = Page(target_page(target(7, report), with_report))
    words = flat(page.words)
    assert set(page.tags) <= _KNOWN
    assert report.process.exe in words
    assert all(flat(finding.title) in words for finding in report.findings)
    assert all(flat(limit.what) in words for limit in report.limits)
    assert ("/targets/7/report.json" in page.links) is with_report


def test_the_command_line_which_may_hold_secrets_is_shown_only_with_the_reports() -> None:
    report = grown_and_scavenged()
    report = replace(report, process=replace(report.process, cmdline=["serve", "--token=hunter2"]))
    assert b"hunter2" not in target_page(target(7, report), False)
    assert b"hunter2" not in index(view(target(7, report)))
    assert b"hunter2" in target_page(target(7, report), True)


def test_the_policy_is_that_of_style_and_scripts_as_a_browser_sees_them() -> None:
    for raw in (index(several()), target_page(several().targets[0], True)):
        page = Page(raw)
        assert page.scripts
        for content in (page.style, *page.scripts):
            digest = hashlib.sha256(content.encode()).digest()
            assert f"'sha256-{base64.b64encode(digest).decode()}'" in POLICY
    assert "</" not in STYLE
    assert not any("</script" in script for scripts in SCRIPTS.values() for script in scripts)


def hostile(words: str) -> TargetView:
    """A target of which every string is `words`."""
    report = grown_and_scavenged()
    process = replace(report.process, exe="/" + words, cmdline=[words], go_version=words, goarch=words,
                      build_id=words, main_module=words, start_time=words)  # fmt: skip
    limit, finding = Limit("some-limit", words, words, words), Finding(words, "warning", words, words, {}, words)
    report = replace(report, process=process, limits=[limit], findings=[finding], taken_at=words)
    workload = Workload(words, words, words, words, words, words, {words: words})
    one = target(7, report, TargetState.KERNEL_ONLY, why=words, workload=workload)
    return dataclasses.replace(one, name=words)


ATTACKS = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x", "</style><script>x</script>",
    "&lt;script&gt;", "\x00\x1b[2J\x9b", "\u202egnp.exe", "\udcff\ud800", "javascript:alert(1)", "a" * 1_000_000,
]  # fmt: skip


def judge(words: str) -> None:
    one = hostile(words)
    pages = {
        "index": index(FleetView((one,), view().health, 0.0)),
        "target": target_page(one, True),
        "": figures_page(one, True),
    }
    for name, raw in pages.items():
        page = Page(raw)
        assert set(page.tags) <= _KNOWN
        assert len(page.scripts) == len(SCRIPTS.get(name, ()))
        assert not [attribute for attribute in page.attributes if attribute.startswith("on") or attribute in _FORBIDDEN]
        assert all(link.startswith("/") for link in page.links)
        assert all(character.isprintable() or character == "\n" for character in page.words)
        assert len(raw) < 100_000 + sum(map(len, SCRIPTS.get(name, ())))


@pytest.mark.parametrize("words", ATTACKS)
def test_a_hostile_target_gets_no_markup_through(words: str) -> None:
    judge(words)


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(), max_size=30))
def test_no_words_at_all_get_markup_through(words: str) -> None:
    judge(words)


@pytest.mark.parametrize("name", environment().list_templates())
def test_no_template_lets_anything_through_as_it_is(name: str) -> None:
    made = environment()
    assert made.loader is not None
    parsed = made.parse(made.loader.get_source(made, name)[0])
    assert "safe" not in made.filters
    forbidden = (nodes.EvalContextModifier, nodes.MarkSafe, nodes.MarkSafeIfAutoescape)
    assert not list(parsed.find_all(forbidden))
    assert name == "base.html.j2" or "style" not in {one.name for one in parsed.find_all(nodes.Name)}


@pytest.mark.parametrize("words", ATTACKS)
def test_what_a_template_prints_is_safe_without_its_author_thinking_of_it(words: str) -> None:
    page = environment().from_string('<p class="{{ words }}">{{ words }}</p>').render(words=words)
    assert Page(page.encode()).tags == ["p"]
    assert all(character.isprintable() for character in page)
    assert len(page) < 2000


def test_a_figure_that_is_not_known_is_no_blank_and_one_that_is_not_there_no_page() -> None:
    assert environment().from_string("{{ report.heap }}").render(report={"heap": None}) == "?"
    with pytest.raises(UndefinedError):
        environment().from_string("{{ report.heap }}").render(report={})
