"""The scheduled job, as if the newest release had no tables: what it makes is what is committed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gomem.tracer.layout import generate
from tests.support import new_release, toolchains
from tests.support.cache import cache_dir
from tests.support.requirements import absent


def test_tables_of_a_release_that_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = toolchains.PYPI[-1]
    toolchains.toolchain(newest)
    tables = tmp_path / "tables"
    shutil.copytree(generate.TABLES, tables)
    removed = [path for path in tables.iterdir() if path.name.startswith(f"go{newest.rpartition('.')[0]}-")]
    committed = {path.name: json.loads(path.read_text()) for path in removed}
    for path in removed:
        path.unlink()
    try:
        due = new_release.without_tables(new_release.offered(), tables)
    except toolchains.ToolchainMissing as missing:
        absent(str(missing))
    # PyPI may have newer ones by now.
    assert newest.rpartition(".")[0] in [releases[-1].rpartition(".")[0] for releases in due]

    monkeypatch.setenv("GOCACHE", str(cache_dir() / "go-build"))
    new_release.make_tables([newest], tables)

    made = {path.name: json.loads(path.read_text()) for path in removed}
    for table in (*made.values(), *committed.values()):
        assert newest in table.pop("measured")
    assert made == committed
    assert new_release.without_tables([newest], tables) == []
