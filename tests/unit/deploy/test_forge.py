"""What a public forge reads: workflows, hooks, forms, the version. `make lint` checks their syntax."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gomem.tracer import __version__

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return loaded


def commands(jobs: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])


def test_ci_runs_lint_unit_tests_wheel_image_and_documents() -> None:
    jobs = workflow("ci.yml")["jobs"]
    assert set(jobs) == {"lint", "unit", "wheel", "image", "documents"}
    said = commands(jobs)
    for command in ("make lint", "make test-unit", "make wheel", "docker build", "make docs"):
        assert command in said


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_bounded_time_and_says_its_rights(path: Path) -> None:
    described = workflow(path.name)
    assert described["permissions"]
    for job in described["jobs"].values():
        assert job["timeout-minutes"] <= 30
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_calls_is_there(path: Path) -> None:
    said = commands(workflow(path.name)["jobs"])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"^\s*make ([a-z-]+)", said, re.MULTILINE):
        assert target in targets
    modules = re.findall(r"-m ([a-z_.]+)", said)
    for module in modules:
        assert importlib.util.find_spec(module), module
    for named in re.findall(r"(?<![\w/.])(?:deploy|tracer|bpf|exporters|tests)/[\w/.-]+", said):
        assert (ROOT / named).exists(), named


def test_the_layouts_job_commits_all_that_its_command_writes() -> None:
    from gomem.tracer.layout import generate
    from tests.support import toolchains

    added = re.search(r"git add (.+)$", commands(workflow("layouts.yml")["jobs"]), re.MULTILINE)
    assert added
    written = {generate.TABLES, Path(toolchains.__file__)}
    assert {(ROOT / name).resolve() for name in added[1].split()} == {path.resolve() for path in written}


def test_hooks_download_nothing() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format", "mypy"]
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        program = Path(shlex.split(hook["entry"])[0])
        assert program.parent == Path(".venv/bin")
        assert (Path(sys.executable).parent / program.name).exists()


def test_each_form_asks_for_what_a_maintainer_needs_first() -> None:
    for name, needed in (("wrong-figure", {"said", "truth", "command", "versions"}), ("fault", {"doctor", "command"})):
        form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
        required = {part["id"] for part in form["body"] if part.get("validations", {}).get("required")}
        assert needed <= required


def test_the_changelog_says_what_is_in_this_version() -> None:
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
