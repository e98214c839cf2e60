"""dtruss's lines: every column layout, Darwin's numbers by name, and arbitrary text."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.tracer.events.dtruss import DtrussParser
from gomem.tracer.events.madvise import advice_name
from gomem.tracer.events.record import EventBatch, EventKind

FIXTURES = Path(__file__).parent / "fixtures"
MMAP = "mmap(0xC000000000, 0x4000000, 0x0, 0x1002, 0xFFFFFFFFFFFFFFFF, 0x0)\t\t = 0xC000000000 0\n"
HEAD = "SYSCALL(args) \t\t = return\n"


def parse(text: str) -> tuple[DtrussParser, EventBatch]:
    parser = DtrussParser()
    return parser, np.concatenate([parser.feed(text.encode()), parser.finish()])


@pytest.mark.parametrize(
    ("header", "prefix", "tid"),
    [
        ("", "", 0),
        ("", " 4374/0x206a2:  ", 0x206A2),
        ("\tPID/THRD  RELATIVE  ELAPSD    CPU ", " 4374/0x206a2:     15930       3      1 ", 0x206A2),
        ("\tPID/THRD  ELAPSD ", " 4374/0x206a2:       3 ", 0x206A2),
        ("RELATIVE  ELAPSD ", "   15930       3 ", 0),
        ("\tPID/THRD  RELATIVE ", "29738/0x5d6ef:      1178:  ", 0x5D6EF),
        ("\tPID/LWP  ", "29738/17:  ", 17),
    ],
)
def test_every_layout_of_columns_gives_the_same_call(header: str, prefix: str, tid: int) -> None:
    parser, events = parse((header + HEAD if header else "") + prefix + MMAP)
    (event,) = events
    assert event["kind"] == EventKind.MMAP
    assert event["args"].tolist() == [0xC000000000, 0x4000000, 0, 0x22, (1 << 64) - 1, 0]
    assert event["result"] == 0xC000000000
    assert event["tid"] == tid
    assert parser.timed == ("RELATIVE" in header)
    assert parser.unparsed == 0


@pytest.mark.parametrize(
    ("darwin", "linux"),
    [(0x1002, 0x22), (0x1012, 0x32), (0x0001, 0x01), (0x1042, 0x4022), (0x1802, 0x22), (0x41002, 0x22)],
)
def test_flags_of_mmap_become_linuxs_by_name(darwin: int, linux: int) -> None:
    _, events = parse(MMAP.replace("0x1002", f"0x{darwin:X}"))
    assert events["args"][0, 3] == linux


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "normal"), (4, "dontneed"), (5, "free"), (6, "zero_wired_pages"), (7, "free_reusable"), (8, "free_reuse"),
     (9, "can_reuse"), (10, "pageout"), (11, "zero"), (77, "darwin_advice_77")],
)  # fmt: skip
def test_advice_has_darwins_name(number: int, name: str) -> None:
    _, events = parse(f"madvise(0xC000000000, 0x2000, 0x{number:X})\t\t = 0 0\n")
    assert advice_name(int(events["args"][0, 2])) == name


@pytest.mark.parametrize(
    ("told", "number"), [(12, errno.ENOMEM), (22, errno.EINVAL), (35, errno.EAGAIN), (78, errno.ENOSYS)]
)
def test_errnos_become_linuxs_by_name(told: int, number: int) -> None:
    _, events = parse(f"munmap(0x1000, 0x2000)\t\t = -1 Err#{told}\n")
    assert events["result"].tolist() == [-number]


def test_lines_keep_their_order_whatever_their_times() -> None:
    header = "\tPID/THRD  RELATIVE " + HEAD
    lines = [f" 1/0x{thread:x}:  {relative:>8d} munmap(0x{at:X}, 0x1000)\t\t = 0 0\n"
             for thread, relative, at in ((1, 900, 0x1000), (2, 20, 0x2000), (1, 950, 0x3000))]  # fmt: skip
    _, events = parse(header + "".join(lines))
    assert events["args"][:, 0].tolist() == [0x1000, 0x2000, 0x3000]
    assert (events["time"][1:] > events["time"][:-1]).all()
    assert (events["entered"] <= events["time"]).all()


def test_other_processes_are_left_out_and_counted() -> None:
    parser, events = parse(f" 7/0x1:  {MMAP} 8/0x2:  {MMAP} 7/0x3:  {MMAP}")
    assert (parser.pid, parser.others) == (7, {8})
    assert events["tid"].tolist() == [1, 3]


def test_what_stands_between_the_calls_is_passed_over() -> None:
    parser, events = parse((FIXTURES / "dtruss-go1.22-arm64.log").read_text())
    assert parser.unparsed == 0
    assert (parser.pid, parser.others) == (5120, {5121})
    assert len(events) == 32
    assert {EventKind(int(kind)).name for kind in set(events["kind"].tolist())} == {
        "MMAP",
        "MUNMAP",
        "MPROTECT",
        "MADVISE",
    }


@pytest.mark.parametrize(
    "line",
    ["mmap(0x0, 0x1000)\t\t = 0x1000 0", "mmap(0x0, 0x1000, 0x3", "munmap(0x1, 0x2, 0x3)\t\t = 0 0",
     "madvise(0x1, 0x2, 0x3)\t\t = -5 0"],
)  # fmt: skip
def test_memory_calls_that_make_no_sense_are_counted(line: str) -> None:
    parser, events = parse(line + "\n" + MMAP)
    assert len(events) == 1
    assert parser.unparsed == 1


@settings(deadline=None)
@given(st.text(alphabet="mapdvise(0x1F, )=\t\n/:Er#-9 ", max_size=200), st.integers(1, 50))
def test_no_text_raises_and_where_it_is_cut_does_not_matter(junk: str, size: int) -> None:
    text = (junk + "\n" + MMAP + junk).encode()
    whole, pieces = DtrussParser(), DtrussParser()
    at_once = [whole.feed(text), whole.finish()]
    by_and_by = [*(pieces.feed(text[at : at + size]) for at in range(0, len(text), size)), pieces.finish()]
    assert b"".join(one.tobytes() for one in at_once) == b"".join(one.tobytes() for one in by_and_by)
    assert whole.unparsed == pieces.unparsed
