"""The series in a real Prometheus that scrapes as the operator would: whose pod and namespace do they carry?

Two processes are followed by two gomems, that of the node and a sidecar: one process in a pod of the API, one in none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.builds import build
from tests.support.charts import rendered
from tests.support.discovery.cgroups import cgroups, move
from tests.support.discovery.kubernetes_api import pod
from tests.support.discovery.kubernetes_api import serving as api_serving
from tests.support.kustomize import KUSTOMIZE, built, built_with
from tests.support.operator import discovered, scrape_config
from tests.support.parked import parked
from tests.support.processes import wait_until
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.requirements import absent
from tests.support.serving import Serving, serving
from tests.support.workloads import Document, of_kind, pods
from tests.unit.deploy.test_sidecar import workload

UID = "6f1c3c2e-9b1a-4d6e-8a53-2f0d3c9e7b11"
ID = "0123456789abcdef" * 4
CHECKOUT = {"namespace": "shop", "pod": "checkout-1"}
NODE = {"gomem_namespace": "gomem", "gomem_pod": "gomem-x7k2p", "node": "node-1"}
SIDECAR = {"gomem_namespace": "shop", "gomem_pod": "checkout-x7k2p", "node": "node-1"}
PAGE = KUSTOMIZE.parents[1] / "docs" / "deployment.md"

WAYS = ["overlay", "chart", "sidecar", "page"]
WAYS += [f"{name}, labels not honoured" for name in WAYS[:3]]


def gomems(way: str) -> int:
    """Return how many gomems are scraped in this way."""
    return 2 if way == "page" else 1


def documented() -> Document:
    """Return the scrape_config of the page for a Prometheus without the operator."""
    (text,) = re.findall(r"^```yaml\n(scrape_configs:\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (config,) = yaml.safe_load(text)["scrape_configs"]
    return dict(config)


def jobs(directory: Path, node: Serving, sidecar: Serving) -> Iterator[Document]:
    """Yield a scrape_config for each way to be scraped."""
    theirs = [workload("Deployment", "checkout", {"app": "checkout"})]
    shop = built_with(directory, theirs, ["sidecar", "sidecar-pod-monitor"], namespace="shop")
    overlay, chart = built(KUSTOMIZE / "overlays" / "daemonset"), rendered({})
    addresses = {
        "gomem-x7k2p:metrics": node.url.removeprefix("http://"),
        "checkout-x7k2p:gomem-metrics": sidecar.url.removeprefix("http://"),
    }
    for name, documents in {"overlay": overlay, "chart": chart, "sidecar": shop}.items():
        (monitor,) = of_kind(documents, "PodMonitor")
        # One namespace, in which somebody else's pods are, too.
        targets = discovered([*pods(documents), *pods(theirs, "gomem")], addresses, "node-1")
        yield known_as(name, scrape_config(monitor, targets))
        not_honoured = scrape_config(monitor, targets, override_honor_labels=True)
        yield known_as(f"{name}, labels not honoured", not_honoured)
    config = documented()
    assert config.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    everybody = discovered([*pods(overlay), *pods(shop)], addresses, "node-1")
    yield known_as("page", {**config, "static_configs": everybody})


def known_as(way: str, config: Document) -> Document:
    """Return the scrape_config with a label on all its series that tells them from those of the others."""
    mark = {"target_label": "way", "replacement": way}
    return {**config, "job_name": way, "relabel_configs": [*config["relabel_configs"], mark]}


class Scene:
    """A Prometheus with its jobs, and the pids of the two processes."""

    def __init__(self, prometheus: Prometheus, in_pod: int, in_none: int) -> None:
        self.prometheus = prometheus
        self.in_pod = in_pod
        self.in_none = in_none

    def labels(self, way: str, selector: str) -> list[dict[str, str]]:
        """Return the labels of the series that a selector finds among those of one scrape_config."""
        name, _, rest = selector.partition("{")
        series = self.prometheus.query(f"{name}{{way={json.dumps(way)},{rest or '}'}")
        return [one["metric"] for one in series]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if find_spec("kubernetes") is None:
        absent("the Python package kubernetes is not installed")
    directory = tmp_path_factory.mktemp("scraping")
    with ExitStack() as stack:
        api, url = stack.enter_context(api_serving())
        api.put(pod("checkout-1", UID, containers={"server": ID}))
        (container,) = stack.enter_context(cgroups(f"kubepods/burstable/pod{UID}/{ID}"))
        program = build("parked", "1.25.5")
        in_pod, in_none = (stack.enter_context(parked(program)).pid for _ in range(2))
        move(in_pod, container)
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(json.dumps({
            "current-context": "test", "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": url}}], "users": [{"name": "test", "user": {}}],
        }))  # fmt: skip
        quick = ("--backend", "procfs", "--interval", "1", "--pid", in_pod, "--pid", in_none)
        on_node = ["env", f"KUBECONFIG={kubeconfig}", "GOMEM_NODE_NAME=node-1"]
        node = stack.enter_context(serving(*quick, "--kubernetes", under=on_node))
        beside = ["env", "GOMEM_POD_NAME=checkout-1", "GOMEM_POD_NAMESPACE=shop", f"GOMEM_POD_UID={UID}",
                  "GOMEM_NODE_NAME=node-1"]  # fmt: skip
        sidecar = stack.enter_context(serving(*quick, under=beside))
        for served in (node, sidecar):
            served.until(
                lambda served=served: served.samples("gomem_process_info", pod="checkout-1", pid=str(in_pod)) != []  # type: ignore[misc]
                and served.followed(in_none), "both being followed"
            )  # fmt: skip
        configs = list(jobs(directory, node, sidecar))
        prometheus = stack.enter_context(running_prometheus(directory, "1s", scrape_configs=configs))
        made = Scene(prometheus, in_pod, in_none)
        wait_until(lambda: all(len(made.labels(way, "gomem_tracer_info")) == gomems(way) for way in WAYS), "scrapes")
        yield made


def subset(expected: dict[str, str], labels: dict[str, str]) -> dict[str, str]:
    return {name: labels.get(name, "") for name in expected}


@pytest.mark.parametrize("way", WAYS)
def test_namespace_and_pod_are_the_process_and_gomems_own_have_other_names(scene: Scene, way: str) -> None:
    found = scene.labels(way, f'gomem_process_info{{pid="{scene.in_pod}"}}')
    assert len(found) == gomems(way)
    for labels in found:
        assert subset(CHECKOUT, labels) == CHECKOUT
        own = SIDECAR if labels["gomem_pod"] == SIDECAR["gomem_pod"] else NODE
        assert subset(own, labels) == own
        assert labels.get("container") == (None if own is SIDECAR else "server")
        assert not [name for name in labels if name.startswith("exported_") and name != "exported_node"]


@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_is_in_no_pod_gets_none(scene: Scene, way: str) -> None:
    found = scene.labels(way, f'gomem_process_info{{pid="{scene.in_none}"}}')
    assert found
    for labels in found:
        assert not {"namespace", "pod", "container"} & labels.keys(), labels


@pytest.mark.parametrize("way", WAYS)
def test_no_series_of_a_process_says_that_it_is_in_gomems_pod(scene: Scene, way: str) -> None:
    found = scene.labels(way, '{__name__=~"gomem_.*", process!=""}')
    assert len(found) > 50
    allowed: list[Any] = [None, CHECKOUT["pod"]]
    assert {labels.get("pod") for labels in found} <= set(allowed)


def test_gomems_own_series_are_told_apart_by_its_pod(scene: Scene) -> None:
    for way, pods_of_gomem in {"overlay": {"gomem-x7k2p"}, "page": {"gomem-x7k2p", "checkout-x7k2p"}}.items():
        own = scene.labels(way, "gomem_tracer_info")
        assert {labels["gomem_pod"] for labels in own} == pods_of_gomem
        assert not [labels for labels in own if "pod" in labels]
        assert {labels["gomem_pod"] for labels in scene.labels(way, "up")} == pods_of_gomem
