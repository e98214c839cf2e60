"""`gomem why`, as a user types it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.json.schema import WHY_FILE, validate
from gomem.tracer.errors import EXIT_FAILED, EXIT_USAGE
from tests.cases.known import CASES
from tests.cases.running import program_of, program_running
from tests.support.atlimit import at_limit
from tests.support.command import Outcome, gomem
from tests.support.crowd import Crowd, crowd
from tests.support.processes import sleeping

RELEASE = "1.27.3"


def told(done: Outcome) -> dict[str, Any]:
    assert done.status == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    validate(body, WHY_FILE)
    return body


def outcomes(body: dict[str, Any]) -> dict[str, str]:
    return {one["suspect"]: one["outcome"] for one in body["judgements"]}


def watched(pid: int) -> dict[str, Any]:
    """Return what is said once there were enough looks; a machine that is very busy has too few in a short time."""
    for seconds in (4, 8, 16):
        body = told(gomem("why", pid, "-d", seconds, "--format", "json"))
        if outcomes(body)["goroutine-leak"] != "not-told":
            break
    return body


@contextmanager
def leaking(process: Crowd) -> Iterator[None]:
    """Within the block goroutines are made that never end, at one pace."""
    over = threading.Event()

    def leak() -> None:
        while not over.wait(0.1):
            process.obey("park 25")

    thread = threading.Thread(target=leak)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_goroutines_that_only_grow_are_the_verdict_and_those_that_rest_are_ruled_out() -> None:
    with crowd(gogc="100") as process:
        process.obey("park 500")
        at_rest = watched(process.pid)
        with leaking(process):
            time.sleep(0.3)
            grows = watched(process.pid)
    assert outcomes(at_rest)["goroutine-leak"] == "ruled-out"
    assert outcomes(grows)["goroutine-leak"] == "it-is"
    assert grows["verdict"].startswith("Goroutines grow: from ")
    assert ", most of them created by main.crowd." in grows["verdict"]
    (found,) = (one for one in grows["findings"] if one["id"] == "goroutines-grow")
    assert found["evidence"]["creator"].startswith("main.crowd (main.go:")
    assert f"`gomem goroutines {process.pid} --by stack`" in grows["next"][0]


def test_of_goroutines_that_come_and_go_there_are_more_and_nobody_is_named() -> None:
    with crowd(gogc="100") as process:
        process.obey("park 20", "swell")
        time.sleep(0.5)
        swells = watched(process.pid)
    assert outcomes(swells)["goroutine-leak"] == "it-is"
    (found,) = (one for one in swells["findings"] if one["id"] == "goroutines-grow")
    assert found["evidence"]["creator"] is None
    assert "created by" not in found["title"]
    assert f"`gomem goroutines {process.pid} -d 30s`" in found["action"]


def test_the_page_names_what_holds_the_memory_and_what_does_not(tmp_path: Path) -> None:
    file = tmp_path / "why.json"
    with at_limit("1.27.3", "-stacks", 7000, "-live", 20) as target:
        page = gomem("why", target.pid, "-d", 0)
        written = gomem("why", "--pid", target.pid, "-d", 0, "--format", "json", "-o", file)
        target.say("limit 100")
        limited = told(gomem("why", target.pid, "-d", 0, "--format", "json"))
    assert page.status == 0, page.stderr
    assert "goroutine stacks" in page.stdout.splitlines()[1]
    for word in ("Found", "Ruled out", "Could not be told", "What to do next", "GOMEMLIMIT is not set"):
        assert word in page.stdout
    assert written.status == 0
    body = json.loads(file.read_text())
    assert outcomes(body)["goroutine-stacks"] == "it-is"
    assert outcomes(body)["fragmentation"] == "ruled-out"
    assert outcomes(body)["leak"] == "not-told"
    assert outcomes(body)["memory-limit"] == "ruled-out"
    assert outcomes(limited)["memory-limit"] == "it-is"


HOLDERS = {
    "timers": "timers", "stuck-cleanup": "finalizers", "buckets": "profile-buckets", "fragments": "mappings",
    "arenas": "c-heap-free",
}  # fmt: skip


@pytest.mark.parametrize(("program", "suspect"), HOLDERS.items())
def test_each_is_the_cause_where_it_is_and_ruled_out_by_a_figure_where_it_is_not(program: str, suspect: str) -> None:
    (case,) = [case for case in CASES if case.program == program]
    with program_running(case, program_of(case, RELEASE)) as pid:
        body = told(gomem("why", pid, "-d", 0, "--format", "json"))
    found = outcomes(body)
    assert found[suspect] == "it-is", body["verdict"]
    others = {name: found[name] for name in HOLDERS.values() if name != suspect}
    assert set(others.values()) == {"ruled-out"}, others
    causes = [one for one in body["judgements"] if one["outcome"] == "it-is" and not one["harmless"]]
    assert suspect in [one["suspect"] for one in causes[:2]], body["verdict"]  # it says two: records are metadata, too


def test_of_a_program_that_is_not_go_nothing_of_go_is_ruled_out() -> None:
    with sleeping() as process:
        body = told(gomem("why", process.pid, "-d", 0, "--format", "json"))
        refused = gomem("why", process.pid, "-d", 0, "--require-go")
    found = outcomes(body)
    assert found["swap"] == found["shared-memory"] == "ruled-out"
    assert {found[name] for name in ("leak", "fragmentation", "retained", "goroutine-stacks", "outside")} == {
        "not-told"
    }
    assert "is not a Go program" in refused.refusal(EXIT_FAILED)


def test_what_cannot_be_is_refused() -> None:
    assert "give one of these" in gomem("why").refusal(EXIT_USAGE)
    assert "not a time" in gomem("why", 1, "-d", "soon").refusal(EXIT_USAGE)
