"""What the command line refuses before it looks at any process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gomem.tracer import __version__
from gomem.tracer.cli import main


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("trace",),
        ("trace", "--pid", "0"),
        ("trace", "--pid", "-5"),
        ("trace", "--pid", "x"),
        ("trace", "--pid", str(1 << 70), "--format", "yaml"),
        ("trace", "--pid", "1", "--duration", "-1"),
        ("trace", "--pid", "1", "--duration", "soon"),
        ("trace", "--pid", "1", "--backend", "ebpf"),
        ("trace", "--nonsense"),
        ("trace", "--pid", "1", "--with", "everything"),
        ("trace", "--pid", "1", "--with", "spans", "--backend", "strace"),
        ("trace", "--pid", "1", "--with", "spans", "--budget", "0"),
        ("record", "--pid", "1", "--with", "spans", "--budget", "nan"),
        ("trace", "--pid", "1", "--with", "spans", "--budget", "101"),
        ("serve", "--budget", "0"),
        ("trace", "--pid", "1", "--with", "rss", "--backend", "procfs"),
        ("record", "--pid", "1", "--with", "page-faults", "--backend", "strace"),
        ("snapshot",),
        ("snapshot", "--pid", "0"),
        ("snapshot", "--pid", "1", "--format", "xml"),
        ("snapshot", "--pid", "1", "--duration", "3"),
        ("doctor", "--format", "xml"),
        ("doctor", "surplus"),
    ],
)
def test_nonsense_is_refused_with_2_and_without_a_traceback(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.output.strip()


def test_the_way_out_is_told() -> None:
    result = run("trace")
    assert "gomem: give one of these: PID, --exe NAME, or -- COMMAND" in result.stderr
    assert "gomem trace 4711" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("words", [("-h",), ("trace", "-h"), ("snapshot", "--help"), ("doctor", "-h"), ("--version",)])
def test_help_and_version_are_on_stdout(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert ("gomem" in result.stdout) or ("Usage" in result.stdout)


def test_the_version_is_the_packages() -> None:
    assert __version__ in run("--version").stdout


@pytest.mark.parametrize("command", [("snapshot",), ("trace", "--duration", "0")])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    nowhere = tmp_path / "missing" / "report.json"
    result = run(*command, "--pid", str(os.getpid()), "-o", str(nowhere))
    assert result.exit_code not in (0, 77)
    assert str(nowhere) in result.stderr
    assert not nowhere.parent.exists()


def test_debug_shows_where_an_error_came_from() -> None:
    assert "Traceback" in run("--debug", "trace").stderr
    assert "Traceback" not in run("trace").stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("trace", "--", "/no/such/program"), 127),
        (("trace", "--", "no-such-program"), 127),
        (("record", "--", "/"), 126),
        (("trace", "--", "/etc/passwd"), 126),
        (("trace", "--pid", "1", "--", "/bin/true"), 125),
        (("trace", "--nonsense", "--", "/bin/true"), 125),
        (("trace", "-d", "soon", "--", "/bin/true"), 125),
        (("trace", "-o", "/no/such/directory/x", "--", "/bin/true"), 125),
    ],
)
def test_what_gomem_could_not_do_is_told_from_the_commands_own_code(words: tuple[str, ...], code: int) -> None:
    result = run(*words)
    assert result.exit_code == code
    assert "Traceback" not in result.output


def test_the_help_of_serve_shows_its_examples_one_a_line() -> None:
    lines = [line.strip() for line in run("serve", "--help").output.splitlines()]
    assert "gomem serve --pid 4711" in lines
    assert "gomem serve --exclude-uid 0 --compat go-collector" in lines
    assert not [line for line in lines if "\\b" in line or "\b" in line]


def test_examples_stand_in_lines_of_their_own() -> None:
    page = run("goroutines", "--help").output
    lines = [line.strip() for line in page.splitlines()]
    assert "gomem goroutines PID --by reason     by what they wait for" in lines
    assert "\b" not in page
    assert "\\b" not in page
