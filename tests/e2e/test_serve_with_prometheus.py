"""Debian's Prometheus scrapes `gomem serve`, which follows it, Debian's etcd and node exporter, and ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.prometheus.catalog import PROCESS_GROUPS
from tests.support.builds import build
from tests.support.dashboards import BOARDS, annotation_queries, links, queries, variable_queries
from tests.support.debian import program_of, prometheus
from tests.support.ports import free_port
from tests.support.processes import running, wait_until
from tests.support.prometheus import METRICS, Prometheus, promtool, running_prometheus
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.bpf

DEPLOY = Path(__file__).parents[2] / "deploy"
CHURN = ("-mb", "32", "-phase", "100ms", "-seconds", "600")


# An alert that fires for each process, with the labels that those of the mixin have.
ALWAYS = """\
groups:
  - name: always
    rules:
      - alert: GomemAlways
        expr: |
          gomem_process_resident_bytes
          * on (job, instance, pid, process) group_left (namespace, workload, pod, container) gomem_process_info
        labels: {severity: info}
"""


@dataclass(frozen=True)
class Scene:
    """Everything that runs."""

    served: Serving
    prometheus: Prometheus
    churn: int
    exporters: dict[str, tuple[int, str]]  # pid and URL of programs that export their own figures


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("scene")
    node, etcd, peer = (f"127.0.0.1:{free_port()}" for _ in range(3))
    with ExitStack() as stack:
        # A limit that the heap runs into, so that the scavenger and the collector work for it.
        os.environ["GOMEMLIMIT"] = "48MiB"
        try:
            churn = stack.enter_context(running(build("churn", "1.25.5"), *CHURN))
        finally:
            del os.environ["GOMEMLIMIT"]
        pids = {
            "node": stack.enter_context(
                started(directory, "node", program_of("prometheus-node-exporter", "usr/bin/prometheus-node-exporter"),
                        f"--web.listen-address={node}", "--collector.disable-defaults", "--collector.loadavg")
            ),
            "etcd": stack.enter_context(
                started(directory, "etcd", program_of("etcd-server", "usr/bin/etcd"),
                        "--data-dir", directory / "etcd", "--listen-client-urls", f"http://{etcd}",
                        "--advertise-client-urls", f"http://{etcd}", "--listen-peer-urls", f"http://{peer}")
            ),
        }  # fmt: skip
        words = [word for pid in (churn.pid, *pids.values()) for word in ("--pid", pid)]
        served = stack.enter_context(
            serving(*words, "--exe", prometheus(), "--interval", "1", "--cpu-budget", "1", "--compat", "go-collector",
                    "--size-classes", "--black-box", directory / "boxes")
        )  # fmt: skip
        always = directory / "always.yaml"
        always.write_text(ALWAYS)
        rules = (DEPLOY / "mixin" / "rules.yaml", DEPLOY / "mixin" / "alerts.yaml", always)
        running_one = running_prometheus(directory, "1s", {"gomem": served.url.removeprefix("http://")}, rules)
        server = stack.enter_context(running_one)
        exporters = {
            "self": (server.pid, server.url),
            "node": (pids["node"], f"http://{node}"),
            "etcd": (pids["etcd"], f"http://{etcd}"),
        }
        for pid in (churn.pid, *(pid for pid, _ in exporters.values())):
            served.until(lambda pid=pid: served.followed(pid), f"process {pid} being followed")  # type: ignore[misc]
        yield Scene(served, server, churn.pid, exporters)


@contextmanager
def started(directory: Path, name: str, *command: object) -> Iterator[int]:
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        body: bytes = response.read()
    return body.decode()


def test_prometheus_scrapes_every_process(scene: Scene) -> None:
    wait_until(lambda: bool(scene.prometheus.query('up{job="gomem"} == 1')), "a scrape that succeeded", 60)
    for pid in (scene.churn, *(pid for pid, _ in scene.exporters.values())):
        query = f'gomem_process_state{{job="gomem", pid="{pid}", state="followed"}} == 1'
        wait_until(lambda query=query: bool(scene.prometheus.query(query)), query, 60)  # type: ignore[misc]
    targets = json.loads(scene.prometheus.get("/api/v1/targets"))["data"]["activeTargets"]
    assert [target["lastError"] for target in targets] == [""] * len(targets)


def test_promtool_finds_nothing_to_complain_of(scene: Scene) -> None:
    text = scene.served.get("/metrics")
    ours = "\n".join(line for line in text.splitlines() if not re.match(r"(# (HELP|TYPE) )?(go|process)_", line)) + "\n"
    done = subprocess.run(
        [prometheus().with_name("promtool"), "check", "metrics"], input=ours, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout + done.stderr


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_a_dashboard_returns_data(scene: Scene, name: str) -> None:
    chosen = {"process": "churn", "pid": str(scene.churn)} if name == "process" else {}
    asked = {f"{title}: {legend}": query for (title, legend), query in queries(name, **chosen).items()}
    empty = set((asked | variable_queries(name, **chosen)).items())
    assert len(empty) > 5

    def all_answered() -> bool:
        empty.difference_update([one for one in empty if scene.prometheus.query(one[1])])
        return not {one for one in empty if not may_be_absent(one[1], scene)}

    try:
        wait_until(all_answered, "all queries returning data", 90)
    except TimeoutError:
        pytest.fail(f"no data for {sorted(empty)}")


def may_be_absent(query: str, scene: Scene) -> bool:
    """Tell whether it asks for a limit that this machine's cgroup has not, or for a sparse gauge that is still 0."""
    if "gomem_cgroup_memory_max_bytes" in query:
        return not scene.served.samples("gomem_cgroup_memory_max_bytes")
    if "gomem_finding_active" in query and " or " not in query:
        whose = {"pid": str(scene.churn)} if f'pid=~"{scene.churn}"' in query else {}
        return not scene.served.samples("gomem_finding_active", **whose)
    asked = re.search(r"(gomem_\w+)\{(.*?)\}", query)
    if asked is None:
        return False
    wanted = dict(re.findall(r'(\w+)="(.*?)"', asked[2]))
    metric = next((one for group in PROCESS_GROUPS.values() for one in group if one.name == asked[1]), None)
    if metric is None or metric.sparse is None:
        return False
    sparse = metric.sparse(tuple(wanted.get(label, "") for label in metric.labels))
    of_it = {label: value for label, value in wanted.items() if label in metric.labels}
    if f'pid=~"{scene.churn}"' in query:  # another process may well have it
        of_it["pid"] = str(scene.churn)
    return sparse and not scene.served.samples(metric.name, **of_it)


@pytest.mark.parametrize("name", ["overview", "process", "workload"])
def test_the_labels_that_links_take_are_those_of_the_series(scene: Scene, name: str) -> None:
    taken = {
        (panel["title"], label)
        for panel, url in links(name)
        for label in re.findall(r"__(?:data\.fields|field\.labels)\.(\w+)", url)
    }
    asked = queries(name)

    def lacking() -> set[tuple[str, str]]:
        found = set(taken)
        for title in {title for title, _ in taken}:
            answers = [scene.prometheus.query(query) for (panel, _), query in asked.items() if panel == title]
            series = [one["metric"] for answer in answers for one in answer]
            found -= {(title, label) for one in series for label in one}
        return found

    absent = {"Findings that hold"} if not scene.served.samples("gomem_finding_active") else set()
    wait_until(lambda: {title for title, _ in lacking()} <= absent, "series with all labels that links take", 60)


def test_annotations_mark_the_starts_and_what_holds(scene: Scene) -> None:
    marks = annotation_queries("overview")
    now = time.time()
    for name in ("Start of a process", "Start of gomem"):
        wait_until(lambda name=name: bool(scene.prometheus.query(marks[name])), name, 60)  # type: ignore[misc]
        moments = [float(one["value"][1]) / 1000 for one in scene.prometheus.query(marks[name])]
        assert all(now - 3600 < moment < now + 60 for moment in moments), name


def test_annotations_mark_a_kill_and_the_limit_when_they_come(tmp_path: Path) -> None:
    marks = annotation_queries("overview")
    labels = 'job="gomem", instance="i:1", namespace="", workload="", pod="", container="", node=""'
    process = 'job="gomem", instance="i:1", pid="7", process="p"'
    series = {
        f'gomem_cgroup_oom_kills_total{{{labels}, cgroup="/c"}}': "0 0 1 1 1 1 1 1",
        f'gomem_process_info{{{process}, namespace="", workload="", pod="", container="", cgroup="/c"}}': "1x8",
        f'gomem_finding_active{{{process}, id="near-gomemlimit", severity="warning"}}': "_ _ 1 1 _ _ _ _",
        f'gomem_finding_active{{{process}, id="another", severity="info"}}': "1x8",
    }
    rules = {"groups": [{"name": "marks", "rules": [
        {"record": "marked:kill", "expr": marks["OOM kill"]},
        {"record": "marked:limit", "expr": marks["At GOMEMLIMIT"]},
    ]}]}  # fmt: skip
    expected = [("kill", "1m", 0), ("kill", "2m", 1), ("kill", "7m", 0), ("limit", "1m", 0), ("limit", "3m", 1)]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {"expr": f"count(marked:{what}) or vector(0)", "eval_time": at,
                 "exp_samples": [{"labels": "{}", "value": count}]}
                for what, at, count in expected
            ],
        }],
    }  # fmt: skip
    (tmp_path / "rules.yaml").write_text(json.dumps(rules))
    (tmp_path / "test.yaml").write_text(json.dumps(test))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "test.yaml")


@pytest.mark.parametrize("name", ["self", "node", "etcd"])
def test_the_compatible_names_say_what_the_programs_export_of_themselves(scene: Scene, name: str) -> None:
    pid, url = scene.exporters[name]
    outside: dict[str, tuple[float, float, float]] = {}

    def agree() -> bool:
        before, ours, after = sandwich(scene.served, str(pid), url)
        assert ours.keys() >= before.keys() == after.keys() >= {*GROWING, *SHARED}
        for only_grows in (*((metric,) for metric in GROWING), SHARED):
            low, told, high = (sum(figures[metric] for metric in only_grows) for figures in (before, ours, after))
            assert low <= told <= high, only_grows
        # What counts objects lags in client_golang by what the Ps have not told yet; a heap breathes between looks.
        figures = {metric: (before[metric], ours[metric], after[metric]) for metric in before}
        outside.clear()
        outside.update({metric: three for metric, three in figures.items() if not nearly_between(*three)})
        return not outside

    try:
        wait_until(agree, "a look that agrees with the program's own figures", 60)
    except TimeoutError as error:
        pytest.fail(f"{error}: {outside}")


# What the allocator has had from the kernel never shrinks in these programs (malloc.go of Go 1.19). Heap, stacks
# and work buffers take pages from each other, so only the sum of the three is such a figure; and what is handed to
# any of them was counted as other_sys before.
GROWING = (
    "go_memstats_sys_bytes", "go_memstats_mspan_sys_bytes", "go_memstats_mcache_sys_bytes",
    "go_memstats_buck_hash_sys_bytes",
)  # fmt: skip
SHARED = ("go_memstats_heap_sys_bytes", "go_memstats_stack_sys_bytes", "go_memstats_gc_sys_bytes")


def nearly_between(before: float, told: float, after: float) -> bool:
    low, high = sorted((before, after))
    slack = 0.25 * high + (8 << 20)
    return low - slack <= told <= high + slack


def sandwich(served: Serving, pid: str, url: str) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return a program's own figures, ours of a later look that was not torn, and its own after that."""

    def looked() -> bool:
        ours.update(served.figures(*METRICS.values(), *about, pid=pid))
        return ours[about[0]] >= looks + 2 and ours[about[1]] == 0

    about = ("gomem_looks_total", "gomem_consistency_skew_bytes")
    ours: dict[str, float] = {}
    # The heap profile's text form makes the runtime flush its counters, where a program has one.
    with suppress(urllib.error.URLError):
        get(f"{url}/debug/pprof/heap?debug=1")
    before = own_figures(url)
    looks = served.figures(*about, pid=pid)[about[0]]
    served.until(looked, "a look at it", 60)
    return before, ours, own_figures(url)


def own_figures(url: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in get(f"{url}/metrics").splitlines():
        name, _, value = line.rpartition(" ")
        if name in METRICS.values():
            found[name] = float(value)
    return found


def test_a_rule_makes_the_series_that_alerts_use(scene: Scene) -> None:
    def recorded() -> list[dict[str, Any]]:
        return scene.prometheus.query(f'pid:gomem_memory_limit:ratio{{pid="{scene.churn}"}}')

    wait_until(lambda: bool(recorded()), "a recorded series", 60)
    assert 0 < float(recorded()[0]["value"][1]) < 2
    rules = json.loads(scene.prometheus.get("/api/v1/rules"))["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}


def test_the_names_of_states_are_spelt_in_one_way_and_what_is_always_0_is_left_out(scene: Scene) -> None:
    text = scene.served.get("/metrics")
    names = "state|from|to|event|phase|kind|residency|source|syscall|advice|part|role"
    found = re.findall(rf'[{{,](?:{names})="(.*?)"', text)
    assert {"ready", "prepared", "free_os_memory"} <= set(found)
    assert not [value for value in found if not re.fullmatch("[a-z][a-z0-9_]*", value)]
    # The machine has no swap in use, the program no C, no huge pages and no memory shared with others.
    own = [line for line in text.splitlines() if f'pid="{scene.churn}"' in line and line.startswith("gomem_")]
    assert not [line for line in own if re.search("swap|lazily|huge|shmem|mremap|brk|process_madvise|fault", line)]
    gauges = {name for name, kind in re.findall(r"# TYPE (\w+) (\w+)", text) if kind == "gauge"}
    zero = {line.partition("{")[0] for line in own if line.endswith(" 0")} & gauges
    assert zero <= {"gomem_gc_phase", "gomem_consistency_skew_bytes", "gomem_accounting_unexplained_bytes",
                    "gomem_heap_page_bytes", "gomem_virtual_bytes", "gomem_follows_events",
                    "gomem_size_class_free_slots", "gomem_waiting_finalizers"}  # fmt: skip


def test_the_server_follows_itself_being_scraped_without_loss(scene: Scene) -> None:
    assert scene.served.value("gomem_tracer_lost_events_total") == 0
    assert scene.served.value("gomem_drift_bytes_total", pid=str(scene.churn)) == 0
    assert (scene.served.value("gomem_tracer_events_total") or 0) > 100
