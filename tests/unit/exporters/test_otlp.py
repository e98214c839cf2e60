"""OTLP: what a receiver gets, sent by OpenTelemetry's own exporter over HTTP and decoded with its own protocol."""

from __future__ import annotations

import dataclasses
import gzip
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from msgspec.structs import replace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint, ResourceMetrics
from opentelemetry.semconv._incubating.attributes import k8s_attributes, process_attributes
from opentelemetry.semconv._incubating.metrics import process_metrics

from gomem.exporters.otlp.push import OtlpPush, metrics_url, open_push
from gomem.exporters.prometheus import MetricOptions
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.errors import BackendUnavailable, UsageError
from gomem.tracer.fleet.view import FleetView, TargetState
from tests.support.samples.fleet import ALL, CGROUPS, series, target, values, view, whole
from tests.support.samples.reports import kernel_only

# OpenTelemetry's model/go/metrics.yaml: name, unit, whether it is monotonic.
GO = {
    "go.memory.used": ("By", False),
    "go.memory.limit": ("By", False),
    "go.memory.allocated": ("By", True),
    "go.memory.allocations": ("{allocation}", True),
    "go.memory.gc.goal": ("By", False),
    "go.memory.gc.cycles": ("{gc_cycle}", True),
    "go.goroutine.count": ("{goroutine}", False),
    "go.processor.limit": ("{thread}", False),
    "go.config.gogc": ("%", False),
}
PROCESS = {
    process_metrics.PROCESS_MEMORY_USAGE: ("By", False),
    process_metrics.PROCESS_MEMORY_VIRTUAL: ("By", False),
    process_metrics.PROCESS_THREAD_COUNT: ("{thread}", False),
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")


@dataclass(slots=True)
class Receiver:
    """A collector that answers with `status`."""

    url: str
    status: int = 200
    requests: list[tuple[str, ExportMetricsServiceRequest]] = field(default_factory=list)

    @property
    def resources(self) -> list[ResourceMetrics]:
        return list(self.requests[-1][1].resource_metrics)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            request = ExportMetricsServiceRequest.FromString(body)
            if made.status == 200:
                made.requests.append((self.path, request))
            self.send_response(made.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportMetricsServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def _push(receiver: Receiver, shown: FleetView, **options: object) -> OtlpPush:
    push = open_push(lambda: shown, receiver.url, timeout=20, **options)  # type: ignore[arg-type]
    push.push()
    return push


def _attributes(resource: ResourceMetrics) -> dict[str, str | int]:
    return {
        pair.key: pair.value.int_value if pair.value.HasField("int_value") else pair.value.string_value
        for pair in resource.resource.attributes
    }


def _metrics(resource: ResourceMetrics) -> dict[str, Metric]:
    return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}


def _points(metric: Metric) -> list[NumberDataPoint]:
    return list(metric.sum.data_points or metric.gauge.data_points)


def _value(point: NumberDataPoint) -> float:
    return point.as_int if point.HasField("as_int") else point.as_double


def _limited() -> FleetView:
    report = whole()
    assert report.heap is not None
    return view(target(replace(report, heap=replace(report.heap, memory_limit=1 << 30))))


def test_the_semantic_conventions_names_arrive_with_their_units_and_kinds(receiver: Receiver) -> None:
    _push(receiver, _limited())
    metrics = _metrics(receiver.resources[0])
    assert receiver.requests[0][0] == "/v1/metrics"
    assert {name: (metric.unit, metric.sum.is_monotonic) for name, metric in metrics.items()} == GO | PROCESS
    for metric in metrics.values():
        assert metric.sum.aggregation_temporality == 2  # cumulative
        for point in metric.sum.data_points:
            assert 0 < point.start_time_unix_nano < point.time_unix_nano == 1_790_000_200 * 10**9


def test_the_figures_are_the_reports(receiver: Receiver) -> None:
    report = whole()
    stats = report.memstats or {}
    assert report.heap is not None
    assert report.resident is not None
    _push(receiver, _limited())
    metrics = _metrics(receiver.resources[0])
    told = {name: _value(_points(metric)[0]) for name, metric in metrics.items() if name != "go.memory.used"}
    assert told == {
        "go.memory.limit": 1 << 30, "go.memory.allocated": stats["TotalAlloc"],
        "go.memory.allocations": stats["Mallocs"],
        "go.memory.gc.goal": report.heap.goal, "go.memory.gc.cycles": stats["NumGC"], "go.goroutine.count": 31,
        "go.processor.limit": 4, "go.config.gogc": 100.0, "process.memory.usage": report.resident.total,
        "process.memory.virtual": report.virtual.total if report.virtual else None, "process.thread.count": 13,
    }  # fmt: skip
    used = {point.attributes[0].value.string_value: _value(point) for point in _points(metrics["go.memory.used"])}
    assert used["stack"] == stats["StackInuse"]
    assert sum(used.values()) == int(str(stats["Sys"])) - int(str(stats["HeapReleased"]))


def test_each_process_is_a_resource_that_says_who_it_is(receiver: Receiver) -> None:
    unread = target(None, 300, state=TargetState.UNREADABLE)
    plain = target(kernel_only(), 200, "mariadbd", workload=Workload())
    _push(receiver, view(target(whole()), plain, unread))
    first, second = (_attributes(resource) for resource in receiver.resources)
    report = whole()
    assert first == {
        "service.name": "orders", process_attributes.PROCESS_PID: 100,
        process_attributes.PROCESS_EXECUTABLE_NAME: "orders",
        process_attributes.PROCESS_EXECUTABLE_PATH: report.process.exe,
        process_attributes.PROCESS_CREATION_TIME: report.process.start_time,
        process_attributes.PROCESS_RUNTIME_NAME: "go", process_attributes.PROCESS_RUNTIME_VERSION: "go1.27.3",
        "container.id": report.process.container_id, k8s_attributes.K8S_POD_UID: "11111111-2222-3333-4444-555555555555",
        k8s_attributes.K8S_POD_NAME: "orders-7c9f", k8s_attributes.K8S_NAMESPACE_NAME: "shop",
        k8s_attributes.K8S_CONTAINER_NAME: "app", k8s_attributes.K8S_NODE_NAME: "node-1",
        k8s_attributes.K8S_POD_LABEL_TEMPLATE + ".app.kubernetes.io/name": "orders",
    }  # fmt: skip
    assert (second["process.pid"], second["service.name"]) == (200, "mariadbd")
    assert not any(name.startswith(("k8s.", "container.", "process.runtime")) for name in second)
    assert set(_metrics(receiver.resources[1])) <= set(PROCESS)


def test_what_is_not_set_is_not_sent(receiver: Receiver) -> None:
    report = whole()
    assert report.heap is not None
    unlimited = replace(report.heap, gc_percent=-1, goal=(1 << 64) - 1, memory_limit=None)
    _push(receiver, view(target(replace(report, heap=unlimited))))
    names = set(_metrics(receiver.resources[0]))
    assert set(GO) - names == {"go.memory.limit", "go.config.gogc", "go.memory.gc.goal"}


@pytest.mark.parametrize("options", [MetricOptions(), ALL])
def test_our_own_names_carry_what_prometheus_gets(receiver: Receiver, options: MetricOptions) -> None:
    _push(receiver, view(target(whole())), own_names=True, options=options)
    metrics = _metrics(receiver.resources[0])
    shown = series(whole(), options)
    for name, metric in metrics.items():
        if name not in GO | PROCESS:
            assert sorted(map(_value, _points(metric))) == pytest.approx(sorted(values(shown, name))), name
    without = {name.partition("{")[0] for name in shown} - set(metrics)
    assert without <= {"gomem_process_info", "go_gc_duration_seconds_sum", "go_gc_duration_seconds_count"}
    assert metrics["gomem_drift_bytes_total"].unit == "By"


def test_a_cgroup_is_a_resource_without_a_process(receiver: Receiver) -> None:
    _push(receiver, dataclasses.replace(view(target(whole())), cgroups=CGROUPS), own_names=True)
    _, pod, _ = receiver.resources
    assert _attributes(pod) == {
        process_attributes.PROCESS_LINUX_CGROUP: "/kubepods/pod1", k8s_attributes.K8S_POD_NAME: "orders-7c9f",
        k8s_attributes.K8S_NAMESPACE_NAME: "shop", k8s_attributes.K8S_CONTAINER_NAME: "app",
        k8s_attributes.K8S_NODE_NAME: "node-1",
    }  # fmt: skip
    kills = _metrics(pod)["gomem_cgroup_oom_kills_total"]
    assert kills.sum.is_monotonic
    assert [_value(point) for point in _points(kills)] == [4]


def test_hostile_strings_and_numbers_arrive_as_something_harmless(receiver: Receiver) -> None:
    bad = "\udcff\ud800\x00\n" + "x" * 10_000
    report = replace(whole(), process=replace(whole().process, exe=bad, go_version=bad, container_id=bad))
    stats = {**(report.memstats or {}), "TotalAlloc": 1 << 64, "Mallocs": -(1 << 64)}
    overhead = replace(report.overhead, target_slowdown_estimate=math.inf)
    hostile = target(replace(report, memstats=stats, overhead=overhead), 7, bad, workload=Workload(bad, bad, bad, bad,
                     bad, bad, {bad: bad}))  # fmt: skip
    push = _push(receiver, view(hostile, target(whole(), 8)), own_names=True, options=ALL)
    assert push.counts().sent == 1, push.counts().last_error
    assert [_attributes(resource)["process.pid"] for resource in receiver.resources] == [7, 8]
    assert all(len(str(value)) <= 256 for value in _attributes(receiver.resources[0]).values())


def test_a_view_is_pushed_once(receiver: Receiver) -> None:
    shown = [view(target(whole()))]
    push = open_push(lambda: shown[0], receiver.url)
    push.push()
    push.push()
    shown[0] = view(target(whole()))
    push.push()
    assert push.counts().sent == len(receiver.requests) == 2


def test_a_collector_that_refuses_is_complained_of_once_and_served_again(receiver: Receiver) -> None:
    heard: list[str] = []
    push = open_push(lambda: view(target(whole())), receiver.url, complain=heard.append)
    receiver.status = 400
    push.push()
    push.push()
    assert (push.counts().sent, push.counts().failed) == (0, 2)
    assert "400" in push.counts().last_error
    receiver.status = 200
    push.push()
    assert (push.counts().sent, push.counts().last_error) == (1, "")
    assert [line.partition(":")[0] for line in heard] == ["pushing over OTLP fails", "pushing over OTLP works again"]


def test_a_collector_that_is_not_there_does_no_harm() -> None:
    push = open_push(lambda: view(target(whole())), "http://127.0.0.1:1", timeout=0.2)
    push.push()
    assert push.counts().failed == 1
    assert push.counts().last_error


def test_an_answer_without_end_is_not_read() -> None:
    written, most = [0], 64 << 20

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                while written[0] < most:
                    written[0] += self.wfile.write(bytes(1 << 16))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        push = open_push(lambda: view(target(whole())), f"http://127.0.0.1:{server.server_port}", timeout=20)
        push.push()
        server.shutdown()
        thread.join()
    assert push.counts().sent == 1
    assert written[0] < most


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until() and time.monotonic() < deadline:
        time.sleep(0.005)


def test_the_thread_pushes_until_it_is_stopped(receiver: Receiver) -> None:
    push = open_push(lambda: view(target(whole())), receiver.url, interval=0.01)
    push.start()
    _wait(lambda: len(receiver.requests) >= 3)
    push.stop()
    assert len(receiver.requests) >= 3
    _wait(lambda: "otlp" not in {thread.name for thread in threading.enumerate()})
    assert "otlp" not in {thread.name for thread in threading.enumerate()}


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gomem.exporters.otlp.sender", None)
    with pytest.raises(BackendUnavailable, match="OTLP") as caught:
        open_push(lambda: None, "http://collector:4318")
    assert caught.value.fix == "pip install 'gomem[otlp]'"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/metrics"),
        ("https://[::1]:4318/", "https://[::1]:4318/v1/metrics"),
        ("https://host/otlp/v1/metrics", "https://host/otlp/v1/metrics"),
    ],
)
def test_an_endpoint_without_a_path_gets_otlps_own(endpoint: str, url: str) -> None:
    assert metrics_url(endpoint) == url


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://x", "http://", "http://host:99999", "http://[::1", ""])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError):
        metrics_url(endpoint)
