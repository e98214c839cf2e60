"""Files that an older gomem wrote are replayed as it replayed them itself. They are never made anew.

before-limit-ids.rec: limits had no ids yet. before-msgspec.rec, and the report of it by the code of then: values were
decoded by a walk over type hints. Both are of tests/support/recordings.py, a process that never was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.json.report import report_object
from gomem.exporters.json.schema import validate
from gomem.tracer.replay.recording import replay_recording
from tests.support.rules import broken_rules

BEFORE = Path(__file__).parent / "before"
WORDS = ("findings", "limits", "backend_reason")  # which may be put better


def kept(before: Any, now: Any, place: str = "$") -> list[str]:
    """Return where `now` lacks, or has otherwise, what `before` has; it may have more."""
    if isinstance(before, dict) and isinstance(now, dict):
        lacks = [f"{place}.{name}" for name in before if name not in now]
        shared = [name for name in before if name in now]
        return lacks + [why for name in shared for why in kept(before[name], now[name], f"{place}.{name}")]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [why for at, one in enumerate(before) for why in kept(one, now[at], f"{place}[{at}]")]
    return [] if before == now else [f"{place}: {now!r} for {before!r}"]


def test_a_file_of_before_gives_the_report_of_then() -> None:
    then = json.loads((BEFORE / "before-msgspec.json").read_text())
    now = report_object(replay_recording(str(BEFORE / "before-msgspec.rec")))
    assert kept({name: part for name, part in then.items() if name not in WORDS}, now) == []
    assert sum(isinstance(part, dict | list) for part in then.values()) > 15


@pytest.mark.parametrize("name", ["before-msgspec", "before-limit-ids"])
def test_the_report_of_a_file_of_before_is_one_of_now(name: str) -> None:
    now = report_object(replay_recording(str(BEFORE / f"{name}.rec")))
    validate(now)
    assert broken_rules(now) == []


def test_limits_without_ids_are_unknown_ones() -> None:
    limits = replay_recording(str(BEFORE / "before-limit-ids.rec")).limits
    assert [(limit.id, limit.what, limit.why) for limit in limits if limit.what == "b"] == [("unknown", "b", "c")]
