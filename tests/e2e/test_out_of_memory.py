"""The kernel kills Go programs for want of memory under `gomem serve`, and Prometheus evaluates the alerts."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.builds import build
from tests.support.discovery.cgroups import remove
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.processes import running, wait_until
from tests.support.prometheus import running_prometheus
from tests.support.serving import serving

MIXIN = Path(__file__).parents[2] / "deploy" / "mixin"
NAME = "gomem-oom"  # of the cgroups, before what makes each another
LIMIT = 64 << 20


def test_a_kill_raises_the_alert_although_container_and_pid_are_others_then_and_an_exit_does_not(
    tmp_path: Path,
) -> None:
    churn = build("churn", "1.25.5")
    grows = (churn, "-mb", "1024", "-phase", "200s")  # 5 MB a second
    with ExitStack() as stack:
        first, version = stack.enter_context(memory_cgroup(NAME, LIMIT))
        twin, _ = stack.enter_context(memory_cgroup(NAME, LIMIT))
        served = stack.enter_context(serving("--cgroup", f"/{NAME}-*", "--interval", "0.5", "--cpu-budget", "1"))
        rules = (MIXIN / "rules.yaml", MIXIN / "alerts.yaml")
        prometheus = stack.enter_context(
            running_prometheus(tmp_path, "1s", {"gomem": served.url.removeprefix("http://")}, rules)
        )
        first_path, twin_path = f"/{first.name}", f"/{twin.name}"

        def shown(name: str, cgroup: str) -> float | None:
            return served.value(f"gomem_cgroup_{name}", cgroup=cgroup)

        def recorded(query: str) -> float | None:
            found = prometheus.query(query)
            return float(found[0]["value"][1]) if found else None

        def follow(process: subprocess.Popen[bytes]) -> None:
            served.until(lambda: served.followed(process.pid), "it is followed")

        killed = stack.enter_context(running(*joining(first), *grows))
        ends = stack.enter_context(running(*joining(twin), churn, "-mb", "8", "-seconds", "12"))
        beside = stack.enter_context(running(*joining(twin), churn, "-mb", "8", "-seconds", "600"))
        for process in (killed, ends, beside):
            follow(process)
        # Two processes share the twin's cgroup: its figures are there once.
        assert len(served.samples("gomem_cgroup_memory_bytes", cgroup=twin_path)) == 1
        assert shown("memory_max_bytes", twin_path) == shown("memory_max_bytes", first_path) == LIMIT
        wait_until(lambda: recorded(f'gomem_cgroup_oom_kills_total{{cgroup="{first_path}"}}') == 0, "a scrape")

        # The kernel says whom it has killed.
        assert (killed.wait(60), ends.wait(60)) == (-9, 0)
        assert (oom_kills(first), oom_kills(twin)) == (1, 0)
        served.until(lambda: shown("oom_kills_total", first_path) == 1, "the kill is counted")
        remove(first)
        second, _ = stack.enter_context(memory_cgroup(NAME, LIMIT))
        again = stack.enter_context(running(*joining(second), churn, "-mb", "8", "-seconds", "600"))
        anew = stack.enter_context(running(*joining(twin), churn, "-mb", "8", "-seconds", "600"))
        follow(again)
        follow(anew)

        firing = 'ALERTS{alertname="GomemOomKill", alertstate="firing"}'
        wait_until(lambda: bool(prometheus.query(firing)), "the alert")
        served.until(lambda: shown("memory_bytes", first_path) is None, "the figures of a cgroup that is gone end")
        assert shown("oom_kills_total", first_path) == 1
        assert [_labels(alert) for alert in prometheus.query(firing)] == [
            {"cgroup": first_path, "job": "gomem", "severity": "critical"}
        ]
        (alert,) = _alerts(prometheus.get("/api/v1/alerts"), "GomemOomKill")
        runbook = alert["annotations"]["runbook_url"]
        assert runbook.startswith(served.url)
        assert served.get(runbook.removeprefix(served.url)).startswith("# GomemOomKill")

        # Page cache fills the twin's limit, which kills nobody.
        ratio = f'cgroup:gomem_memory_unreclaimable:ratio{{cgroup="{twin_path}"}}'
        writes = ("dd", "if=/dev/zero", f"of={tmp_path}/large", "bs=1M", f"count={(LIMIT >> 20) + 8}", "status=none")
        with running(*joining(twin), *writes) as writer:
            assert writer.wait(60) == 0
        served.until(lambda: (shown("memory_bytes", twin_path) or 0) > 0.9 * LIMIT, "the cache fills the limit")
        assert int((twin / _CURRENT[version]).read_text()) > 0.7 * LIMIT  # the kernel takes some back when it is full
        wait_until(lambda: recorded(ratio) is not None, "the recorded ratio")
        assert 0 < (recorded(ratio) or 0) < 0.8


def oom_kills(directory: Path) -> int:
    """Return the kernel's count of processes that it killed in a cgroup."""
    file = next(path for name in ("memory.events", "memory.oom_control") if (path := directory / name).exists())
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith("oom_kill "))


_CURRENT = {1: "memory.usage_in_bytes", 2: "memory.current"}


def _labels(alert: dict[str, Any]) -> dict[str, str]:
    """Return the labels of an alert, without those that Prometheus adds."""
    return {name: value for name, value in alert["metric"].items()
            if name not in ("__name__", "alertname", "alertstate", "instance")}  # fmt: skip


def _alerts(text: str, name: str) -> list[dict[str, Any]]:
    return [alert for alert in json.loads(text)["data"]["alerts"] if alert["labels"]["alertname"] == name]
