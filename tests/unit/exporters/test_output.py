from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gomem.exporters.output import check_output, write_output
from gomem.tracer.errors import GomemError


def run_python(code: str, **keywords: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", code], check=False, timeout=60, **keywords)  # type: ignore[call-overload, no-any-return]


def test_no_path_and_dash_write_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    write_output("one\n")
    write_output("two\n", "-")
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_stream_that_cannot_encode_gets_escapes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write_output("\u2588\n", stream=stream)
    assert raw.getvalue() == b"\\u2588\n"


def test_a_new_file_gets_the_mode_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_output("x\n", str(tmp_path / "report"))
    finally:
        os.umask(old)
    assert (tmp_path / "report").read_text() == "x\n"
    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["report"]


def test_an_old_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "report"
    target.write_text("old and longer\n")
    target.chmod(0o604)
    before = target.stat().st_ino
    write_output("new\n", str(target))
    assert target.read_text() == "new\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert target.stat().st_ino != before


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_output("new", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_failing_write_leaves_the_old_file_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "report"
    target.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(GomemError, match="No space left") as raised:
        write_output("new", str(target))
    monkeypatch.undo()
    assert str(target) in raised.value.what
    assert raised.value.fix
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report"]


def test_a_full_device_is_an_error() -> None:
    with pytest.raises(GomemError, match="/dev/full"):
        write_output("x", "/dev/full")


@pytest.mark.parametrize("path", ["missing/report", "directory"])
def test_what_cannot_be_written_is_refused_before_and_at_the_write(tmp_path: Path, path: str) -> None:
    (tmp_path / "directory").mkdir()
    where = str(tmp_path / path)
    with pytest.raises(GomemError, match="cannot write"):
        check_output(where)
    with pytest.raises(GomemError, match="cannot write"):
        write_output("x", where)


def test_check_accepts_what_can_be_written_and_writes_nothing(tmp_path: Path) -> None:
    for path in (None, "-", "/dev/stdout", "/dev/null", str(tmp_path / "new")):
        check_output(path)
    assert os.listdir(tmp_path) == []


def test_a_fifo_gets_the_report(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    write_output("through\n", str(fifo))
    reader.join(timeout=60)
    assert got == ["through\n"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


WRITE = "from gomem.exporters.output import write_output; write_output('report\\n', {path!r})"


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_dev_stdout_works_on_a_pipe(path: str) -> None:
    done = run_python(WRITE.format(path=path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"report\n"), done.stderr


def test_dev_stdout_that_is_a_file_is_appended_to_and_not_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("a") as stream:
        done = run_python(WRITE.format(path="/dev/stdout"), stdout=stream, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "before\nreport\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    code = "from gomem.exporters.output import write_output; write_output('x' * 10_000_000)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), complaint) == (0, b"")
