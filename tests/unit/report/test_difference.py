from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from gomem.exporters.difference.page import bars, difference_page
from gomem.exporters.difference.text import difference_json, difference_text
from gomem.exporters.json.report import render_json
from gomem.exporters.json.schema import DIFFERENCE_FILE, difference_schema, load_schema, validate
from gomem.exporters.text.console import Sheet
from gomem.tracer.errors import GomemError
from gomem.tracer.report import (
    CallerMappings,
    CreatedRow,
    HeldRow,
    Holders,
    KindRow,
    MappedFile,
    MappingSums,
    Report,
    UserMappings,
)  # fmt: skip
from gomem.tracer.report.difference.causes import causes_of
from gomem.tracer.report.difference.compare import difference
from gomem.tracer.report.difference.contract import Difference, Part
from gomem.tracer.report.difference.cuts import WORDS
from gomem.tracer.report.difference.sentence import headline, rounded, steps_for
from gomem.tracer.report.held import MOST_ROWS, holders_of
from gomem.tracer.report.memory_map import HeldBytes
from gomem.tracer.report.reading import decode_report, read_report
from gomem.tracer.report.whole import stat
from gomem.tracer.snapshot.pressure import limit_use
from tests.support.samples.reports import SAMPLES, grown_and_scavenged, kernel_only, lazily_freed

MB = 1 << 20
STYLE = re.compile(r"\x1b\[[0-9;]*m")
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": MB, "GiB": 1 << 30}
ITEM = r"([\d.,]*\d) (B|KiB|MiB|GiB)"
OBJECTS = ("Go heap", "spans in use", "objects in use at the last profiled collection")
each_pair = pytest.mark.parametrize(
    ("before", "after"),
    [(before, after) for before in SAMPLES.values() for after in SAMPLES.values()],
    ids=[f"{before}-{after}" for before in SAMPLES for after in SAMPLES],
)


def sized(text: str) -> list[float]:
    """Return the sizes of a list of changes in bytes, as they are written: names may have no size in them."""
    return [round(float(size.replace(",", "")) * UNITS[unit], 6) for size, unit in re.findall(ITEM, text)]


def adds_up(sentence: str) -> None:
    """Check that what is said on both sides of a sentence makes the size at its beginning."""
    first, _, rest = sentence.partition(": ")
    along, _, against = rest.partition("; against that ")
    total = sized(first)
    if total:
        assert sum(sized(along)) - sum(sized(against)) == pytest.approx(total[0], rel=1e-9), sentence


@each_pair
def test_parts_add_up_and_the_sentence_too(before: Callable[[], Report], after: Callable[[], Report]) -> None:
    found = difference(before(), after(), ("a", "b"))
    assert found.parts
    assert sum(part.grown for part in found.parts) == found.rss.grown
    assert all(part.after - part.before == part.grown for part in found.parts)
    adds_up(found.headline)
    validate(json.loads(difference_json(found)), DIFFERENCE_FILE)


def test_a_report_against_itself_has_no_difference() -> None:
    found = difference(grown_and_scavenged(), grown_and_scavenged())
    assert found.headline == "RSS has not changed."
    assert not [part for part in found.parts if part.grown]
    assert not [table for table in found.tables if table.rows]


sizes = st.lists(st.integers(-(1 << 50), 1 << 50), min_size=1, max_size=len(WORDS))


@given(sizes)
def test_rounded_sizes_sum_to_the_rounded_sum(some: list[int]) -> None:
    steps = steps_for(max(map(abs, some)))
    figures = rounded(some, steps)
    assert sum(figures) == steps.of(sum(some))
    scale = steps.bytes / 10**steps.digits
    assert all(abs(figure * scale - size) < scale for figure, size in zip(figures, some, strict=True))


@given(sizes)
def test_any_parts_make_a_sentence_that_adds_up(some: list[int]) -> None:
    parts = [Part(name, WORDS[name], 0, size, size, []) for name, size in zip(WORDS, some, strict=False)]
    adds_up(headline(sum(some), parts, None, same_process=True))


def more(report: Report, **pages: int) -> Report:
    """Return a report with more heap pages in RAM by their states, and as much more RSS."""
    assert report.heap is not None
    assert report.resident is not None
    assert report.kinds is not None
    resident = report.heap.resident
    held = replace(resident, **{state: getattr(resident, state) + size for state, size in pages.items()})
    whole = sum(pages.values())
    kinds = [
        replace(row, resident=(row.resident or 0) + whole) if row.kind == "heap_arena" else row for row in report.kinds
    ]
    return replace(
        report,
        heap=replace(report.heap, resident=held),
        kinds=kinds,
        resident=replace(report.resident, total=report.resident.total + whole),
    )


def with_holders(report: Report, put: int, goroutines: int) -> Report:
    return replace(
        report,
        holders=Holders(
            [HeldRow([*OBJECTS, "main.(*cache).put"], put, True), HeldRow(["C heap"], MB, False)],
            [CreatedRow("main.spawn", "main.go", 12, goroutines, goroutines * 8192, goroutines * 8192)],
        ),
    )


def live(report: Report, size: int) -> Report:
    """Return a report whose heap is split into objects, of which so many bytes are alive."""
    assert report.heap is not None
    assert report.memstats is not None
    use = limit_use(report.memstats, size, None)
    return replace(report, heap=replace(report.heap, limit_use=use))


def test_growth_has_its_function_and_its_creator() -> None:
    before = with_holders(live(grown_and_scavenged(), 10 * MB), 5 * MB, 100)
    after = with_holders(live(more(grown_and_scavenged(), stacks=8 * MB), 30 * MB), 25 * MB, 1100)
    scheduler = before.structure
    assert scheduler is None  # then nobody knows how many there are in all
    sentence = difference(before, after).headline
    assert "20.0 MiB more live heap from main.(*cache).put" in sentence
    assert "8.0 MiB more goroutine stacks" in sentence
    (table,) = [table for table in difference(before, after).tables if table.id == "creators"]
    assert [(row.name, row.count_grown) for row in table.rows] == [("main.spawn", 1000)]


def unknown(report: Report, size: int) -> Report:
    """Return a report with so much more in RAM that nobody is known to own."""
    assert report.resident is not None
    row = KindRow("other", 1, size, 0, 0, 0, size, 0, size, 0)
    total = report.resident.total + size
    return replace(report, kinds=[*(report.kinds or ()), row], resident=replace(report.resident, total=total))


def test_mappings_that_were_seen_to_be_made_since_the_first_report_have_their_caller() -> None:
    before = replace(grown_and_scavenged(), user_mappings=None, taken_at="2026-03-02T09:00:00Z")
    sums, none = MappingSums(1, 9 * MB, 0, 9 * MB, 0), MappingSums(0, 0, 0, 0, 0)
    seen = UserMappings(sums, [CallerMappings("main.reserve", ["syscall.Mmap"], sums)], none, [])
    after = unknown(replace(grown_and_scavenged(), user_mappings=seen), 9 * MB)
    assert "9.0 MiB more mappings of no known owner mapped by main.reserve" in difference(before, after).headline
    # Those that were there before the first report may be the same.
    assert "main.reserve" not in difference(replace(before, taken_at=after.taken_at), after).headline


def test_a_file_is_no_cause_of_what_programs_and_shared_memory_take() -> None:
    def mapped(*files: tuple[str, str, bool]) -> Report:
        rows = [MappedFile(path, False, backing, text, 1, 9 * MB, 9 * MB, 0, 0, 0, None, None, None)  # type: ignore[arg-type]
                for path, backing, text in files]  # fmt: skip
        return replace(unknown(grown_and_scavenged(), len(files) * MB), files=rows)

    after = mapped(("/data", "file", False), ("/dev/shm/x", "tmpfs", False), ("/lib.so", "file", True))
    causes = {name: [one.what for one in causes_of(name, MB, mapped(), after)] for name in (
        "files", "shared-memory", "image")}  # fmt: skip
    assert causes == {"files": ["/data"], "shared-memory": ["/dev/shm/x"], "image": ["/lib.so"]}


def test_no_goal_is_no_figure() -> None:
    report = grown_and_scavenged()
    assert report.heap is not None
    off = replace(report, heap=replace(report.heap, goal=(1 << 63) - 1))
    (goal,) = [figure for figure in difference(report, off).figures if figure.name == "heap goal"]
    assert (goal.before, goal.after, goal.grown) == (report.heap.goal, None, None)


def test_what_one_does_not_have_is_said_and_is_not_0() -> None:
    before, after = with_holders(grown_and_scavenged(), MB, 1), grown_and_scavenged()
    for section in ("spans", "memstats", "kinds", "heap", "holders", "files"):
        lacking = replace(with_holders(after, MB, 1), **{section: None})
        found = difference(before, lacking)
        assert any(note.id == "missing" and "not the second" in note.text for note in found.notes), section
    found = difference(before, replace(after, memstats=None))
    figures = {figure.name: figure for figure in found.figures}
    assert figures["HeapAlloc"].before == stat(before, "HeapAlloc")
    assert figures["HeapAlloc"].after is figures["HeapAlloc"].grown is None
    tables = {table.id: table for table in found.tables}
    assert tables["holders"].why_not == "only the first report has this"
    assert "+0" not in difference_text(found, 20, Sheet()).split("HeapAlloc")[0].splitlines()[-1]


def test_a_file_that_a_full_list_leaves_out_is_not_taken_for_new() -> None:
    def files(count: int) -> list[MappedFile]:
        return [
            MappedFile(f"/f{at}", False, "file", False, 1, MB, MB, 0, 0, 0, None, None, None) for at in range(count)
        ]

    full, short = (replace(grown_and_scavenged(), files=files(count)) for count in (20, 3))
    newer = replace(full, files=[*files(19), replace(files(1)[0], path="/new")])
    (row,) = [row for table in difference(full, newer).tables if table.id == "files" for row in table.rows
              if row.name == "/new"]  # fmt: skip
    assert (row.before, row.grown) == (None, None)
    (row,) = [row for table in difference(short, newer).tables if table.id == "files" for row in table.rows
              if row.name == "/new"]  # fmt: skip
    assert (row.before, row.grown) == (0, MB)


def test_without_ram_in_one_of_them_the_rest_is_compared() -> None:
    found = difference(grown_and_scavenged(), replace(grown_and_scavenged(), resident=None))
    assert found.headline == "By how much RSS grew is not known: the second report does not tell what was in RAM."
    assert found.parts == []
    assert found.rss.grown is None
    assert next(figure for figure in found.figures if figure.name == "HeapAlloc").grown == 0


def test_reports_of_different_programs_releases_and_times_say_so() -> None:
    found = difference(grown_and_scavenged(), lazily_freed())
    assert {note.id for note in found.notes} >= {"other-program", "other-release", "other-process"}
    assert "RSS is larger by" in found.headline
    assert {note.id for note in difference(lazily_freed(), grown_and_scavenged()).notes} >= {"reversed"}
    one = grown_and_scavenged()
    other = replace(one, process=replace(one.process, build_id="another"))
    assert [note.id for note in difference(one, other).notes if note.id.startswith("other")] == ["other-build"]
    arm = replace(one, process=replace(one.process, goarch="arm64"))
    assert "other-architecture" in {note.id for note in difference(one, arm).notes}
    assert not [note for note in difference(one, one).notes if note.id.startswith("other")]


def test_unexplained_bytes_are_told() -> None:
    report = grown_and_scavenged()
    assert report.resident is not None
    odd = replace(report, resident=replace(report.resident, total=report.resident.total + 7 * MB))
    found = difference(report, odd)
    assert found.headline == "RSS grew by 7.0 MiB: 7.0 MiB unexplained."


def test_the_picture_leads_from_the_one_rss_to_the_other() -> None:
    found = difference(grown_and_scavenged(), more(more(grown_and_scavenged(), stacks=8 * MB), free=-4 * MB))
    assert [(bar.said, bar.colour) for bar in bars(found)] == [("+8.00 MiB", "more"), ("-4.00 MiB", "less")]
    assert [(bar.x, bar.width) for bar in bars(found)] == [("0.0", "1000.0"), ("500.0", "500.0")]


def hostile() -> Difference:
    name = "</style><script>alert(1)</script>\x1b[31m\u202e" * 50
    report = with_holders(live(more(grown_and_scavenged(), stacks=MB), 30 * MB), 25 * MB, 4)
    rows = [HeldRow([*OBJECTS, name], 20 * MB, True), *(HeldRow([name, str(at)], at, False) for at in range(500))]
    process = replace(report.process, exe=name, pod=name, go_version=name[:20])
    after = replace(report, holders=Holders(rows, None), process=process, taken_at=name)
    return difference(with_holders(live(grown_and_scavenged(), MB), MB, 4), after, (name, name))


@pytest.mark.parametrize("width", [60, 80, 140])
def test_hostile_names_neither_run_nor_move_the_cursor(width: int) -> None:
    found = hostile()
    page, text = difference_page(found), difference_text(found, 1000, Sheet(width, terminal=True))
    assert "<script" not in page
    for shown in (page, text, difference_json(found)):
        assert "\x1b[31m" not in shown
        assert "\u202e" not in shown
    assert max(len(STYLE.sub("", line)) for line in text.splitlines()) <= width
    assert len(page) < 1_000_000


def test_the_schema_is_that_of_the_types() -> None:
    Draft202012Validator.check_schema(load_schema(DIFFERENCE_FILE))
    assert load_schema(DIFFERENCE_FILE) == json.loads(json.dumps(difference_schema()))


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
def test_a_report_that_is_written_is_read_again(sample: Callable[[], Report]) -> None:
    assert decode_report(render_json(sample()).encode(), "it") == sample()


def body(**changed: Any) -> bytes:
    return json.dumps({**json.loads(render_json(with_holders(kernel_only(), MB, 1))), **changed}).encode()


def test_a_section_of_another_gomem_is_left_out_and_named() -> None:
    report = decode_report(body(holders={"rows": "of another kind"}, from_the_future=[1]), "it")
    assert report.holders is None
    assert [limit.what for limit in report.limits if limit.id == "not-understood"] == ["holders"]
    old = json.loads(body())
    del old["spans"]
    assert decode_report(json.dumps(old).encode(), "it").spans is None
    found = difference(kernel_only(), report)
    assert any(note.id == "not-understood" and "holders" in note.text for note in found.notes)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b"\xff\xfe", b"[" * 200_000, b'{"schema": 1}', b'{"schema": "gomem.report/1"}',
     body(process=None), body(schema="gomem.report/99"), body(schema="x" * 5000)],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_report_is_refused_in_a_sentence(raw: bytes) -> None:
    with pytest.raises(GomemError) as refused:
        decode_report(raw, "it")
    assert refused.value.what.startswith("it ")
    assert len(refused.value.what) < 500


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(GomemError, match="more than 64 MiB"):
        read_report(str(tmp_path / "large"))


def test_many_holders_keep_their_sum() -> None:
    held = [HeldBytes(("Go heap", f"f{at}"), at + 1) for at in range(3 * MOST_ROWS)]
    found = holders_of(held, None)
    assert len(found.rows) == MOST_ROWS + 1
    assert sum(row.resident for row in found.rows) == sum(one.resident for one in held)
    assert found.creators is None
