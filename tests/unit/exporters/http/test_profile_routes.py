"""Addresses of profiles, without sockets: which process is meant, what is refused, and the list for http_sd."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from gomem.exporters.http.profiling import Profiling
from gomem.exporters.http.request import Request
from gomem.exporters.http.response import Coming, Response
from gomem.exporters.http.routes import Routes, path_class
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.fleet.view import FleetView, TargetState
from tests.support.samples.reports import grown_and_scavenged
from tests.support.samples.views import several, target, view

Get = Callable[..., Response]


def getting(now: FleetView | None, profiling: Profiling | None) -> Get:
    """Return what answers a GET. Nothing is taken of anybody: no thread was started."""
    routes = Routes(lambda: now, lambda accept: (b"", ""), False, profiling)
    return lambda path, query="", host="gomem:9469": routes.answer(
        Request("GET", path, query, {"host": host}, True, False)
    )


def profiling() -> Profiling:
    return Profiling(Programs(), lambda pid, error: None)


@pytest.fixture
def get() -> Get:
    return getting(several(), profiling())


@pytest.mark.parametrize("path", ["/sd", "/targets/11/debug/pprof/heap", "/targets/11/debug/pprof/"])
def test_without_the_option_there_are_none(path: str) -> None:
    assert getting(several(), None)(path).status == 404
    assert b"--profiles" in getting(several(), None)(path).body


@pytest.mark.parametrize("path", ["/targets/22/debug/pprof/heap", "/targets/ingest/debug/pprof/allocs",
                                  "/targets/ingest-7d9f/debug/pprof/heap"])  # fmt: skip
def test_a_process_is_known_by_its_pid_its_pod_and_its_container(path: str, get: Get) -> None:
    assert isinstance(get(path), Coming)
    assert isinstance(get(path, "debug=0"), Coming)
    assert path_class(path) == "profile"


def test_who_shares_his_name_is_told_by_his_pid() -> None:
    both = (target(pid, grown_and_scavenged(), workload=Workload(owner="shop")) for pid in (7, 8))
    answer = getting(view(*both), profiling())("/targets/shop/debug/pprof/heap")
    assert (answer.status, b"(7, 8)" in answer.body) == (409, True)


@pytest.mark.parametrize(
    ("path", "query", "status", "why"),
    [
        ("/targets/12/debug/pprof/heap", "", 404, "no followed process"),
        (f"/targets/{quote('é/..', safe='')}/debug/pprof/heap", "", 404, "no followed process"),
        ("/targets/11/debug/pprof/mutex", "", 404, "heap"),
        ("/targets/11/debug/pprof/heap", "debug=1", 400, "debug=0"),
        ("/targets/11/debug/pprof/heap", "seconds=5", 400, "one moment"),
        ("/targets/11/debug/pprof/heap", "gc=1", 400, "only read"),
        ("/targets/11/debug/pprof/heap", "x=" * 5 + "&a=b" * 99, 400, "too many"),
        ("/targets/55/debug/pprof/heap", "", 503, "CAP_SYS_PTRACE"),
        ("/targets/66/debug/pprof/heap", "", 503, "found a moment ago"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(path: str, query: str, status: int, why: str, get: Get) -> None:
    answer = get(path, query)
    assert answer.status == status
    assert why in answer.body.decode()
    assert answer.headers["X-Go-Pprof"] == "1"  # by which go tool pprof shows the reason
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_those_who_ask_for_the_same_wait_for_one_and_too_many_different_ones_are_refused() -> None:
    many = tuple(target(pid, grown_and_scavenged()) for pid in range(100, 120))
    get = getting(view(*many), profiling())
    answers = [get(f"/targets/{one.pid}/debug/pprof/heap") for one in many]
    assert [one.status for one in answers[16:]] == [503] * 4
    first, again = answers[0], get("/targets/100/debug/pprof/heap")
    assert isinstance(first, Coming)
    assert isinstance(again, Coming)
    assert first.made is again.made
    assert not first.made.cancel()  # whose client is gone takes it from nobody


def test_the_list_has_those_that_can_be_read_with_what_is_known_of_them(get: Get) -> None:
    groups = {group["labels"]["pid"]: group for group in json.loads(get("/sd").body)}
    assert groups.keys() == {"11", "22", "33"}  # of 44 it is not even known what Go it is
    assert all(group["targets"] == ["gomem:9469"] for group in groups.values())
    labels = groups["22"]["labels"]
    assert labels["__profile_path_prefix__"] == "/targets/22"
    assert (labels["namespace"], labels["pod"], labels["container"]) == ("shop", "ingest-7d9f", "ingest")
    assert (labels["service_name"], labels["label_app"]) == ("shop/ingest", "ingest")
    assert "" not in labels.values()


def test_the_list_is_made_once_for_a_view(get: Get) -> None:
    assert get("/sd").body is get("/sd").body
    assert get("/sd", host="[::1]:80").body != get("/sd").body


@pytest.mark.parametrize("host", ["", 'a"b', "a b", "a/b", "a:b", "é"])
def test_a_host_that_is_none_gets_no_list(host: str, get: Get) -> None:
    assert get("/sd", host=host).status == 400


def test_the_page_of_profiles_links_to_each_and_states_are_no_obstacle(get: Get) -> None:
    page = get("/targets/55/debug/pprof/").body
    assert b'href="/targets/55/debug/pprof/heap"' in page
    assert b'href="/targets/55/debug/pprof/allocs"' in page
    assert get("/targets/55/debug/pprof").body == page


def test_a_state_that_looks_succeed_in_is_asked_for_its_profile() -> None:
    kernel_only = target(7, grown_and_scavenged(), TargetState.KERNEL_ONLY, why="its figures did not fit")
    assert isinstance(getting(view(kernel_only), profiling())("/targets/7/debug/pprof/heap"), Coming)
