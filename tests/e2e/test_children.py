"""The Go processes that a traced process starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.command import gomem, obeys_the_rules

pytestmark = pytest.mark.parametrize("backend", [pytest.param("bpf", marks=pytest.mark.bpf), "strace", "procfs"])


def traced(file: Path, script: str, backend: str) -> dict[str, Any]:
    words = ("trace", "--follow-children", "--backend", backend, "--format", "json", "-o", file)
    done = gomem(*words, "--", "sh", "-c", script)
    assert done.status == 5, done.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def test_children_that_are_go_have_reports_of_their_own(backend: str, tmp_path: Path) -> None:
    churn, tiny = build("churn", "1.25.5"), build("tiny", "1.19")
    script = f"sleep 1 & {churn} -mb 16 -phase 100ms -seconds 4 & (sh -c 'exec {tiny} -hold 4s; :'); wait; exit 5"
    report = traced(tmp_path / "report", script, backend)
    children = {Path(child["process"]["exe"]).name: child for child in report["children"]}
    assert sorted(children) == ["churn", "tiny"], "sleep and the shells are no Go programs"
    assert children["churn"]["process"]["go_version"] == "go1.25.5"
    assert children["tiny"]["process"]["go_version"].startswith("go1.19")
    for child in children.values():
        assert child["memstats"]["HeapInuse"] > 0
        assert child["ending"]["exit_code"] in (0, None)
        assert child["chapters"] is None
        obeys_the_rules(child)
    if backend == "bpf" and children["churn"]["events"] is not None:
        assert children["churn"]["events"]["unused"]["bytes"] > 0


def test_without_the_wish_there_are_none(backend: str, tmp_path: Path) -> None:
    file = tmp_path / "report"
    done = gomem("trace", "--backend", backend, "--format", "json", "-o", file, "--", "sh", "-c", "exit 0")
    assert done.status == 0
    assert json.loads(file.read_text())["children"] is None
