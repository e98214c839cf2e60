"""`gomem goroutines`, as a user types it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from gomem.exporters.json.schema import GOROUTINES_FILE, validate
from gomem.tracer.errors import EXIT_FAILED, EXIT_USAGE
from tests.support.builds import build
from tests.support.command import gomem, obeys_the_rules, outcome, report_of, started
from tests.support.crowd import by_creator, crowd, traced
from tests.support.goroutines import parked_goroutines
from tests.support.heapprofile import records_of
from tests.support.processes import sleeping


def test_a_table_json_and_the_profile_tell_of_the_same_goroutines(tmp_path: Path) -> None:
    file = tmp_path / "goroutines.pb.gz"
    with parked_goroutines(build("goroutines", "1.27.3", mode="cgo", stripped=True), tmp_path) as process:
        page = gomem("goroutines", process.pid, "--top", 3)
        stacks = gomem("goroutines", "-p", process.pid, "--by", "stack", "--format", "json")
        profile = gomem("goroutines", process.pid, "--format", "pprof", "-o", file)
        same = gomem("profile", "--kind", "goroutine", process.pid, "-o", tmp_path / "same.pb.gz")
        own = traced(process.stacks.read_text())
    assert [done.status for done in (page, stacks, profile, same)] == [0, 0, 0, 0]
    assert [done.stderr for done in (page, stacks, profile, same)] == ["", "", "", ""]
    assert f"{len(own)} goroutines" in page.stdout
    assert "main.start  main.go:" in page.stdout
    body = json.loads(stacks.stdout)
    validate(body, GOROUTINES_FILE)
    assert body["goroutines"] == len(own)
    ours, theirs = records_of(file, tmp_path), records_of(tmp_path / "same.pb.gz", tmp_path)
    assert ours.samples == theirs.samples
    counts = Counter(sample.values[0] for sample in ours.samples.elements())
    assert counts.total() > 50
    assert sum(count * times for count, times in counts.items()) == len(own)


def test_several_looks_tell_what_grows_and_what_only_breathes() -> None:
    with crowd() as process:
        process.obey("gcs", "breathe 30", "leak 8000")
        page = gomem("goroutines", process.pid, "--duration", 1.6, "--looks", 4)
        found = gomem("goroutines", process.pid, "-d", "0.6", "--looks", 3, "--format", "json", "--sort", "growth")
    assert (page.status, found.status) == (0, 0)
    _, _, grows = page.stdout.partition("Groups that only grow\n")
    assert grows.lstrip().startswith("main.leak  main.go:")
    assert "main.breathe" in page.stdout
    assert "main.breathe" not in grows
    body = json.loads(found.stdout)
    validate(body, GOROUTINES_FILE)
    assert [len(group["at_looks"]) for group in body["groups"]] == [3] * len(body["groups"])
    assert body["groups"][0]["creator"]["function"] == "main.leak"


def test_what_is_watched_tells_whose_goroutines_became_more_and_a_recording_keeps_that(tmp_path: Path) -> None:
    file, page = tmp_path / "recording", tmp_path / "page.html"
    words = ("--duration", 6, "--backend", "procfs")
    with crowd(gogc="100") as process:
        process.obey("gcs", "breathe 50", "turn", "park 30", "leak 30000")
        before = by_creator(traced(process.obey("trace")["Trace"]))
        with started("record", process.pid, "-o", file, *words, "--look-every", "0.7s") as recording:
            watched = report_of("trace", process.pid, *words)
            assert outcome(recording).status == 0
        after = by_creator(traced(process.obey("trace")["Trace"]))
        at_once = report_of("trace", process.pid, "--duration", 0, "--backend", "procfs")
    assert at_once["goroutine_growth"] is None
    assert report_of("replay", file, "--at", 2)["goroutine_growth"] is None
    for report in (watched, report_of("replay", file)):
        obeys_the_rules(report)
        found = report["goroutine_growth"]
        first, *others = found["creators"]
        leak = (first["function"], first["file"], first["line"])
        assert (leak[0], first["only_grows"], first["some_stay"]) == ("main.leak", True, True)
        assert before[leak] <= first["sums"]["goroutines_first"]
        assert first["sums"]["goroutines_first"] + 100 < first["sums"]["goroutines_last"] <= after[leak]
        assert {row["function"] for row in others} >= {"main.breathe", "main.turn", "main.crowd", ""}
        assert [row for row in others if row["only_grows"] or row["some_stay"]] == []
    text = gomem("replay", file).stdout
    _, _, grown = text.partition("Goroutines that became more, by ")
    assert "main.leak  main.go:" in grown
    assert gomem("replay", file, "--format", "html", "-o", page).status == 0
    assert '<tr><th scope="row">main.leak</th>' in page.read_text().partition("Goroutines that became more")[2]


def test_what_ended_goroutines_hold_is_a_finding_and_what_living_ones_hold_is_none() -> None:
    with crowd() as process:
        process.obey("end 60000")
        ended = report_of("snapshot", process.pid)
    with crowd() as process:
        process.obey("park 60000")
        parked = report_of("snapshot", process.pid)
    found = {finding["id"]: finding for finding in ended["findings"]}
    assert found["ended-goroutines"]["evidence"]["ended_goroutines"] >= 60_000
    assert found["ended-goroutines"]["evidence"]["ended_bytes"] == ended["structure"]["scheduler"]["ended_bytes"]
    assert "ended-goroutines" not in {finding["id"] for finding in parked["findings"]}
    assert parked["structure"]["scheduler"]["ended_goroutines"] < 1000


@pytest.mark.parametrize(
    "words",
    [
        ("1", "--by", "colour"), ("1", "--looks", "2"), ("1", "--duration", "soon"), ("1", "--sort", "name"), (),
        ("1", "--format", "pprof", "--duration", "3", "-o", "x.pb.gz"), ("1", "--format", "pprof", "--by", "start"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(words: tuple[str, ...]) -> None:
    assert gomem("goroutines", *words).refusal(EXIT_USAGE)


def test_what_is_no_go_program_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("of yesterday")
    with sleeping() as process:
        said = gomem("goroutines", process.pid, "-o", kept).refusal(EXIT_FAILED)
    assert "is not a Go program" in said
    assert kept.read_text() == "of yesterday"
