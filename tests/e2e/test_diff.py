"""`gomem diff`, as a user types it: two profiles that a Go program wrote of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gomem.tracer.errors import EXIT_FAILED, EXIT_USAGE
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.pprof import top, written_by_go
from tests.support.terminal import on_a_terminal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    written = written_by_go(build("profiles", "1.25.5"), tmp_path_factory.mktemp("profiles"))
    return {file.name.removesuffix(".pb.gz"): file for file in written}


@pytest.fixture
def both(files: dict[str, Path]) -> tuple[Path, Path]:
    return files["heap.before"], files["heap.after"]


def _rows(printed: str) -> list[str]:
    """Return the lines below the names of the columns."""
    lines = printed.splitlines()
    return lines[next(at for at, line in enumerate(lines) if line.split()[:2] == ["flat", "flat%"]) + 1 :]


def test_what_grew_is_shown_by_function(both: tuple[Path, Path]) -> None:
    done = gomem("diff", *both)
    assert done.status == 0
    assert done.stderr == ""
    assert re.match(r"inuse_space  \S+ \S+ before, \S+ \S+ after: \+", done.stdout)
    theirs = top(f"-diff_base={both[0]}", str(both[1]), unit="B")
    shown = [line.split("%")[-1].strip() for line in _rows(done.stdout)]
    assert shown == [row.name for row in theirs[:20]]


def test_objects_in_the_order_of_the_cumulative_value(both: tuple[Path, Path]) -> None:
    done = gomem("diff", *both, "--sample-type", "inuse_objects", "--cumulative", "--top", 3)
    theirs = top("-cum", f"-diff_base={both[0]}", str(both[1]), sample_type="inuse_objects")
    lines = _rows(done.stdout)
    assert len(lines) == 3
    for line, row in zip(lines, theirs, strict=False):
        flat, _, _, cumulative, _, name = line.split(maxsplit=5)
        assert (int(flat.replace(",", "")), int(cumulative.replace(",", "")), name) == (
            row.flat, row.cumulative, row.name)  # fmt: skip


def test_a_file_is_in_the_format_that_its_name_says(both: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("grown.pb.gz", "grown.folded", "grown.txt", "grown.html"):
        assert gomem("diff", *both, "-o", tmp_path / name).stdout == ""
    assert top(str(tmp_path / "grown.pb.gz"), unit="B") == top(f"-diff_base={both[0]}", str(both[1]), unit="B")
    lines = (tmp_path / "grown.folded").read_text().splitlines()
    assert all(re.fullmatch(r"runtime\..* \d+ \d+", line) for line in lines)
    before, after = (sum(row.flat for row in top(str(one), unit="B")) for one in both)
    assert sum(int(line.split(" ")[-2]) for line in lines) == before
    assert sum(int(line.split(" ")[-1]) for line in lines) == after
    assert (tmp_path / "grown.txt").read_text() == gomem("diff", *both).stdout
    page = (tmp_path / "grown.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "main.leaf" in page
    piped = gomem("diff", *both, "--format", "folded")
    assert piped.stdout.splitlines() == lines


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_a_table_that_fits(both: tuple[Path, Path], columns: int) -> None:
    shown = on_a_terminal("diff", *both, "--sample-type", "alloc_space", "--top", 50, columns=columns)
    assert shown.status == 0
    assert all(len(line) <= columns for line in shown.screen)
    assert any(line.endswith("main.leaf") for line in shown.screen)
    assert "\x1b[2m" in shown.written


def test_a_terminal_gets_no_bytes(both: tuple[Path, Path]) -> None:
    shown = on_a_terminal("diff", *both, "--format", "pprof")
    assert shown.status == EXIT_USAGE
    assert "this is a terminal" in " ".join(shown.screen)


def test_profiles_of_other_programs_are_compared_with_a_warning(both: tuple[Path, Path], tmp_path: Path) -> None:
    other = next(file for file in written_by_go(build("profiles", "1.19"), tmp_path) if "heap.after" in file.name)
    done = gomem("diff", both[0], other)
    assert done.status == 0
    assert "different programs" in done.stderr
    assert "main.leaf" in done.stdout


def test_what_cannot_be_compared_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    heap, cut, text = files["heap.after"], tmp_path / "cut.pb.gz", tmp_path / "text"
    cut.write_bytes(heap.read_bytes()[:200])
    text.write_text("heap profile: 1: 2 [3: 4] @ heap/1048576\n")
    assert "cut or damaged" in gomem("diff", heap, cut).refusal(EXIT_FAILED)
    assert "without ?debug" in gomem("diff", text, heap).refusal(EXIT_FAILED)
    assert "No such file" in gomem("diff", tmp_path / "none", heap).refusal(EXIT_FAILED)
    assert "no sample type in common" in gomem("diff", heap, files["cpu"]).refusal(EXIT_FAILED)
    assert "has no sample type 'cpu'" in gomem("diff", heap, heap, "--sample-type", "cpu").refusal(EXIT_USAGE)
    assert "no directory" in gomem("diff", heap, heap, "-o", tmp_path / "no/file").refusal(EXIT_FAILED)
