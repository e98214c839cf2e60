"""The page of a flame graph: its tree has every value, and its size has a limit."""

from __future__ import annotations

import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from gomem.exporters.flamegraph.page import flame_graph
from gomem.exporters.flamegraph.tree import NOT_SHOWN, flame_tree
from gomem.exporters.profile.difference import difference
from gomem.tracer.report.profile import Profile
from tests.support.samples.profiles import heap, hostile, profiles

VENDOR = Path(__file__).parents[4] / "exporters/vendor"
# Of the files as the npm registry has them; tests/live/exporters/test_flame_graph.py holds them against it.
HASHES = {
    "d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "d3-flamegraph.umd.min.js": "5f8d8bc7bf7f8329248d43c1e215431a88f77e17daa217f3c31b019b8b71b3f7",
}
SPACE = 3


def content(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="profile">(.*?)</script>', page)
    assert found is not None
    said: dict[str, Any] = json.loads(found[1])
    return said


@given(profiles())
@settings(max_examples=30, deadline=None)
def test_the_tree_has_every_value(profile: Profile) -> None:
    tree = flame_tree(profile, difference=False)
    for index in range(len(profile.sample_types)):
        assert sum(own[index] for own in tree.own.values()) == sum(sample.values[index] for sample in profile.samples)
    assert all(caller < frame for frame, caller in enumerate(tree.caller))


def test_a_tree_that_is_too_large_keeps_the_largest_stacks_and_every_value() -> None:
    profile = heap(("main;a;b;c", 1, 1), ("main;large;one", 1, 1000), ("main;d", 1, 10))
    tree = flame_tree(profile, difference=False, most=4)
    names = [tree.names[name] for name in tree.name]
    assert names == ["all", "main", "large", "one", NOT_SHOWN]
    assert tree.cut == 2
    assert tree.own == {3: [2, 2000, 1, 1000], 4: [4, 22, 2, 11]}


def test_a_stack_that_is_too_deep_is_cut() -> None:
    tree = flame_tree(heap(("main;a;b;c", 1, 7)), difference=False, deepest=2)
    assert [tree.names[name] for name in tree.name] == ["all", "main", "a", NOT_SHOWN]
    assert tree.own == {3: [2, 14, 1, 7]}


def test_a_difference_has_both_values() -> None:
    profile = difference(heap(("main;a", 1, 5)), heap(("main;a", 2, 7)))
    said = content(flame_graph(profile, SPACE))
    assert said["difference"]
    assert said["own"] == [[2, 2, 10, 1, 5, 4, 14, 2, 7]]


def test_hostile_names_are_data_and_nothing_else() -> None:
    page = flame_graph(hostile(), SPACE)
    assert page.count("<script") == page.count("</script") == 4
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert max(map(len, content(page)["names"])) == 500
    assert len(page) < 330_000  # 294 KB of it are the two libraries


def test_the_policy_names_what_is_in_the_page_and_nothing_else() -> None:
    page = flame_graph(heap(("main", 1, 1)), SPACE)
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = html.unescape(found[1])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert policy.count("'sha256-") == 5


def test_the_libraries_are_unchanged() -> None:
    found = {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in HASHES}
    assert found == HASHES
    assert "Mike Bostock" in (VENDOR / "LICENSE.d3").read_text()
    assert "Apache License" in (VENDOR / "LICENSE.d3-flame-graph").read_text()
