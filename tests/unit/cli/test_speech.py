from __future__ import annotations

import ast
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.tracer.cli import main
from gomem.tracer.cli.options import say
from gomem.tracer.cli.speech import LONGEST, tell_error, tell_trace
from gomem.tracer.errors import BackendUnavailable, TargetError

ROOT = Path(__file__).parents[3]
# What writes to a terminal or a log: the gate, the report (whose cells are cleaned), and what speaks to no person.
MAY_WRITE = {"tracer/cli/speech.py", "exporters/output.py", "tracer/snapshot/freezer.py", "tracer/layout/generate.py"}
WRITERS = {"echo", "secho", "print_exception", "print_exc", "format_exc"}

names = st.text(st.characters(), max_size=60) | st.sampled_from(
    ["\x1b]0;title\x07", "\x9b2J", "a\nb\r\u2028c", "\u202egnp.exe", "\u2066\u200b\ufeff", "\udcff", "x" * 100_000]
)


@given(names, names)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_process_is_called_what_is_said_of_it_is_printable_and_bounded(
    capsys: pytest.CaptureFixture[str], comm: str, path: str
) -> None:
    capsys.readouterr()
    say(f"watching process 1 ({comm})")
    tell_error(TargetError(f"process 1 ({comm}) executed another program: it is {path} now", f"look at {path}"))
    tell_error(TargetError(f"process 1 ({comm}) has exited"))
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.removesuffix("\n").split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() and len(line) <= LONGEST for line in lines), lines


def test_what_there_is_to_choose_from_stands_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell_error(TargetError("2 Go processes are called cyc", choices=["  11  /bin/cyc", "  12  /bin/c\nyc"]))
    said = capsys.readouterr().err.splitlines()
    assert said == ["gomem: 2 Go processes are called cyc", "    11  /bin/cyc", "    12  /bin/c\\x0ayc"]


def test_a_traceback_keeps_its_lines_and_no_escape(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise BackendUnavailable("refused \x1b[2J", "", "the verifier:\n\x1b[31m0: (b7) r0 = 0\x07")
    except BackendUnavailable as error:
        tell_trace(error)
    said = capsys.readouterr().err
    assert "Traceback (most recent call last):" in said.splitlines()
    assert "\\x1b[31m0: (b7) r0 = 0\\x07" in said.splitlines()
    assert said.replace("\n", "").isprintable()


def test_words_that_make_no_sense_are_quoted_harmlessly() -> None:
    for words in (["snapshot", "--pid", "\x1b[2J\nx"], ["\x9bnone"], ["trace", "--\u202eno"]):
        said = CliRunner().invoke(main, words).output
        assert said
        assert all(line.isprintable() for line in said.split("\n")), said


def _writes(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id == "print" or function.id in WRITERS
    if not isinstance(function, ast.Attribute):
        return False
    if function.attr == "write":
        return isinstance(function.value, ast.Attribute) and function.value.attr in ("stderr", "stdout")
    return function.attr in WRITERS


def test_nothing_is_said_past_the_gate() -> None:
    found = []
    for room in ("tracer", "bpf", "exporters"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            found += [f"{name}:{call.lineno}" for call in calls if name not in MAY_WRITE and _writes(call)]
    assert not found, f"say it with gomem.tracer.cli.speech: {found}"
