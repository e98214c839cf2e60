"""`gomem diff` of reports and recordings, as a user types it: of a program that grows a known thing."""

from __future__ import annotations

import json
import os
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gomem.exporters.json.schema import DIFFERENCE_FILE, validate
from gomem.tracer.errors import EXIT_FAILED, EXIT_USAGE
from tests.support.builds import build
from tests.support.command import gomem, outcome, started
from tests.support.grower import grower, mapped_in_ram
from tests.support.processes import rss, running

MB = 1 << 20
STEPS = ("profile", "cache 48", "spawn 4000", "garbage 40", "collect", "file 32", "shrink", "forget")
# What each step grows, in MB at least, by the words of the sentence; and who did it.
GROWS = {
    "cache": (47, "live heap from main.(*cache).put"),
    "spawn": (7.5, "goroutine stacks of 4,000 goroutines created by main.spawn"),
    "garbage": (39, "heap allocated since the last collection from main.waste"),
    "collect": (39, "free heap that Go keeps for reuse"),
    "file": (32, "mapped files of "),
}
SHRINKS = {"collect": (39, "heap allocated since the last collection from main.waste"), "forget": (
    47, "live heap from main.(*cache).put")}  # fmt: skip


class Taken(NamedTuple):
    """What the program and the kernel said when a report was taken."""

    file: Path
    told: dict[str, int]
    rss: int
    mapped: int


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Taken]:
    place = tmp_path_factory.mktemp("grown")
    found = {}
    with grower(place / "mapped-file") as target:
        for step in STEPS:
            name, told = step.split()[0], target.do(step)
            file = place / f"{name}.json"
            done = gomem("snapshot", target.pid, "--holders", "--format", "json", "-o", file)
            assert done.status == 0, done.stderr
            found[name] = Taken(file, told, rss(target.pid), mapped_in_ram(target.pid, place / "mapped-file"))
    return found


def diff(*words: object) -> dict[str, Any]:
    done = gomem("diff", *words, "--format", "json")
    assert done.status == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    validate(body, DIFFERENCE_FILE)
    assert sum(part["grown"] for part in body["parts"]) == body["rss"]["grown"]
    return body


@pytest.fixture(scope="module")
def differences(steps: dict[str, Taken]) -> dict[str, dict[str, Any]]:
    return {later: diff(steps[earlier].file, steps[later].file) for earlier, later in pairwise(steps)}


def parts(body: dict[str, Any]) -> dict[str, int]:
    return {part["id"]: part["grown"] for part in body["parts"]}


def said(sentence: str, word: str) -> dict[str, float]:
    """Return the sizes in MiB that a sentence says of what is more, or less."""
    pattern = rf"([\d.,]+) (KiB|MiB) {word} ([^,;]+)"
    return {what.rstrip("."): float(size) / (1024 if unit == "KiB" else 1) for size, unit, what in re.findall(
        pattern, re.sub(r"(?<=\d),(?=\d)", "", sentence))}  # fmt: skip


@pytest.mark.parametrize("step", [step.split()[0] for step in STEPS[1:]])
def test_the_sentence_names_what_grew_and_nothing_that_did_not(
    differences: dict[str, dict[str, Any]], step: str
) -> None:
    sentence = differences[step]["headline"]
    for word, expected in (("more", GROWS), ("less", SHRINKS)):
        found = said(sentence, word)
        wanted = expected.get(step)
        if wanted is not None:
            words = wanted[1].replace(",", "")
            assert any(what.startswith(words) and size >= wanted[0] for what, size in found.items()), sentence
        for other, (_, what) in expected.items():
            if other != step and (wanted is None or what != wanted[1]):
                claimed = [size for name, size in found.items() if name.startswith(what.replace(",", ""))]
                assert all(size < 3 for size in claimed) or step == "forget", sentence


def test_the_parts_are_what_the_program_and_the_kernel_count(
    steps: dict[str, Taken], differences: dict[str, dict[str, Any]]
) -> None:
    for earlier, later in pairwise(steps):
        before, after, grown = steps[earlier], steps[later], parts(differences[later])
        told = {name: after.told[name] - before.told[name] for name in after.told}
        # What it allocates to tell its figures, and what the kernel counts a moment later.
        in_use = grown["live"] + grown["since"] + grown["holes"]
        assert in_use == pytest.approx(told["HeapInuse"], abs=MB // 2), later
        assert grown["stacks"] == pytest.approx(told["StackInuse"], abs=MB // 2), later
        assert differences[later]["rss"]["grown"] == pytest.approx(after.rss - before.rss, abs=2 * MB), later
        assert grown["files"] + grown["shared-memory"] == pytest.approx(after.mapped - before.mapped, abs=MB), later
        assert abs(grown["unexplained"]) < MB // 4, later
        figures = {row["name"]: row["grown"] for row in differences[later]["figures"]}
        assert figures["goroutines"] == told["Goroutines"], later


def test_goroutines_that_ended_are_told_by_their_creator(differences: dict[str, dict[str, Any]]) -> None:
    (table,) = [table for table in differences["shrink"]["tables"] if table["id"] == "creators"]
    assert [(row["name"], row["count_grown"]) for row in table["rows"]] == [("main.spawn", -2000)]


def test_the_page_and_the_file_say_the_same(steps: dict[str, Taken], tmp_path: Path) -> None:
    both = steps["profile"].file, steps["file"].file
    sentence = diff(*both)["headline"]
    page = gomem("diff", *both, "--top", 3)
    assert page.status == 0, page.stderr
    assert " ".join(page.stdout.split()).startswith(" ".join(sentence.split()))
    assert "main.(*cache).put" in page.stdout
    assert gomem("diff", *both, "-o", tmp_path / "grown.html").stdout == ""
    html = (tmp_path / "grown.html").read_text()
    assert "main.(*cache).put" in html
    assert "<script" not in html
    assert "default-src &#39;none&#39;" in html
    assert gomem("diff", *both, "-o", tmp_path / "grown.json").status == 0
    assert json.loads((tmp_path / "grown.json").read_text())["headline"] == sentence


def test_reports_without_holders_say_how_to_get_them(steps: dict[str, Taken], tmp_path: Path) -> None:
    both = []
    for name in ("profile", "cache"):
        body = json.loads(steps[name].file.read_text())
        both.append(tmp_path / f"{name}.json")
        both[-1].write_text(json.dumps({**body, "holders": None}))
    body = diff(*both)
    assert "live heap" in body["headline"]
    assert "main." not in body["headline"]
    assert any("--holders" in note["text"] for note in body["notes"])


def test_two_moments_of_a_recording(tmp_path: Path) -> None:
    file, obeyed = tmp_path / "grown.rec", 0
    with grower(tmp_path / "mapped") as target:
        with started("record", target.pid, "-d", 4, "--look-every", 0.2, "-o", file) as process:
            while process.poll() is None:
                target.do("garbage 2")
                obeyed += 1
                time.sleep(0.1)
            done = outcome(process)
        assert done.status == 0, done.stderr
    whole, none = diff(file), diff(file, "--from", "1s", "--to", "1s")
    grown = parts(whole)
    assert 2 * MB <= grown["since"] <= 2 * obeyed * MB + MB // 2
    assert "heap allocated since the last collection" in whole["headline"]
    assert none["headline"] == "RSS has not changed."
    assert {note["id"] for note in whole["notes"]} >= {"no-holders", "no-collection"}


def test_memory_of_c_is_told_apart(tmp_path: Path) -> None:
    with running(build("ccases", "1.25.5", mode="cgo"), "c-leak") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        files = tmp_path / "before.json", tmp_path / "after.json"
        for file in files:
            assert gomem("snapshot", process.pid, "--holders", "--format", "json", "-o", file).status == 0
    body = diff(*files)
    grown = parts(body)
    assert grown["c-heap"] >= 0.7 * body["rss"]["grown"]
    assert grown["live"] + grown["since"] < MB
    assert re.search(r"more C heap\b.* of what C has in use", body["headline"]), body["headline"]
    assert "live heap" not in body["headline"]


def test_what_cannot_be_compared_is_refused(steps: dict[str, Taken], tmp_path: Path) -> None:
    good = steps["profile"].file
    (tmp_path / "cut").write_text(good.read_text()[:1000])
    assert "is cut or damaged" in gomem("diff", good, tmp_path / "cut").refusal(EXIT_FAILED)
    os.mkfifo(tmp_path / "fifo")
    assert "no report" in gomem("diff", good, tmp_path / "fifo").refusal(EXIT_FAILED)
    assert "give a second one" in gomem("diff", good).refusal(EXIT_USAGE)
    assert "a report is of one moment" in gomem("diff", good, good, "--from", "1s").refusal(EXIT_USAGE)
    assert "is for profiles" in gomem("diff", good, good, "--format", "folded").refusal(EXIT_USAGE)
