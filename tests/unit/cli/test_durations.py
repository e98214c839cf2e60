from __future__ import annotations

import pytest
from click.testing import CliRunner

from gomem.tracer.cli import main
from gomem.tracer.cli.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10), ("2m", 120), ("1h30m", 5400), ("500ms", 0.5), ("1.5s", 1.5), ("2min", 120), ("1m0.5s", 60.5),
        ("1H", 3600), (" 3s ", 3), ("0s", 0),
    ],
)  # fmt: skip
def test_durations_as_people_type_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "10", "10 s 5", "10x", "-3s", "1h-3m", "s10", "1e3s", "nan", "\u0663s", "9" * 99 + "s"]
)
def test_what_is_no_duration_with_units(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize("text", ["-1", "-1s", "nan", "inf", "soon", "10x", "1e999", "9" * 400])
def test_what_is_no_time_is_a_usage_error(text: str) -> None:
    result = CliRunner().invoke(main, ["trace", "1", f"--duration={text}"])
    assert result.exit_code == 2
    assert "--duration" in result.stderr
    assert "Traceback" not in result.output
