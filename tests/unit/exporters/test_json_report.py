from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from gomem.exporters.json.report import render_json
from gomem.exporters.json.schema import load_schema, report_schema, validate
from gomem.tracer.report import KINDS, SCHEMA, Report
from tests.support.rules import KINDS as RULED_KINDS
from tests.support.rules import broken_rules
from tests.support.samples.reports import SAMPLES, grown_and_scavenged, kernel_only, lazily_freed

PARTS = {
    "virtual": "Virtual", "resident": "Resident", "heap": "Heap", "process": "ProcessFacts",
    "consistency": "Consistency", "event_loss": "EventLoss", "overhead": "Overhead", "accounting": "Accounting",
    "memstats": "MemStats",
}  # fmt: skip

every_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


def any_order(value: Any) -> Any:
    """Return `value` with its lists in one order: alternatives and names come in any, by the release of msgspec."""
    if isinstance(value, dict):
        return {name: any_order(one) for name, one in value.items()}
    if isinstance(value, list):
        return sorted((any_order(one) for one in value), key=lambda one: json.dumps(one, sort_keys=True))
    return value


def parsed(report: Report) -> dict[str, Any]:
    value = json.loads(render_json(report))
    assert isinstance(value, dict)
    return value


@every_sample
def test_every_sample_is_valid_and_obeys_the_rules(sample: Callable[[], Report]) -> None:
    body = parsed(sample())
    validate(body)
    assert broken_rules(body) == []


@every_sample
def test_json_is_one_line_and_ends_with_a_newline(sample: Callable[[], Report]) -> None:
    text = render_json(sample())
    assert text.endswith("}\n")
    assert text.count("\n") == 1


def test_keys_stand_in_the_order_of_the_contract() -> None:
    report = grown_and_scavenged()
    assert report.memstats is not None
    shuffled = replace(report, memstats=dict(sorted(report.memstats.items(), reverse=True)))
    body = parsed(shuffled)
    assert list(body)[:5] == ["schema", "taken_at", "duration_seconds", "backend", "backend_reason"]
    assert list(body)[-1] == "children"
    assert list(body["memstats"])[:4] == ["Alloc", "TotalAlloc", "Sys", "Mallocs"]
    assert list(body["memstats"])[-1] == "BySize"
    assert render_json(shuffled) == render_json(report)


def test_transitions_have_from_and_to() -> None:
    row = parsed(grown_and_scavenged())["transitions"][0]
    assert (row["from"], row["to"]) == ("Ready", "Prepared")


def test_unprintable_characters_of_the_target_are_escaped_but_kept() -> None:
    hostile = "\x1b]0;owned\x07 \x9b31m \u202e \udcff ü \U0001f600 \U000e0001"
    report = replace(grown_and_scavenged(), process=replace(grown_and_scavenged().process, cmdline=[hostile]))
    text = render_json(report)
    assert all(character.isprintable() for character in text.rstrip("\n"))
    text.encode("utf-8")
    assert json.loads(text)["process"]["cmdline"] == [hostile.replace("\udcff", "\ufffd")]


def test_numpy_figures_are_plain_numbers_and_not_a_number_is_null() -> None:
    report = grown_and_scavenged()
    assert report.resident is not None
    odd = replace(
        report,
        resident=replace(report.resident, pss=np.int64(7)),
        overhead=replace(report.overhead, target_slowdown_estimate=float("nan")),
    )
    body = parsed(odd)
    assert body["resident"]["pss"] == 7
    assert body["overhead"]["target_slowdown_estimate"] is None


def test_schema_is_valid_and_knows_the_kinds_of_the_code() -> None:
    schema: Any = load_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["enum"] == [SCHEMA]
    assert schema["$defs"]["KindRow"]["properties"]["kind"]["enum"] == list(KINDS)
    assert set(KINDS) == RULED_KINDS


def test_schema_requires_every_field_that_a_report_has() -> None:
    schema: Any = load_schema()
    body = parsed(grown_and_scavenged())
    assert schema["required"] == list(body)
    for part, name in PARTS.items():
        definition = schema["$defs"][name]
        assert set(definition["properties"]) == set(definition["required"]) == set(body[part]), part


def test_schema_requires_every_field_of_every_part_and_bounds_every_size() -> None:
    definitions: Any = load_schema()["$defs"]
    assert len(definitions) > 50
    for name, part in definitions.items():
        assert sorted(part["required"]) == sorted(part["properties"]), name
        assert part.get("additionalProperties", True) is True, name
    sizes = [field for part in ("Resident", "Arena", "MemStats") for field in definitions[part]["properties"].values()]
    text = json.dumps([field for field in sizes if "array" not in json.dumps(field)])
    assert text.count('"integer"') == text.count('"minimum": 0') == 48


def test_the_schema_in_the_file_is_that_of_the_types() -> None:
    assert any_order(load_schema()) == any_order(report_schema()), (
        "write it anew: python -m gomem.exporters.json.schema"
    )


BREAKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a figure is negative": lambda body: body["virtual"].update(total=-1),
    "a size is a float": lambda body: body["resident"].update(total=1.5),
    "a kind is unknown": lambda body: body["kinds"][0].update(kind="heap"),
    "a state is unknown": lambda body: body["transitions"][0].update({"from": "ready"}),
    "a severity is unknown": lambda body: body["findings"][0].update(severity="error"),
    "the backend is unknown": lambda body: body.update(backend="ptrace"),
    "a part is missing": lambda body: body.pop("heap"),
    "a memstat is text": lambda body: body["memstats"].update(Sys="1"),
    "another schema": lambda body: body.update(schema="gomem.report/2"),
}


@pytest.mark.parametrize("spoil", BREAKS.values(), ids=BREAKS.keys())
def test_schema_refuses(spoil: Callable[[dict[str, Any]], object]) -> None:
    body = parsed(grown_and_scavenged())
    spoil(body)
    with pytest.raises(ValueError, match=r"\$"):
        validate(body)


def test_schema_allows_new_fields() -> None:
    body = parsed(grown_and_scavenged())
    body["numa"] = {"nodes": 2}
    body["virtual"]["guard"] = 4096
    validate(body)


RULES_BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "four parts": lambda body: body["virtual"].update(ready=body["virtual"]["ready"] + 4096),
    "kinds.virtual": lambda body: body["kinds"][1].update(virtual=body["kinds"][1]["virtual"] + 4096),
    "kinds.resident": lambda body: body["kinds"][1].update(resident=0),
    "kinds.prepared": lambda body: body["kinds"][0].update(prepared=0),
    "HeapSys": lambda body: body["memstats"].update(HeapIdle=0),
    "HeapInuse": lambda body: body["heap"]["pages"].update(in_use=1),
    "HeapReleased": lambda body: body["heap"]["pages"].update(scavenged=1),
    "HeapObjects": lambda body: body["memstats"].update(Mallocs=body["memstats"]["Mallocs"] + 1),
    "arenas.free": lambda body: body["heap"]["arenas"][0].update(free=0),
    "arenas.resident": lambda body: body["heap"]["arenas"][0].update(resident=0),
    "spans.pages": lambda body: body["spans"][-1].update(pages=0, tail_waste=0),
    "span_states.manual": lambda body: body["span_states"]["manual"].update(bytes=0),
    "free_slots": lambda body: body["spans"][0].update(free_slots=0),
    "StackInuse": lambda body: body["memstats"].update(StackInuse=0),
    "sum of its parts": lambda body: body["memstats"].update(Sys=1),
    "madvise": lambda body: body["madvise"]["dontneed"].update(count=1),
    "limits does not say why": lambda body: body.update(heap=None),
    "negative": lambda body: body["resident"].update(swap=-1),
    "accounting.unexplained": lambda body: body["accounting"].update(unexplained=2 << 20),
    "solved for virtual.ready": lambda body: body["accounting"].update(mapped_ready=0),
    "Rss": lambda body: body["resident"].update(total=0),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES_BROKEN)
def test_rules_notice(rule: str) -> None:
    report = grown_and_scavenged()
    assert report.resident is not None
    body = parsed(report)
    RULES_BROKEN[rule](body)
    broken = broken_rules(body, smaps_rollup_rss=report.resident.total)
    assert any(rule in line for line in broken), broken


def test_rules_hold_the_figures_that_a_caller_took_itself() -> None:
    report = grown_and_scavenged()
    assert report.resident is not None
    assert report.virtual is not None
    assert report.virtual.ready is not None
    body = parsed(report)
    rss, mapped_ready = report.resident.total, report.virtual.ready - (32 << 20)
    same: dict[str, Any] = {"smaps_rollup_rss": rss, "vm_size": report.virtual.total, "mapped_ready": mapped_ready}
    assert broken_rules(body, **same) == []
    assert len(broken_rules(body, **{**same, "smaps_rollup_rss": rss * 98 // 100})) == 1
    assert len(broken_rules(body, **{**same, "vm_size": report.virtual.total - 4096})) == 1
    assert len(broken_rules(body, **{**same, "mapped_ready": mapped_ready - (2 << 20)})) == 1


def test_an_inexact_report_may_be_off_by_its_skew_and_no_more() -> None:
    body = parsed(SAMPLES["busy_and_inexact"]())
    assert broken_rules(body) == []
    body["consistency"]["skew_bytes"] = 1 << 20
    assert broken_rules(body) != []


def test_kernel_only_report_has_null_and_not_zero_for_the_runtime() -> None:
    body = parsed(kernel_only())
    assert [body["virtual"][name] for name in ("reserved", "prepared", "ready", "unmanaged")] == [None] * 4
    assert body["heap"] is None
    assert body["memstats"] is None


def test_snapshot_has_null_for_events() -> None:
    body = parsed(lazily_freed())
    assert body["events"] is None
    assert body["transitions"] is None
