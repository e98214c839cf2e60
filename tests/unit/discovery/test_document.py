"""docs/discovery.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import yaml

from gomem.tracer.discovery import cluster, discovery, pods, prober, recognition, selection, timetable
from gomem.tracer.discovery import workloads as workload

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs/discovery.md").read_text()


def test_every_variable_is_described_and_no_other() -> None:
    source = Path(workload.__file__).read_text()
    read = set(re.findall(r'environ\.get\("(GOMEM_[A-Z_]+)"', source))
    assert set(re.findall(r"GOMEM_[A-Z_]+", TEXT)) == read


def test_every_condition_has_its_option() -> None:
    options = {field.name for field in fields(selection.Conditions)} | {"pid"}
    assert set(re.findall(r"^\| `--([a-z]+) ", TEXT, re.MULTILINE)) == options


def test_the_role_lets_gomem_read_pods_and_nothing_else() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    role, binding = yaml.safe_load_all(block)
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_the_bounds_are_those_of_the_code() -> None:
    for number in (recognition.MOST_FILES, timetable.MOST_PENDING, pods.MOST_PODS):
        assert f"{number:,}" in TEXT
    assert f"each {pods.MOST_CONTAINERS} containers" in TEXT
    assert f"do not answer | {prober.MOST_STUCK} |" in TEXT
    assert f"{cluster.MOST_BYTES >> 20} MiB, {cluster.MOST_LINE >> 20} MiB" in TEXT
    assert f"leaves that look behind after {prober.PATIENCE:.0f} seconds" in TEXT
    assert f"listed every {discovery.SCAN_EVERY:.0f} seconds" in TEXT
    assert f"scan every {discovery.RESCAN_EVERY:.0f} seconds" in TEXT
    assert f"first {selection.SHORTEST_ID} or more digits" in TEXT
