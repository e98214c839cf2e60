from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from gomem.tracer.cli import main
from gomem.tracer.cli.options import Size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("170M", 170 << 20), ("2G", 2 << 30), ("2g", 2 << 30), ("180MiB", 180 << 20), ("180 MB", 180 << 20),
        ("64k", 64 << 10), ("1.5G", 3 << 29), ("123456789", 123456789), (" 1M ", 1 << 20), ("0", 0),
    ],
)  # fmt: skip
def test_sizes_as_people_type_them(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1M", "1T", "1 2M", "170Mi b", "nan", "inf", "1e9", "0x10", "\u0661M", "1.M", "9" * 10, "half"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size: give 170M"):
        Size().convert(text, None, None)


def test_a_memory_budget_that_is_none_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["serve", "--memory-budget=much"])
    assert result.exit_code == 2
    assert "--memory-budget" in result.stderr
    assert "Traceback" not in result.output
