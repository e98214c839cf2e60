from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from gomem.exporters.json.schema import WHY_FILE, load_schema, validate, why_schema
from gomem.exporters.text.console import Sheet
from gomem.exporters.why import why_json, why_text
from gomem.tracer.report import Report
from gomem.tracer.report.findings.judging import why
from gomem.tracer.report.findings.rules import find
from gomem.tracer.report.findings.suspects import SUSPECTS
from gomem.tracer.report.why import Judgement, Why
from tests.support.samples.reports import SAMPLES, grown_and_scavenged, kernel_only, launched, lazily_freed
from tests.unit.report.test_findings import (
    CASES,
    Change,
    bounded,
    courses,
    grown,
    heap,
    kept_by_c,
    near_limit,
    part,
    stats,
    waits,
    worked,
)

MB = 1 << 20
PARTS = ("virtual", "resident", "kinds", "heap", "memstats", "spans", "structure", "thread_stacks", "address_limits",
         "courses", "bounds", "c_heap")  # fmt: skip


def judged(report: Report) -> Why:
    return why(replace(report, findings=find(report)), "RSS is made of pages.")


def of(found: Why, name: str) -> Judgement:
    (one,) = [one for one in found.judgements if one.suspect == name]
    return one


def watched() -> Report:
    return courses(10.0, goroutines=(50, 50, 50), outside=(0, 0, 0), live=(MB, MB, MB), garbage=(0, 0, 0))(
        grown_and_scavenged()
    )


@pytest.mark.parametrize(("name", "severity", "change"), CASES, ids=[f"{name}-{level}" for name, level, _ in CASES])
def test_what_a_finding_says_is_found_and_never_ruled_out(name: str, severity: str, change: Change) -> None:
    found = judged(change(watched()))
    causes = [one for one in found.judgements if name in one.findings]
    if name in ("inexact-snapshot", "lost-events", "drift", "looks-like-go", "unexplained-ready"):
        assert causes == []
        return
    assert [one.outcome for one in causes] == ["it-is"]
    assert causes[0].severity is not None
    titles = [finding.title for finding in found.findings if finding.id in causes[0].findings]
    assert causes[0].sentence in titles
    if severity == "critical":
        assert any(found.verdict.startswith(title) for title in titles)


@pytest.mark.parametrize("missing", PARTS)
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
def test_nothing_is_ruled_out_that_was_not_measured(sample: Callable[[], Report], missing: str) -> None:
    for one in judged(replace(sample(), **{missing: None})).judgements:
        small = [figure for figure in one.figures if figure.value is not None and figure.value < figure.it_takes]
        settled = one.sentence.startswith(f"{one.what}: ")  # by a sentence: no limit is set
        assert one.outcome != "ruled-out" or small or settled, one


def test_a_process_that_cannot_be_looked_at_has_nothing_ruled_out() -> None:
    nothing = {name: None for name in PARTS}
    report = replace(part(grown_and_scavenged(), "process", cgroup=None), **nothing)
    found = judged(report)
    assert {one.outcome for one in found.judgements} == {"not-told"}
    assert found.verdict == "The process's memory could not be looked at."
    assert [one.suspect for one in found.judgements] == [suspect.name for suspect in SUSPECTS]


SMALL: list[tuple[str, Change, str]] = [
    ("mappings", bounded("vm.max_map_count", 100, 65_530), "vm.max_map_count: less than 1%; it takes 90%"),
    ("threads", bounded("pids.max", 50, 100), "50%; it takes 90%"),
    ("locked-memory", bounded("RLIMIT_MEMLOCK", 0, 0, "bytes"), "RLIMIT_MEMLOCK: 0%; it takes 90%"),
    ("locked-memory", bounded("vm.max_map_count", 1, 9), "no such limit holds for it"),
    ("c-heap-free", lambda report: kept_by_c(report, 100 * MB), "free C memory as a share of RSS: 10%; it takes 20%"),
    ("c-heap-free", lambda report: kept_by_c(report, 9 * MB, 40 * MB), "C's heap in RAM: 40 MiB; it takes 64 MiB"),
    ("timers", lambda report: waits(report, 100), "timers that wait to fire: "),
    ("finalizers", lambda report: waits(report, 0, finalizers=9, cleanups=2), " that wait: 11; it takes 1,000"),
    ("profile-buckets", lambda report: stats(report, BuckHashSys=20 * MB, Sys=900 * MB), "2%; it takes 10%"),
]


@pytest.mark.parametrize(("suspect", "change", "words"), SMALL)
def test_what_is_small_is_ruled_out_by_its_figure(suspect: str, change: Change, words: str) -> None:
    one = of(judged(change(watched())), suspect)
    assert (one.outcome, one.findings) == ("ruled-out", [])
    assert words in one.sentence


def test_one_look_tells_no_growth() -> None:
    found = judged(grown_and_scavenged())
    outcomes = {name: of(found, name).outcome for name in ("leak", "goroutine-leak", "outside-leak")}
    assert set(outcomes.values()) == {"not-told"}


def test_a_process_that_stands_still_does_not_grow() -> None:
    found = judged(watched())
    for name in ("leak", "goroutine-leak", "outside-leak"):
        assert of(found, name).outcome == "ruled-out"


def test_a_little_growth_in_a_short_time_is_neither_told_nor_ruled_out() -> None:
    report = courses(10.0, goroutines=(100, 120, 140), outside=(0, 2 * MB, 4 * MB))(grown_and_scavenged())
    found = judged(report)
    assert of(found, "goroutine-leak").outcome == "not-told"
    assert of(found, "outside-leak").outcome == "not-told"


def test_what_came_to_rest_is_ruled_out_by_that() -> None:
    found = judged(courses(10.0, outside=(0, 50 * MB, 50 * MB))(grown_and_scavenged()))
    assert of(found, "outside-leak").outcome == "ruled-out"
    assert "has come to rest" in of(found, "outside-leak").sentence


def test_what_grows_comes_before_what_is_only_large() -> None:
    report = heap(courses(10.0, goroutines=(1_000, 1_500, 2_000))(grown_and_scavenged()), resident={"free": 80 * MB})
    assert judged(report).verdict.startswith("Goroutines grow: from 1,000 to 2,000 within 10 s.")
    assert judged(part(report, "resident", shmem=80 * MB)).verdict.startswith("Goroutines grow")
    critical = near_limit(worked(0.9))(report)
    assert judged(critical).verdict.startswith("Go uses 99 MiB of GOMEMLIMIT 100 MiB")


def test_goroutines_that_grow_come_before_the_heap_that_they_hold() -> None:
    heap_alone = grown(10.0, 40 * MB, 60 * MB, 80 * MB)(grown_and_scavenged())
    assert judged(heap_alone).verdict.startswith("The live heap grows")
    both = judged(courses(10.0, goroutines=(1_000, 1_500, 2_000))(heap_alone)).verdict
    assert both.startswith("Goroutines grow: from 1,000 to 2,000 within 10 s. And: The live heap grows")


@pytest.mark.parametrize("sample", [launched, kernel_only, lazily_freed, watched])
def test_the_page_and_the_object_say_the_same(sample: Callable[[], Report]) -> None:
    found = judged(sample())
    body = json.loads(why_json(found))
    validate(body, WHY_FILE)
    page = " ".join(why_text(found, Sheet()).split())
    assert body["verdict"] in page
    for one in body["judgements"]:
        if one["outcome"] != "it-is":
            assert one["sentence"][1:] in page
    for step in body["next"][:5]:
        assert step in page


def test_the_schema_in_the_file_is_that_of_the_types() -> None:
    Draft202012Validator.check_schema(load_schema(WHY_FILE))
    assert load_schema(WHY_FILE) == json.loads(json.dumps(why_schema()))
