"""Logs of strace with any of its options, and which program a log is of."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.tracer.events.log_formats import recognise
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.events.strace.log import StraceLog

FIXTURES = Path(__file__).parent / "fixtures"
FULL = (FIXTURES / "go1.27.3-file.txt").read_text()
SECOND = 1_000_000_000


def parse(text: str) -> tuple[StraceLog, EventBatch]:
    log = StraceLog()
    return log, np.concatenate([log.feed(text.encode()), log.finish()])


def calls(events: EventBatch) -> list[tuple[int, list[int], int]]:
    rows = zip(events["kind"].tolist(), events["args"].tolist(), events["result"].tolist(), strict=True)
    return [row for row in rows if row[0] != EventKind.EXIT]


def clock(line: str) -> str:
    def of_day(match: re.Match[str]) -> str:
        second = int(match[1]) % 86400
        return f" {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{match[2]}"

    return re.sub(r" (\d{10})\.(\d{6})", of_day, line)


def relative(text: str) -> str:
    last, lines = None, []
    for line in text.splitlines():
        match = re.search(r"\d{10}\.\d{6}", line)
        assert match
        now = float(match[0])
        lines.append(line.replace(match[0], f"{'':5}{now - (now if last is None else last):.6f}"))
        last = now
    return "\n".join(lines)


VARIANTS: dict[str, tuple[Callable[[str], str], str, bool]] = {
    "-f -ttt -T": (lambda text: text, "unix", True),
    "-f -ttt": (lambda text: re.sub(r" <[\d.]+>$", "", text, flags=re.M), "unix", True),
    "-f -tt -T": (clock, "clock", True),
    "-f -t": (lambda text: re.sub(r"(:\d\d)\.\d{6} ", r"\1 ", clock(text)), "clock", True),
    "-f -r": (relative, "relative", True),
    "-f": (lambda text: re.sub(r" \d{10}\.\d{6}| <[\d.]+>$", "", text, flags=re.M), "none", True),
    "a terminal": (lambda text: re.sub(r"^(\d+)  ", r"[pid \1] ", text, flags=re.M), "unix", True),
    "-ttt -T": (lambda text: re.sub(r"^\d+  ", "", text, flags=re.M), "unix", False),
    "nothing": (lambda text: re.sub(r"^\d+  \d{10}\.\d{6} | <[\d.]+>$", "", text, flags=re.M), "none", False),
    "-ttt -r": (lambda text: re.sub(r"(\d{10}\.\d{6})", r"\1 (+     0.000123)", text), "unix", True),
}


@pytest.mark.parametrize("options", VARIANTS)
def test_every_choice_of_options_gives_the_same_calls(options: str) -> None:
    change, times, named = VARIANTS[options]
    text = change(FULL)
    assert recognise(text.encode()) == "strace"
    log, events = parse(text)
    _, full = parse(FULL)
    assert calls(events) == calls(full)
    assert len(calls(events)) == 31
    assert log.times == times
    assert log.unparsed == 0
    assert (log.pid or None) == (2293 if named else None)
    assert (events["time"][1:] >= events["time"][:-1]).all()
    if times == "unix":
        assert int(full["time"][0]) // SECOND == 1795250354


def test_a_day_that_ends_goes_on() -> None:
    line = "7 {} munmap(0x1000, 4096) = 0\n"
    _, events = parse(line.format("23:59:59.900000") + line.format("00:00:00.100000"))
    assert np.diff(events["time"]).tolist() == [SECOND // 5]


def test_without_durations_a_call_that_was_interrupted_ends_where_it_was_resumed() -> None:
    _, events = parse(
        "7 100000000.000001 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0 <unfinished ...>\n"
        "8 100000000.000002 munmap(0x1000, 4096) = 0\n"
        "7 100000000.000005 <... mmap resumed>) = 0x1000\n"
    )
    assert [EventKind(int(kind)).name for kind in events["kind"]] == ["MUNMAP", "MMAP"]
    assert (events["time"] - events["entered"]).tolist() == [0, 4000]


def test_a_thread_that_is_killed_before_its_call_is_known_is_no_loss() -> None:
    log, events = parse("7 100000000.000001 ???( <unfinished ...>\n7 100000000.000002 +++ exited with 0 +++\n")
    assert (log.unparsed, events["kind"].tolist()) == (0, [EventKind.EXIT])


def test_processes_that_were_started_are_left_out() -> None:
    log, events = parse((FIXTURES / "threads-fork-exec.txt").read_text())
    assert log.births_known
    assert log.others
    assert not set(events["tid"].tolist()) & log.others
    assert len(set(events["tid"].tolist())) >= 3


def test_the_command_is_in_the_execve() -> None:
    log, _ = parse('9 100000000.0 execve("/bin/a b", ["a b", "-x", "\\"q"], 0x7ffe /* 9 vars */) = 0\n')
    assert log.command == ["/bin/a b", "a b", "-x", '\\"q']


@settings(deadline=None)
@given(st.text(alphabet="map(0x1, )=\n<>.:79 [pid]+-", max_size=200), st.integers(1, 60))
def test_no_text_raises_and_where_it_is_cut_does_not_matter(junk: str, size: int) -> None:
    text = (junk + "\n" + FULL[:600] + "\n" + junk).encode()
    whole, pieces = StraceLog(), StraceLog()
    at_once = [whole.feed(text), whole.finish()]
    by_and_by = [*(pieces.feed(text[at : at + size]) for at in range(0, len(text), size)), pieces.finish()]
    assert sorted(calls(np.concatenate(at_once))) == sorted(calls(np.concatenate(by_and_by)))


@pytest.mark.parametrize(
    ("name", "form"),
    [("dtruss-go1.22-arm64.log", "dtruss"), ("dtruss-go1.12-amd64-plain.log", "dtruss"), ("README.md", None),
     ("go1.25.5-terminal.txt", "strace"), ("go1.27.3-raw.txt", "strace"), ("threads-fork-exec.txt", "strace"),
     ("descriptors.txt", "strace")],
)  # fmt: skip
def test_logs_are_told_by_their_content(name: str, form: str | None) -> None:
    assert recognise((FIXTURES / name).read_bytes()) == form


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_anything_can_be_looked_at(head: bytes) -> None:
    assert recognise(head) in (None, "strace", "dtruss")
