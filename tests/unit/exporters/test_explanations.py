"""What findings and words mean: each is explained, and nothing that is none."""

from __future__ import annotations

import ast
from pathlib import Path

from gomem.exporters.explanations import explanations

FINDINGS = Path(__file__).parents[3] / "tracer" / "report" / "findings"
IDS_AT = {"_near": 1}  # functions that are given an id: which argument that is


def strings(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def ids() -> set[str]:
    """Return the ids that the rules give to their findings."""
    found: set[str] = set()
    for path in FINDINGS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "Finding":
                found |= {one for word in node.keywords if word.arg == "id" for one in strings(word.value)}
            if node.func.id in IDS_AT:
                found |= strings(node.args[IDS_AT[node.func.id]])
    return found


def test_each_finding_is_explained_and_nothing_else() -> None:
    assert {one.name for one in explanations().values() if one.finding} == ids()


def test_an_explanation_is_a_paragraph_with_its_sources() -> None:
    for one in explanations().values():
        assert one.text.endswith("."), one.name
        assert one.sources, one.name
        assert "\n" not in one.text


def test_words_of_one_row_are_found_each() -> None:
    found = explanations()
    assert found["M"].text == found["G"].text
    assert found["M"].text.startswith("M, P, G: an OS thread")
    assert found["scavenged"].sources == "runtime/mstats.go"
    assert "word" not in found
