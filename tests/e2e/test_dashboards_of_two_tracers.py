"""Every query of every dashboard, where two tracers follow processes of the same pid and name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import executable
from tests.support.dashboards import BOARDS, queries, variable_queries
from tests.support.ports import free_port
from tests.support.processes import running, wait_until
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.serving import Serving

PID = 2  # of the first program in a PID namespace whose init does nothing else
Result = dict[tuple[tuple[str, str], ...], str]


@dataclass(frozen=True)
class Machine:
    """A PID namespace with a Go program in it, and a tracer."""

    enter: list[str]
    served: Serving
    program: int  # its pid out here

    @property
    def instance(self) -> str:
        """As Prometheus names it."""
        return self.served.url.removeprefix("http://")


@contextmanager
def holding(enter: list[str]) -> Iterator[int]:
    """Run a Go program that stands still, as the child of what enters the namespace for it; gives its pid out here."""
    command = [*enter, str(build("tiny", "1.25.5")), "-hold", "10m"]
    entered = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        children = Path(f"/proc/{entered.pid}/task/{entered.pid}/children")
        wait_until(lambda: children.read_text().strip() != "", "the program")
        yield int(children.read_text())
    finally:
        entered.kill()
        entered.wait()


@contextmanager
def machine(directory: Path, name: str) -> Iterator[Machine]:
    url = f"127.0.0.1:{free_port()}"
    holder = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "1000")
    with running(*holder) as outside, ExitStack() as stack:
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        wait_until(lambda: children.read_text().strip() != "", "the namespace")
        init = children.read_text().strip()
        wait_until(lambda: Path(f"/proc/{init}/comm").read_text().strip() == "sleep", "its init")
        enter = ["nsenter", f"--target={init}", "--pid", "--mount", "--"]
        program = stack.enter_context(holding(enter))
        log = directory / f"{name}.log"
        command = (*enter, executable(), "serve", "--listen", url, "--interval", "0.5", "--cpu-budget", "1")
        with log.open("wb") as file:
            process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        served = Serving(process, f"http://{url}", log)
        try:
            served.until(lambda: listens(served) and served.followed(PID), "it is followed")
            yield Machine(enter, served, program)
        finally:
            outside.kill()  # and everybody in the namespace with it
            process.wait(60)
        assert "Traceback" not in log.read_text(), log.read_text()


def listens(served: Serving) -> bool:
    try:
        return bool(served.get("/metrics"))
    except urllib.error.URLError:
        return False


@pytest.mark.bpf
def test_no_query_adds_two_processes_of_the_same_pid_or_breaks_off_at_a_restart(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(machine(tmp_path, name)) for name in ("one", "other"))
        both_of_them = {"job_name": "gomem", "static_configs": [{"targets": [one.instance, other.instance]}]}
        prometheus = stack.enter_context(running_prometheus(tmp_path, "1s", scrape_configs=[both_of_them]))
        wait_until(lambda: len(prometheus.query(f'gomem_looks_total{{pid="{PID}"}} > 2')) == 2, "scrapes of both")
        time.sleep(2)  # rates need two scrapes
        now = time.time()

        def results(board: str, **variables: str) -> dict[tuple[str, str], Result]:
            return {key: answer(prometheus, query, now) for key, query in queries(board, **variables).items()}

        for board in BOARDS:
            whole, first, second = (
                results(board, process="tiny", instance=which) for which in (".*", one.instance, other.instance)
            )
            assert len(whole) > 15
            assert all(prometheus.query(query) for query in variable_queries(board).values())
            for key, found in whole.items():
                # A figure of two processes is the sum of theirs, each counted once, or two figures.
                if board == "process":
                    assert found == first[key] | second[key], key
                    assert not first[key].keys() & second[key].keys() or not found, key
        both, *apart = (
            sum_of(results("overview", process="tiny", instance=which)["In RAM", ""])
            for which in (".*", one.instance, other.instance)
        )
        assert both == sum(apart) > 0
        # What the kernel says of the one process is what its dashboard says, not that of the two.
        (rss,) = results("process", process="tiny", instance=one.instance)["RSS", ""].values()
        assert float(rss) == one.served.value("gomem_process_resident_bytes", pid=str(PID))

        os.kill(one.program, signal.SIGKILL)
        stack.enter_context(holding(one.enter))
        fresh = 'gomem_process_state{process="tiny", pid!="2", state="followed"}'
        wait_until(lambda: bool(prometheus.query(fresh)), "the new process")
        wait_until(lambda: len(prometheus.query('gomem_process_info{process="tiny"}')) == 2, "the old one is gone")
        own = queries("process", process="tiny", instance=one.instance)["RSS", ""]
        assert len(prometheus.course(own, 30)) == 1
        lines = queries("overview", process="tiny")
        (largest,) = [query for (title, _), query in lines.items() if title == "RSS, the ten largest"]
        assert len(prometheus.course(largest, 30)) == 2
        of_workload = queries("workload", process="tiny", instance=one.instance)
        wait_until(lambda: sum_of(answer(prometheus, of_workload["Starts", ""], time.time())) == 1, "one start anew")
        (age,) = [query for (title, legend), query in of_workload.items() if title == "Age" and legend]
        assert len(prometheus.course(age, 30)) == 1
        assert len(prometheus.course('gomem_process_resident_bytes{process="tiny"}', 30)) == 3


def answer(prometheus: Prometheus, query: str, at: float) -> Result:
    """Return the values of an instant query by their labels; Prometheus refuses a join that is ambiguous."""
    return {tuple(sorted(one["metric"].items())): one["value"][1] for one in prometheus.query(query, at)}


def sum_of(result: Result) -> float:
    return sum(map(float, result.values()))
