"""`gomem serve --profiles`: what `go tool pprof` and scrapers of profiles fetch of processes that serve none."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import bcrypt
import pytest
import yaml

from tests.support.builds import build
from tests.support.heapprofile import profiled, records_at, records_of
from tests.support.processes import rss
from tests.support.prometheus import promtool
from tests.support.serving import Serving, serving

PARCA = Path(__file__).parents[2] / "deploy" / "profiles" / "parca.yaml"
PARKED = 100  # goroutines of the program, beside the first one
OPTIONS = ("--profiles", "--interval", "0.5", "--backend", "procfs")


@pytest.fixture(scope="module")
def binary() -> Path:
    return build("heapprofile", "1.27.3", stripped=True)


def refusal(served: Serving, path: str) -> tuple[int, str]:
    """Return the status and the words that a GET is refused with."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        served.get(path)
    return caught.value.code, caught.value.read().decode()


def status(served: Serving, path: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(served.url + path, headers=headers), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def discovered(served: Serving, directory: Path) -> dict[str, str]:
    """Return the labels of the only target that Prometheus' discovery makes of the list by our rules for Parca.

    The label that Parca itself adds before the rules apply, the path of a profile, is added by a rule.
    """
    job = yaml.safe_load(PARCA.read_text())["scrape_configs"][0]
    path = job.pop("profiling_config")["pprof_config"]["memory"]["path"]
    del job["scrape_timeout"]  # which is longer than Prometheus allows
    job["http_sd_configs"][0]["url"] = f"{served.url}/sd"
    job["relabel_configs"].insert(0, {"target_label": "__profile_path__", "replacement": path})
    configuration = directory / "prometheus.yml"
    configuration.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    printed = promtool("check", "service-discovery", "--timeout=2s", configuration, "gomem")
    (one,) = json.loads(printed[printed.index("[") :])
    labels: dict[str, str] = one["labels"]
    return labels


def test_go_tool_pprof_fetches_what_the_process_would_have_written_and_scrapers_find_it(
    binary: Path, tmp_path: Path
) -> None:
    with ExitStack() as life:
        process = life.enter_context(profiled(binary, "-rate", 512))
        served = life.enter_context(serving("--pid", process.pid, *OPTIONS))
        served.until(lambda: served.followed(process.pid), "the process being followed")
        address = f"/targets/{process.pid}/debug/pprof/"
        heap = records_at(f"{served.url}{address}heap?debug=0", tmp_path)
        allocs = records_at(f"{served.url}/targets/{binary.name}/debug/pprof/allocs", tmp_path)
        goroutines = records_at(f"{served.url}{address}goroutine", tmp_path)
        assert {record.values for record in goroutines.samples} == {(1,), (PARKED,)}
        assert [record.values for record in goroutines.samples if record.calls("main.main")] == [(1,)]
        before = rss(process.pid)
        resident = records_at(f"{served.url}{address}resident", tmp_path)
        held = sum(record.values[0] * count for record, count in resident.samples.items())
        assert before <= held <= rss(process.pid)  # it is at rest
        own = process.writes(tmp_path)
        for ours, written in ((heap, own), (allocs, own.with_suffix(".allocs"))):
            theirs = records_of(written, tmp_path)
            assert ours.with_values() == theirs.with_values()
            assert ours.period == theirs.period
            assert len(ours.with_values()) > 10
        assert "alloc_space/bytes[dflt]" in allocs.types  # what is shown first
        assert "inuse_space/bytes[dflt]" in heap.types
        assert f'href="{address}heap"' in served.get(address)
        assert f'href="{address}"' in served.get(f"/targets/{process.pid}")
        assert refusal(served, f"{address}heap?debug=1")[0] == 400
        assert "heap" in refusal(served, f"{address}mutex")[1]
        (group,) = json.loads(served.get("/sd"))
        assert [f"http://{one}" for one in group["targets"]] == [served.url]
        labels = group["labels"]
        assert (labels["pid"], labels["exe"], labels["go_version"]) == (str(process.pid), str(binary), "go1.27.3")
        assert labels["__profile_path_prefix__"] + "/debug/pprof/" == address
        found = discovered(served, tmp_path)
        assert found["__profile_path__"] == f"{address}allocs"
        assert found["__address__"] == served.url.removeprefix("http://")
        assert (found["pid"], found["process"]) == (str(process.pid), binary.name)
        process.end_now()
        served.until(lambda: status(served, f"{address}heap") in (404, 410), "its end being told")
        served.until(lambda: json.loads(served.get("/sd")) == [], "it leaving the list")


def test_whoever_shows_no_password_gets_no_profile_and_no_list(binary: Path, tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"wonder", bcrypt.gensalt(5)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users:\n  alice: {hashed}\n")
    alice = "Basic " + base64.b64encode(b"alice:wonder").decode()
    with (
        profiled(binary) as process,
        serving("--pid", process.pid, *OPTIONS, "--web-config", tmp_path / "web.yml") as s,
    ):
        paths = ("/sd", f"/targets/{process.pid}/debug/pprof/heap", f"/targets/{process.pid}/debug/pprof/")
        assert [status(s, path) for path in paths] == [401, 401, 401]
        for path in paths:
            s.until(lambda path=path: status(s, path, Authorization=alice) == 200, path)  # type: ignore[misc]


def test_a_flood_for_profiles_delays_no_look_and_no_scrape(binary: Path) -> None:
    over, bodies, codes = threading.Event(), Counter[bytes](), Counter[int]()

    def ask(host: str, path: str) -> None:
        connection = http.client.HTTPConnection(host, timeout=30)
        while not over.is_set():
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            codes[answer.status] += 1
            if answer.status == 200:
                bodies[body] += 1
        connection.close()

    with profiled(binary) as process, serving("--pid", process.pid, *OPTIONS) as served:
        served.until(lambda: served.followed(process.pid), "the process being followed")
        host = served.url.removeprefix("http://")
        paths = [f"/targets/{process.pid}/debug/pprof/{kind}" for kind in ("heap", "allocs")] * 8
        threads = [threading.Thread(target=ask, args=(host, path)) for path in paths]
        try:
            for thread in threads:
                thread.start()
            looks = served.value("gomem_looks_total") or 0
            served.until(lambda: (served.value("gomem_looks_total") or 0) >= looks + 5, "looks", 100)
            assert served.value("gomem_tracer_round_interval_seconds") == 0.5
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert codes.keys() <= {200, 503}
        assert codes[200] > len(bodies) > 0  # each profile is the answer to many
