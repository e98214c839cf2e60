from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from gomem.bpf import bcc_import
from gomem.tracer.errors import BackendUnavailable


@pytest.fixture(autouse=True)
def _bcc_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "bcc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_without_bcc_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bcc_import, "_DIRECTORIES", (str(tmp_path),))
    with pytest.raises(BackendUnavailable) as caught:
        bcc_import.import_bcc()
    assert "python3-bpfcc" in caught.value.fix


def test_only_the_package_is_taken_from_the_systems_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("from .part import answer\n")
    (tmp_path / "bcc" / "part.py").write_text("answer = 42\n")
    (tmp_path / "other_package.py").write_text("")
    monkeypatch.setattr(bcc_import, "_DIRECTORIES", (str(tmp_path / "missing"), str(tmp_path)))
    before = list(sys.path)
    assert bcc_import.import_bcc().answer == 42
    assert sys.path == before
    for name in ("bcc", "bcc.part"):  # for good: monkeypatch would put them back
        del sys.modules[name]


def test_a_bcc_that_cannot_load_its_library_leaves_no_half_imported_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("raise OSError('libbcc.so.0: cannot open shared object file')\n")
    monkeypatch.setattr(bcc_import, "_DIRECTORIES", (str(tmp_path),))
    with pytest.raises(BackendUnavailable, match=r"libbcc\.so\.0"):
        bcc_import.import_bcc()
    assert "bcc" not in sys.modules
