"""Which releases the scheduled job makes tables for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import toolchains
from tests.support.new_release import with_release, without_tables


@pytest.mark.parametrize(
    ("versions", "missing"),
    [
        (["1.27.3", "1.27.0", "1.26.6"], []),
        (["1.27.4"], []),  # a patch release is read by its minor's table
        (["1.9.9", "1.21.13"], []),
        (["1.28.0", "1.28.2", "1.28.10", "1.27.3"], [["1.28.0", "1.28.10"]]),
        (["1.29.0", "1.28.1"], [["1.28.1"], ["1.29.0"]]),
        (["2.0.0"], [["2.0.0"]]),
        (["1.28.0rc1", "1.28.0.1"], []),
    ],
)
def test_the_first_and_the_newest_patch_of_each_minor_behind_the_tables(
    versions: list[str], missing: list[list[str]], tmp_path: Path
) -> None:
    for name in ("go1.9-amd64.json", "go1.27-amd64.json", "go1.27-arm64.json", "go1.30-arm64.json"):
        (tmp_path / name).touch()
    assert without_tables(versions, tmp_path) == missing


def test_the_tests_learn_of_the_release_once() -> None:
    source = Path(toolchains.__file__).read_text()
    changed = with_release(source, "1.99.1")
    names: dict[str, tuple[str, ...]] = {}
    exec(next(line for line in changed.splitlines() if line.startswith("PYPI = ")), names)
    assert names["PYPI"] == (*toolchains.PYPI, "1.99.1")
    assert with_release(changed, "1.99.1") == changed
    assert len(changed.splitlines()) == len(source.splitlines())


def test_a_list_that_is_written_otherwise_is_an_error_and_no_silence() -> None:
    with pytest.raises(ValueError, match="PYPI"):
        with_release("RELEASES = []\n", "1.99.1")
