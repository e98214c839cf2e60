"""What is kept of a process while it lives, and what its black box is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from msgspec import structs

from gomem.exporters.black_box.box import Noticed, files_of
from gomem.exporters.black_box.contents import GOROUTINES, HEAP, REPORT, TIMELINE
from gomem.exporters.black_box.followed import Followed, Kept
from gomem.exporters.black_box.taking import Outcome, bound, keep
from gomem.exporters.json.schema import validate
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import TargetView
from gomem.tracer.report import OomKill, ProcessEnding
from tests.support.samples.reports import grown_and_scavenged
from tests.support.samples.views import target

SECOND = 1_000_000_000
OOM = ProcessEnding(None, "SIGKILL", False, OomKill("cgroup", "/batch", 64 << 20, True))


@dataclass
class Life:
    pid: int = 7


def seen(looked: float, near: float | None = None, exe: str = "/bin/api") -> TargetView:
    report = grown_and_scavenged()
    report = structs.replace(report, process=structs.replace(report.process, exe=exe))
    workload = Workload(namespace="shop", pod="api-1", container="app")
    return target(7, report, looked=looked, near=near, workload=workload)


def followed(near: float = 0.0, profile: int = 0) -> Followed:
    view = seen(10.0, near)
    assert view.report is not None
    one = Followed(Life(), view, view.report, 0.0)  # type: ignore[arg-type]
    one.learn(view, None)
    if profile:
        keep(Outcome(one, {HEAP: Kept(bytes(profile), 11.0)}), [one])
    return one


def test_each_look_counts_once_however_often_it_is_published() -> None:
    one = followed()
    for view in (seen(10.0), seen(20.0), replace(seen(20.0), why="renamed"), seen(30.0)):
        one.learn(view, None)
    assert [moment.before_end for moment in one.looks.until(31 * SECOND, 0).moments] == [21.0, 11.0, 1.0]


def test_a_look_that_failed_does_not_make_it_less_near_to_its_limit() -> None:
    one = followed(near=0.9)
    one.learn(seen(10.0, None), None)
    assert one.near == 0.9
    one.learn(seen(20.0, 0.3), None)
    assert one.near == 0.3


def test_the_profiles_of_a_program_do_not_stay_when_it_executes_another() -> None:
    one = followed(profile=100)
    one.learn(seen(20.0), None)
    assert one.profiles[HEAP].size == 100
    one.learn(seen(30.0, exe="/bin/other"), None)
    assert not one.profiles
    assert one.age.taken is None
    assert "another program" in one.why_none[HEAP]


def test_a_try_that_fails_leaves_the_profile_of_before() -> None:
    one = followed(profile=100)
    keep(Outcome(one, why_none={HEAP: "it moved"}), [one])
    assert one.profiles[HEAP].taken == 11.0
    assert one.age.urgency(1.0, 11.0) == 0
    keep(Outcome(one, {HEAP: Kept(bytes(5 << 20), 12.0)}), [one])
    assert one.profiles[HEAP].taken == 11.0
    keep(Outcome(one, {GOROUTINES: Kept(b"g", 13.0)}, {HEAP: "it moved"}), [one])
    keep(Outcome(one, {HEAP: Kept(b"h", 14.0)}, {GOROUTINES: "it moved"}), [one])
    assert {file: kept.taken for file, kept in one.profiles.items()} == {GOROUTINES: 13.0, HEAP: 14.0}
    fresh = followed()
    keep(Outcome(fresh, {GOROUTINES: Kept(b"g", 12.0)}, {HEAP: "it keeps none"}, lasting=True), [fresh])
    assert set(fresh.profiles) == {GOROUTINES}
    assert fresh.why_none[HEAP] == "it keeps none"


def test_beyond_the_bound_the_profiles_of_those_farthest_from_their_limits_go() -> None:
    many = [followed(near, 1 << 20) for near in (0.5, 0.1, 0.9)] + [followed(0.7, 3 << 20) for _ in range(5)]
    assert sum(one.profile_bytes for one in many) == 18 << 20
    bound(many)
    assert [bool(one.profiles) for one in many] == [False, False, True, *[True] * 5]
    assert sum(one.profile_bytes for one in many) <= 16 << 20


def test_a_black_box_says_how_it_ended_and_how_old_everything_is() -> None:
    one = followed(near=0.93, profile=100)
    files = files_of(one, OOM, "oom-kill", Noticed(13 * SECOND, 1_700_000_000 * SECOND))
    assert files[HEAP] == bytes(100)
    report = json.loads(files[REPORT])
    validate(report)
    assert report["ending"]["signal"] == "SIGKILL"
    ended = json.loads(files["how-it-ended.json"])
    assert (ended["schema"], ended["kept_for"], ended["near"]) == ("gomem.black-box/1", "oom-kill", 0.93)
    assert ended["said"].startswith("Killed by SIGKILL: the OOM killer took it, as cgroup /batch was at its limit")
    assert ended["noticed_at"] == "2023-11-14T22:13:20.000Z"
    assert {"pod": "api-1", "namespace": "shop", "container": "app"}.items() <= ended["process"].items()
    parts = {part["file"]: (part["taken_at"], part["age_seconds"], part["missing"]) for part in ended["parts"]}
    assert parts[REPORT] == parts[TIMELINE] == ("2023-11-14T22:13:17.000Z", 3.0, "")
    assert parts[HEAP] == ("2023-11-14T22:13:18.000Z", 2.0, "")
    assert parts[GOROUTINES][:2] == (None, None)
    (moment,) = json.loads(files[TIMELINE])["moments"]
    assert (moment["before_end"], moment["near"]) == (3.0, 0.93)


def test_a_process_of_which_nobody_tells_how_it_ended_has_a_sentence_too() -> None:
    unknown = ProcessEnding(None, None, None, OomKill(None, "/batch", None, False, 1))
    ended = json.loads(files_of(followed(), unknown, "oom-kill", Noticed())["how-it-ended.json"])
    assert ended["said"] == (
        "Ended, nobody tells how; its cgroup /batch counted 1 OOM kill meanwhile, and it may be among them."
    )
