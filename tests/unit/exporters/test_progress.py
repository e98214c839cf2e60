"""The line that counts down in place."""

from __future__ import annotations

import io

import pytest

from gomem.exporters.text.progress import progress, progress_line, reading

FIGURES = (199 << 20, 40 << 20, 39 << 20)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, "gomem: 7 s left   RSS 199 MiB   Go heap in use 40.0 MiB   live heap 39.0 MiB"),
        (60, "gomem: 7 s left   RSS 199 MiB   Go heap in use 40.0 MiB"),
        (32, "gomem: 7 s left   RSS 199 MiB"),
        (20, "gomem: 7 s left"),
        (5, ""),
    ],
)
def test_what_there_is_no_room_for_is_left_out_whole(columns: int, line: str) -> None:
    assert progress_line(3.0, 7.0, FIGURES, columns) == line


def test_what_is_not_known_is_not_said() -> None:
    assert progress_line(3.2, None, (1 << 20, None, None), 80) == "gomem: 3 s so far   RSS 1.00 MiB"
    assert progress_line(3.2, 300.0, (None, None, None), 80) == "gomem: 5 min 0 s left"


def test_it_is_shown_once_a_second_and_erased_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, read = Terminal(), []
    with progress(stream) as tick:
        for quarter in range(9):
            tick(quarter / 4, 10 - quarter / 4, lambda: read.append(1) or FIGURES)  # type: ignore[func-returns-value]
    lines = stream.getvalue().split("\r\x1b[K")
    assert [line.partition(" left")[0] for line in lines] == ["", "gomem: 10 s", "gomem: 9 s", "gomem: 8 s", ""]
    assert len(read) == 3


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO, "xterm"), (Terminal, "dumb"), (Terminal, "")])
def test_nothing_is_shown_or_read_where_it_could_not_be_erased(
    stream: type[io.StringIO], term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term) if term else monkeypatch.delenv("TERM", raising=False)
    written = stream()
    with progress(written) as tick:
        tick(0.0, 10.0, lambda: pytest.fail("it was read"))
    assert written.getvalue() == ""


def test_reading_a_file_is_shown_by_the_hundredth_and_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, pipe = Terminal(), io.StringIO()
    for one in (stream, pipe):
        with reading(one) as tick:
            for read in range(0, 3000):
                tick(read, 3000)
    shown = stream.getvalue().split("\r\x1b[K")
    assert shown[1:3] == ["gomem: read 0 % of 2.93 KiB", "gomem: read 1 % of 2.93 KiB"]
    assert (len(shown), shown[-1]) == (102, "")
    assert pipe.getvalue() == ""
