"""`gomem explain`, shell completion and the man pages, as a person uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gomem.tracer.errors import EXIT_USAGE
from tests.support.command import executable, gomem

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("retained-idle-heap",), "Free heap pages that the runtime keeps are much of RSS."),
        (("live", "heap"), "what the last collection marked"),
        (("vsz",), "all address space that is mapped"),
    ],
)
def test_a_word_is_explained_with_its_source(asked: tuple[str, ...], said: str) -> None:
    done = gomem("explain", *asked)
    assert done.status == 0
    assert said in " ".join(done.stdout.split())
    assert "\nSource: " in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_without_a_word_all_are_listed() -> None:
    listed = gomem("explain").stdout
    assert "oom-kills" in listed
    assert "scavenger" in listed
    as_json = json.loads(gomem("explain", "--format", "json").stdout)["explanations"]
    assert all(one["name"] in " ".join(listed.split()) for one in as_json)


def test_what_nobody_knows_is_told_with_what_is_near() -> None:
    done = gomem("explain", "retained-heap")
    assert done.status == EXIT_USAGE
    assert "no word or finding is called 'retained-heap'" in done.stderr
    assert "retained-idle-heap" in done.stderr


def test_a_shell_completes_commands_and_findings() -> None:
    for typed, expected in (("gomem exp", "plain,explain"), ("gomem explain reserv", "plain,reserved-address-space")):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_GOMEM_COMPLETE": "bash_complete"}
        done = subprocess.run([executable()], env=os.environ | words, capture_output=True, text=True, check=False)
        assert expected in done.stdout.splitlines()


def test_man_pages_are_made_of_the_help(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "deploy.man", tmp_path], check=True, cwd=ROOT)
    page = (tmp_path / "gomem-explain.1").read_text()
    assert "the id of a finding means" in page
    assert {file.name for file in tmp_path.iterdir()} >= {"gomem.1", "gomem-trace.1", "gomem-doctor.1"}
