"""The real Kubernetes client against a server that speaks the API's lists and watches over HTTP."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gomem.tracer.discovery.cluster import Cluster, PodApi, connect
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.selection import parse_selection
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.discovery.workloads import Workloads
from gomem.tracer.errors import BackendUnavailable
from tests.support.builds import build
from tests.support.discovery.cgroups import cgroups, move
from tests.support.discovery.following import following
from tests.support.discovery.kubernetes_api import Api, pod, serving
from tests.support.processes import running, wait_until
from tests.support.requirements import absent

try:
    from kubernetes import client
except ImportError:
    client = None

UID = "6f1c3c2e-9b1a-4d6e-8a53-2f0d3c9e7b11"
ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


@pytest.fixture(autouse=True)
def _client() -> None:
    if client is None:
        absent("the Python package kubernetes is not installed")


@contextmanager
def watching(url: str, *label_keys: str, token: str = "") -> Iterator[Cluster]:
    def connected() -> PodApi:
        settings = client.Configuration(host=url)
        settings.retries = False
        if token:
            settings.api_key = {"authorization": f"Bearer {token}"}
        made: PodApi = client.CoreV1Api(client.ApiClient(settings))
        return made

    cluster = Cluster("node-1", label_keys, connect=connected, first_wait=0.02)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
        assert not [one for one in threading.enumerate() if one.name == "gomem-kubernetes"]


def until_named(cluster: Cluster, container_id: str, name: str | None) -> None:
    def named() -> bool:
        found = cluster.pods.find(container_id, None)[0]
        return (found.name if found else None) == name

    wait_until(named, f"{container_id[:8]} is in {name}", 60.0)


def until_watched(api: Api, watches: int = 1) -> None:
    wait_until(lambda: api.begun_watches >= watches, "it watches", 60.0)


def test_the_pods_of_the_node_are_listed_page_by_page_and_watched() -> None:
    with serving() as (api, url):
        api.page = 2
        for number in range(5):
            api.put(pod(f"pod-{number}", f"uid-{number}", containers={"main": f"{number:064x}"}))
        api.put(pod("elsewhere", "uid-x", node="node-2", containers={"main": OTHER}))
        with watching(url, token="secret") as cluster:
            until_named(cluster, f"{4:064x}", "pod-4")
            assert len(cluster.pods) == 5
            assert cluster.pods.find(OTHER, None) == (None, None)
            assert cluster.limit is None
            until_watched(api)
            api.put(pod("late", "uid-late", containers={"main": ID}))
            until_named(cluster, ID, "late")
            api.put(pod("late", "uid-late", containers={"main": OTHER}))
            until_named(cluster, OTHER, "late")
            assert cluster.pods.find(ID, None) == (None, None)
            api.delete("uid-late")
            until_named(cluster, OTHER, None)
        assert {query["fieldSelector"][0] for query in api.requests} == {"spec.nodeName=node-1"}
        assert {headers["authorization"] for headers in api.headers} == {"Bearer secret"}
        assert [query.get("continue") for query in api.requests if "watch" not in query] == [None, ["2"], ["4"]]


def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    with serving() as (api, url), watching(url) as cluster:
        until_watched(api)
        api.bookmark()
        api.end_watches()
        until_watched(api, 2)
        api.put(pod("late", "uid-late", containers={"main": ID}))
        until_named(cluster, ID, "late")
        assert cluster.failures == 0
        assert sum("watch" not in query for query in api.requests) == 1


def test_what_is_too_old_is_listed_again() -> None:
    with serving() as (api, url):
        api.put(pod("old", "uid-old", containers={"main": OTHER}))
        with watching(url) as cluster:
            until_named(cluster, OTHER, "old")
            until_watched(api)
            with api.condition:
                del api.pods["uid-old"]
                api.pods["uid-new"] = pod("new", "uid-new", containers={"main": ID})
            api.end_watches(forget=True)
            until_named(cluster, ID, "new")
            until_named(cluster, OTHER, None)
            assert cluster.failures == 0


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refusal_is_a_limit_that_says_what_to_grant_and_is_tried_again(status: int) -> None:
    with serving() as (api, url):
        api.fail(status)
        with watching(url) as cluster:
            wait_until(lambda: cluster.failures > 1, "it is refused", 60.0)
            limit = cluster.limit
            assert limit is not None
            assert f"answered {status}" in limit.why
            assert "pods" in limit.fix
            api.put(pod("late", "uid-late", containers={"main": ID}))
            api.fail(None)
            until_named(cluster, ID, "late")
            wait_until(lambda: cluster.limit is None, "the limit is gone", 60.0)


def test_what_is_known_stays_known_while_the_api_is_away() -> None:
    with serving() as (api, url):
        api.put(pod("here", "uid-here", containers={"main": ID}))
        with watching(url) as cluster:
            until_named(cluster, ID, "here")
            until_watched(api)
            api.fail(503)
            wait_until(lambda: cluster.failures > 0, "it fails", 60.0)
            until_named(cluster, ID, "here")


def test_a_server_that_is_not_there_is_a_limit() -> None:
    with serving() as (_, url):
        pass
    with watching(url) as cluster:
        wait_until(lambda: cluster.failures > 0, "it fails", 60.0)
        assert cluster.limit is not None


@pytest.mark.parametrize(
    "raw",
    [b"no json\n", b"[]\n", b'{"type": "ADDED"}\n{"type": 7, "object": []}\n\n\xff\n', b"[" * 100_000 + b"\n",
     b'{"type": "ERROR", "object": {"code": 500, "message": "trouble"}}\n', b"x" * (5 << 20)],
)  # fmt: skip
def test_what_makes_no_sense_ends_the_watch_and_nothing_else(raw: bytes) -> None:
    with serving() as (api, url), watching(url) as cluster:
        until_watched(api)
        api.send(raw)
        wait_until(lambda: cluster.failures > 0, "it is refused", 60.0)
        api.put(pod("late", "uid-late", containers={"main": ID}))
        until_named(cluster, ID, "late")


def test_a_watch_in_which_nothing_happens_ends_at_once() -> None:
    with serving() as (api, url), watching(url):
        until_watched(api)


def test_without_a_service_account_and_a_kubeconfig_there_is_no_api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(BackendUnavailable, match="no Kubernetes API is known here") as raised:
        connect()
    assert "service account" in raised.value.fix


def test_a_process_gets_the_names_of_its_pod_when_the_api_tells_them() -> None:
    becomes = build("becomes", "1.25.5")
    with (
        serving() as (api, url),
        watching(url, "app", "tier") as cluster,
        cgroups(f"kubepods/burstable/pod{UID}/{ID}") as (container,),
        running(becomes, "x") as process,
    ):
        move(process.pid, container)
        wait_until(lambda: os.path.samefile(f"/proc/{process.pid}/exe", becomes), "it is executed")
        workloads = Workloads(node="node-1", cluster=cluster, label_keys=["app", "tier"])
        selection = parse_selection(include={"label": ["app=checkout"]})
        chosen = Discovery(selection, workloads=workloads, settle=0.0, scan_every=0.1, listen=None)
        every = Discovery(workloads=workloads, settle=0.0, scan_every=0.1, listen=None)
        with following(every) as everybody, following(chosen) as seen:
            assert everybody.until_found(process.pid).workload == Workload(ID, UID, node="node-1")
            seen.poll(0)
            assert process.pid not in seen.found

            labels = {"app": "checkout", "secret": "x"}
            api.put(pod("checkout-1", UID, labels=labels, containers={"main": ""}))
            named = Workload(ID, UID, "checkout-1", "shop", None, "node-1", {"app": "checkout"})
            everybody.until(lambda: everybody.found[process.pid].workload == named, "its pod is known")
            assert seen.until_found(process.pid).workload == named

            api.put(pod("checkout-1", UID, labels=labels, containers={"main": ID}))
            named = replace(named, container="main")
            everybody.until(lambda: everybody.found[process.pid].workload == named, "its container is known")

            api.put(pod("checkout-1", UID, labels={"app": "other"}, containers={"main": ID}))
            seen.until(lambda: process.pid not in seen.found, "it is not wanted any more")
            named = replace(named, labels={"app": "other"})
            everybody.until(lambda: everybody.found[process.pid].workload == named, "its labels are known")
            assert process.pid not in {identity.pid for identity in everybody.ended}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("stalls", "timed out"), ("drips", "took more than"), ("has no end", "more than 16777216 bytes"),
        ("is all parts", "more than 16777216 bytes"), ("redirects", "307"),
    ],
)  # fmt: skip
def test_a_list_that_no_honest_api_sends_is_given_up_and_what_was_known_stays(
    how: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gomem.tracer.discovery.cluster._READ", 1.0)
    monkeypatch.setattr("gomem.tracer.discovery.cluster._ANSWER", 1.0)
    with serving() as (api, url):
        api.put(pod("orders", UID, containers={"app": ID}))
        with watching(url, token="secret") as cluster:
            wait_until(lambda: cluster.pods.find(ID, None)[0] is not None, "it is known")
            api.behaves = how
            api.end_watches(forget=True)
            wait_until(lambda: bool(cluster.why), "the limit")
            assert told in cluster.why
            assert cluster.pods.find(ID, None)[0] is not None
            assert not any("/elsewhere" in path for path in api.paths)
            api.behaves = ""
            wait_until(lambda: not cluster.why, "it works again")


def test_an_answer_of_many_small_parts_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gomem.tracer.discovery.cluster.MOST_PARTS", 100)
    with serving() as (api, url):
        api.put(pod("orders", UID, containers={"app": ID}, labels={f"label-{at}": "" for at in range(200)}))
        with watching(url) as cluster:
            wait_until(lambda: "more than 100 parts" in cluster.why, "the limit")


def test_a_storm_of_what_is_too_old_is_asked_less_and_less_often() -> None:
    with serving() as (api, url):
        api.oldest = 1 << 40
        with watching(url) as cluster:
            wait_until(lambda: cluster.failures >= 3, "it waits longer and longer")
            assert "too old" in cluster.why


def test_a_token_that_was_exchanged_is_read_again() -> None:
    tokens = iter(["old", "old", "new"])
    with serving() as (api, url):
        api.token = "Bearer new"

        def connected() -> PodApi:
            settings = client.Configuration(host=url, api_key={"authorization": f"Bearer {next(tokens, 'new')}"})
            settings.retries = False
            made: PodApi = client.CoreV1Api(client.ApiClient(settings))
            return made

        api.put(pod("orders", UID, containers={"app": ID}))
        cluster = Cluster("node-1", connect=connected, first_wait=0.02)
        cluster.start()
        try:
            wait_until(lambda: cluster.pods.find(ID, None)[0] is not None, "it is known")
        finally:
            cluster.stop()
