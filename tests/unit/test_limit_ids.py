"""Every kind of limit has a name for programs, which no renderer shows and no rewording changes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gomem.tracer.events.optional_roles import OptionalRole, not_seen
from gomem.tracer.program.go_program import WITHOUT_GO
from gomem.tracer.recording.columns import Json
from gomem.tracer.recording.encoding import rebuild
from gomem.tracer.report import Limit

KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ROOT = Path(__file__).parents[2]
# Functions that take the id from whoever calls them, as their first argument.
PASSES_ON = {"tracer/kernel/view.py": "_limit", "tracer/program/go_program.py": "_limit"}
PASSED_ON = {name: (ast.Name,) for name in PASSES_ON} | {"tracer/events/optional_roles.py": (ast.JoinedStr,)}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of functions by plain names in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def ids() -> Iterator[tuple[str, str]]:
    """Yield where a limit is made, and its id; "" for one that is no constant."""
    for package in ("tracer", "bpf", "exporters"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for function, call in calls(path):
                if function not in ("Limit", PASSES_ON.get(name)):
                    continue
                first = call.args[0]
                if isinstance(first, ast.Constant):
                    yield f"{name}:{call.lineno}", str(first.value)
                elif not isinstance(first, PASSED_ON.get(name, ())):
                    yield f"{name}:{call.lineno}", ""


def test_every_limit_that_is_made_has_an_id_in_kebab_case() -> None:
    found = dict(ids())
    assert len(found) > 50
    assert {where: name for where, name in found.items() if not KEBAB.fullmatch(name)} == {}
    assert all(KEBAB.fullmatch(limit.id) for limit in not_seen(list(OptionalRole), "why"))
    assert set(found.values()) >= WITHOUT_GO


def test_a_recording_from_before_limits_had_ids_is_read() -> None:
    old: dict[str, Json] = {"what": "memory cgroup", "why": "gone", "fix": ""}
    assert rebuild(Limit, old, {}) == Limit("unknown", "memory cgroup", "gone", "")
