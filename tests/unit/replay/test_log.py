"""Logs of others: what the report of a strace or dtruss log says, and what it does not claim."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.exporters.json.report import render_json
from gomem.exporters.json.schema import validate
from gomem.exporters.text.report import render_text
from gomem.tracer.errors import GomemError, UsageError
from gomem.tracer.replay.file import replay_file
from gomem.tracer.report import Report
from tests.support.rules import broken_rules

FIXTURES = Path(__file__).parents[1] / "events" / "fixtures"
GOLDEN = Path(__file__).parent / "golden"
MB = 1 << 20
LOGS = {
    "strace-go1.19": "go1.19.8-file.txt",
    "strace-go1.27": "go1.27.3-file.txt",
    "dtruss-go1.22": "dtruss-go1.22-arm64.log",
    "dtruss-go1.12": "dtruss-go1.12-amd64-plain.log",
}


def replay(path: Path, at: str | None = None) -> Report:
    report = replay_file(str(path), at)
    body = json.loads(render_json(report))
    validate(body)
    assert broken_rules(body) == []
    return report


@pytest.mark.parametrize("name", LOGS)
def test_the_page_of_a_log_is_the_golden_one(name: str) -> None:
    page = render_text(replay(FIXTURES / LOGS[name]))
    assert page == (GOLDEN / f"{name}.txt").read_text(), f"if it is meant: write it to {GOLDEN}/{name}.txt"


@pytest.mark.parametrize("name", ["strace-go1.19", "strace-go1.27"])
def test_what_is_mapped_is_what_the_calls_of_the_log_add_up_to(name: str) -> None:
    """The truth: the lines themselves, painted page by page."""
    path = FIXTURES / LOGS[name]
    pages: dict[int, str] = {}
    for line in path.read_text().splitlines():
        call = re.search(r"mmap\(\S+, (\d+), (\S+), \S+, -1, 0\) = 0x([0-9a-f]+)", line)
        if call:
            first = int(call[3], 16) >> 12
            letters = "".join(word[0].lower() if word in call[2] else "-" for word in ("READ", "WRITE", "XEC"))
            pages |= dict.fromkeys(range(first, first + (int(call[1]) + 4095 >> 12)), letters + "p")
    report = replay(path)
    assert report.rebuilt is not None
    rebuilt = {page: row.protection for row in report.rebuilt
               for page in range(row.start >> 12, row.start + row.size >> 12)}  # fmt: skip
    assert rebuilt == pages
    assert report.virtual is not None
    assert report.virtual.total == len(pages) << 12


def test_nothing_is_claimed_that_a_log_does_not_tell() -> None:
    report = replay(FIXTURES / LOGS["strace-go1.27"])
    assert report.virtual is not None
    assert (report.virtual.reserved, report.virtual.prepared, report.virtual.ready) == (None, None, None)
    assert [report.resident, report.kinds, report.heap, report.memstats, report.spans] == [None] * 5
    assert report.process.go_version is None
    assert report.rebuilt is not None
    assert all(row.by for row in report.rebuilt if row.looks_like)
    (finding,) = [finding for finding in report.findings if finding.id == "looks-like-go"]
    assert "not proven" in finding.explanation
    assert (finding.evidence["heap_arena"], finding.evidence["heap_arena_accessible"]) == (64 * MB, 16 * MB)


def test_the_times_are_those_of_the_log() -> None:
    report = replay(FIXTURES / LOGS["strace-go1.19"])
    assert report.process.start_time.startswith("20")
    assert report.duration_seconds > 0
    assert replay(FIXTURES / LOGS["strace-go1.19"], "0").events == {}, "the first call has not returned yet"
    counts = []
    for at in ("0.0005", "0.001", None):
        events = replay(FIXTURES / LOGS["strace-go1.19"], at).events
        assert events is not None
        counts.append(events["mmap"].count)
    assert 0 < counts[0] < counts[1] < counts[2]
    with pytest.raises(UsageError, match="not in the log"):
        replay(FIXTURES / LOGS["strace-go1.19"], "1e6")
    with pytest.raises(UsageError, match="no dates"):
        replay(FIXTURES / LOGS["dtruss-go1.22"], "2026-01-01T00:00:00Z")


def test_darwins_advice_is_counted_by_its_own_names() -> None:
    report = replay(FIXTURES / LOGS["dtruss-go1.22"])
    assert report.madvise is not None
    assert {name: (row.count, row.bytes, row.failed) for name, row in report.madvise.items()} == {
        "free": (1, 512 << 10, 0),
        "free_reusable": (1, 1 * MB, 1),
        "free_reuse": (2, 4 * MB + (256 << 10), 0),
    }
    assert report.events is not None
    assert report.events["mmap"].failed == 1
    # 16 KB pages, as all addresses show: the arenas' metadata of 0x11010 bytes takes 80 KB.
    assert any("Mach" in limit.what for limit in report.limits)


def test_a_log_of_two_processes_in_one_is_doubted(tmp_path: Path) -> None:
    once = (FIXTURES / LOGS["strace-go1.19"]).read_text()
    twice = once + re.sub(r"^2(\d\d\d)", r"3\1", once, flags=re.M)
    (tmp_path / "log").write_text(twice)
    report = replay(tmp_path / "log")
    assert any("certainty" in limit.what for limit in report.limits)
    assert not any("certainty" in limit.what for limit in replay(FIXTURES / LOGS["strace-go1.19"]).limits)


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "nothing that can be replayed"), (b"\x7fELF" + bytes(100), "nothing that can be replayed"),
     (b"hello\nworld\n", "nothing that can be replayed"), (b"\x00" * 5000, "nothing that can be replayed"),
     (b"7 100000000.0 close(3) = 0\n", "no call in it maps"), (b"close(0x3)\t\t = 0 0\n", "no call in it maps")],
)  # fmt: skip
def test_what_is_no_log_is_refused_in_one_line(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(GomemError, match=what) as caught:
        replay_file(str(tmp_path / "f"))
    assert caught.value.fix


LINES = (FIXTURES / LOGS["strace-go1.27"]).read_bytes().splitlines(keepends=True)
MAC_LINES = (FIXTURES / LOGS["dtruss-go1.22"]).read_bytes().splitlines(keepends=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(LINES + MAC_LINES) | st.binary(max_size=80), max_size=30), st.binary(max_size=20))
def test_no_log_ends_in_anything_but_a_report_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "f"
    path.write_bytes(junk.join(lines))
    try:
        report = replay_file(str(path))
    except GomemError:
        return
    validate(json.loads(render_json(report)))
    assert render_text(report)


def test_whoever_waits_for_a_log_is_told_how_far_it_is(tmp_path: Path) -> None:
    call = "mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000"
    line = f"4711 1772366400.000000 {call} <0.000001>"
    log = tmp_path / "a.log"
    log.write_text(f"{line}\n" * 10_000)
    told: list[tuple[int, int]] = []
    replay_file(str(log), tick=lambda read, size: told.append((read, size)))
    assert told == sorted(told)
    assert len(told) >= 4
    assert told[-1] == (log.stat().st_size, log.stat().st_size)
