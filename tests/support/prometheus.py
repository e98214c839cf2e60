"""Debian's prometheus as a target: a stripped Go program that nobody changed, which exports its own MemStats."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.debian import prometheus
from tests.support.ports import free_port
from tests.support.processes import wait_until

# client_golang's collector (prometheus/go_collector.go): the metric of each MemStats field.
METRICS = {
    "Alloc": "go_memstats_alloc_bytes",
    "TotalAlloc": "go_memstats_alloc_bytes_total",
    "Sys": "go_memstats_sys_bytes",
    "Mallocs": "go_memstats_mallocs_total",
    "Frees": "go_memstats_frees_total",
    "HeapAlloc": "go_memstats_heap_alloc_bytes",
    "HeapSys": "go_memstats_heap_sys_bytes",
    "HeapIdle": "go_memstats_heap_idle_bytes",
    "HeapInuse": "go_memstats_heap_inuse_bytes",
    "HeapReleased": "go_memstats_heap_released_bytes",
    "HeapObjects": "go_memstats_heap_objects",
    "StackInuse": "go_memstats_stack_inuse_bytes",
    "StackSys": "go_memstats_stack_sys_bytes",
    "MSpanInuse": "go_memstats_mspan_inuse_bytes",
    "MSpanSys": "go_memstats_mspan_sys_bytes",
    "MCacheInuse": "go_memstats_mcache_inuse_bytes",
    "MCacheSys": "go_memstats_mcache_sys_bytes",
    "BuckHashSys": "go_memstats_buck_hash_sys_bytes",
    "GCSys": "go_memstats_gc_sys_bytes",
    "OtherSys": "go_memstats_other_sys_bytes",
    "NextGC": "go_memstats_next_gc_bytes",
    "NumGC": "go_gc_duration_seconds_count",
}
QUERIES = (
    "up",
    "rate(go_memstats_alloc_bytes_total[5s])",
    'sum by (__name__) ({__name__=~"go_.*"})',
    'topk(50, {job="self"})',
)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running prometheus that scrapes itself every second."""

    pid: int
    url: str

    def get(self, path: str) -> str:
        """Return the body of a GET, which is text."""
        return self.fetch(path).decode()

    def fetch(self, path: str) -> bytes:
        """Return the body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=20) as response:
            body: bytes = response.read()
        return body

    def memstats(self) -> dict[str, int]:
        """Return the MemStats fields that it exports of itself now.

        What it exports comes from runtime/metrics, which does not see the objects that mcaches have handed out
        since they were last flushed; the heap profile's text form calls runtime.ReadMemStats, which flushes them.
        """
        self.get("/debug/pprof/heap?debug=1")
        samples = dict(line.split(" ", 1) for line in self.get("/metrics").splitlines() if line.startswith("go_"))
        return {name: int(float(samples[metric])) for name, metric in METRICS.items()}

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the result of a query now, or `at` another time; raises AssertionError for one that is refused."""
        return self._ask("query", {"query": expression, **({} if at is None else {"time": at})})

    def course(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """Return the result of a query over the last `seconds`, one value a second."""
        now = time.time()
        return self._ask("query_range", {"query": expression, "start": now - seconds, "end": now, "step": 1})

    def _ask(self, kind: str, about: Mapping[str, object]) -> list[dict[str, Any]]:
        try:
            answer = json.loads(self.get(f"/api/v1/{kind}?{urllib.parse.urlencode(about)}"))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{about}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    @contextmanager
    def queried(self, threads: int = 2) -> Iterator[None]:
        """Send queries as fast as they are answered, until the block ends."""
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                for query in QUERIES:
                    self.get("/api/v1/query?" + urllib.parse.urlencode({"query": query}))

        askers = [threading.Thread(target=ask, daemon=True) for _ in range(threads)]
        for asker in askers:
            asker.start()
        try:
            yield
        finally:
            done.set()
            for asker in askers:
                asker.join(timeout=30)


def promtool(*words: object) -> str:
    """Return what promtool says of what it accepts; fail the test with its words if it does not."""
    command = [str(prometheus().with_name("promtool")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def running_prometheus(
    directory: Path,
    scrape_interval: str = "1s",
    jobs: Mapping[str, str] | None = None,
    rules: Sequence[Path] = (),
    scrape_configs: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Prometheus]:
    """Run prometheus in `directory`, on a free port of this machine's loopback interface.

    It scrapes itself as the job "self", `jobs`: an address for each name, and what `scrape_configs` say.
    """
    address = f"127.0.0.1:{free_port()}"
    config = directory / "prometheus.yml"
    scraped = {"self": address, **(jobs or {})}
    configuration = {
        "global": {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [where]}]} for name, where in scraped.items()
        ]
        + list(scrape_configs),
    }
    config.write_text(json.dumps(configuration))  # JSON is YAML
    with open(directory / "prometheus.log", "w") as log:
        process = subprocess.Popen(
            [prometheus(), f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address={address}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ,
        )  # fmt: skip
    target = Prometheus(process.pid, f"http://{address}")

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError((directory / "prometheus.log").read_text()[-2000:])
        try:
            return "Ready" in target.get("/-/ready")
        except (urllib.error.URLError, ConnectionError):
            return False

    try:
        wait_until(ready, "prometheus becoming ready", seconds=60)
        yield target
    finally:
        process.kill()
        process.wait()
