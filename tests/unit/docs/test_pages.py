"""What pages name is there: files and what is in them, make targets, modules, commands, links, fields of the report."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from gomem.tracer.cli import main
from gomem.tracer.report import KINDS

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / "exporters" / "runbooks").glob("*.md"),
        *(ROOT / "exporters" / "explanations").glob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    ]
)
FOLDERS = r"(?:tracer|bpf|exporters|tests|deploy|docs|gomem|\.github|\.ci)"
PATH = re.compile(rf"({FOLDERS}/[\w./*-]*)(?:: (\w+))?")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def code(page: Path) -> Iterator[str]:
    """Yield each span of code, and each line of a block of commands."""
    text = page.read_text()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "sh":
            yield from (line.split("#")[0].strip() for line in block.splitlines())
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (span.strip() for span in re.findall(r"`([^`\n]+)`", text))


@cache
def defined_in(path: Path) -> frozenset[str]:
    """Return the names that a module defines or takes in."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                names.add(node.name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return frozenset(names)


def missing(named: str) -> str | None:
    """Return what of `named`, "path" or "path: name", is not there."""
    match = PATH.fullmatch(named)
    if match is None:
        return None
    path, name = match[1].rstrip("/"), match[2]
    found = [ROOT / path] if (ROOT / path).exists() else list(ROOT.glob(path)) if "*" in path else []
    if not found:
        return path
    if name and (found[0].suffix != ".py" or name not in defined_in(found[0])):
        return named
    return None


@each_page
def test_every_path_that_a_page_names_is_there_with_what_it_names_in_it(page: Path) -> None:
    spans = [span for text in code(page) for span in (text, *text.split())]
    assert [gone for span in dict.fromkeys(spans) if (gone := missing(span))] == []


@pytest.mark.parametrize("named", ["tracer/gone.py", "tracer/report/__init__.py: Gone", "tests/unit/gone/", "bpf/*.go"])
def test_what_is_not_there_is_noticed(named: str) -> None:
    assert missing(named)


def test_the_picture_names_only_rooms_that_are_there() -> None:
    picture = (DOCS / "architecture.svg").read_text()
    named = PATH.findall(picture)
    assert len(named) > 12
    assert [path for path, _ in named if missing(path)] == []


@each_page
def test_every_make_target_and_module_that_a_page_calls_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in code(page):
        if match := re.match(r"(?:\w+=\S+ )*make ((?:[a-z-]+ ?)+)", text):
            assert set(match[1].split()) <= targets, text
        for module in re.findall(r"python3? -m ([\w.]+)", text):
            assert importlib.util.find_spec(module), text


@each_page
def test_every_command_line_of_gomem_in_a_page_is_one_that_it_takes(page: Path) -> None:
    assert isinstance(main, click.Group)
    for text in code(page):
        words = words_of(text)
        if words[:1] != ["gomem"] or len(words) < 2 or words[1].startswith("-"):
            continue
        command = main.get_command(click.Context(main), words[1])
        assert command is not None, text
        options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
        given = words[2:]
        ours = given[: given.index("--")] if "--" in given else given
        assert {word.split("=")[0] for word in ours if re.match(r"--\w", word)} <= options, text


def words_of(text: str) -> list[str]:
    try:
        words = shlex.split(re.split(r" [|>&]|;", text)[0])
    except ValueError:
        return []
    return words


@each_page
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page
def test_no_page_names_a_path_of_somebodys_machine(page: Path) -> None:
    assert re.findall(r"/(?:work|root|home/[a-z]+|tmp/[a-z]+)/\S*", page.read_text()) == []


def test_every_room_is_in_the_architecture() -> None:
    page = (DOCS / "architecture.md").read_text()
    rooms = [path.parent for path in (ROOT / "tracer").glob("*/__init__.py")]
    assert len(rooms) > 10
    assert [room.name for room in rooms if f"`tracer/{room.name}/`" not in page] == []


def test_the_architecture_says_where_a_column_a_probe_and_a_metric_go() -> None:
    table = (DOCS / "architecture.md").read_text().partition("## Where does it go?")[2].partition("\n## ")[0]
    rows = {row.split("|")[1].strip(): row.split("|")[2] for row in table.splitlines() if row.startswith("| a ")}
    for what, file in (
        ("a column of size classes", "`tracer/report/heap.py: SpanClassRow`"),
        ("a probe", "`tracer/layout/roles.json`"),
        ("a metric", "`exporters/prometheus/heap.py: METRICS`"),
        ("a finding", "`tracer/report/findings/rules.py: RULES`"),
    ):
        assert file in rows[what]


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\]\((\S+\.md)\)", (DOCS / "decisions" / "README.md").read_text()))
    assert listed == {path.name for path in (DOCS / "decisions").glob("*.md")} - {"README.md"}


def test_the_page_on_reports_names_every_field_and_kind() -> None:
    named = {word for span in code(DOCS / "report.md") for word in re.findall(r"\w+", span)}
    schema = json.loads((ROOT / "exporters" / "json" / "report.schema.json").read_text())
    assert set(schema["properties"]) - named == set()
    assert set(KINDS) - named == set()
    parts = schema["$defs"].keys() - {"MemStats"}  # its names are Go's
    fields = {field for part in parts for field in schema["$defs"][part].get("properties", {})}
    assert fields - named == set()
