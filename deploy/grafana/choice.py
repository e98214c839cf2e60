"""Which processes and containers a dashboard shows: its variables, and what they make of a query.

A process is known by job, instance, pid and process. What it belongs to (namespace, workload, pod, container) is on
gomem_process_info, so that every query of a process is joined with it. A start of the same container anew changes the
pid alone: what is to go on over it is summed by PLACE.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import choice

PROCESS = "job, instance, pid, process"
BELONGS = "namespace, workload, pod, container"
PLACE = f"job, instance, {BELONGS}, process"
CGROUP = f"job, instance, cgroup, {BELONGS}"

TRACERS = '{job=~"$job", instance=~"$instance"}'
_OWN = 'job=~"$job", instance=~"$instance", process=~"$process"'
_BELONGING = 'namespace=~"$namespace", workload=~"$workload", pod=~"$pod", container=~"$container"'
_OF_CGROUP = f'{{job=~"$job", instance=~"$instance", {_BELONGING}}}'
INFO = f"gomem_process_info{{{_OWN}, {_BELONGING}}}"


class Chosen:
    """Queries of the series of the processes that a dashboard's variables choose."""

    def __init__(self, more: str = "") -> None:
        """`more` chooses further among them, by labels that their series have."""
        self._own = f"{_OWN}, {more}" if more else _OWN
        self.info = f"gomem_process_info{{{self._own}, {_BELONGING}}}"  # of these processes

    def series(self, metric: str, more: str = "", labels: str = BELONGS) -> str:
        """Return the series of a metric, with the `labels` of gomem_process_info beside their own."""
        return self._joined(f"{metric}{self._selector(more)}", labels)

    def rate(self, metric: str, more: str = "") -> str:
        """Return how much a counter rises a second."""
        return self._joined(f"rate({metric}{self._selector(more)}[$__rate_interval])")

    def _selector(self, more: str) -> str:
        return f"{{{self._own}, {more}}}" if more else f"{{{self._own}}}"

    def _joined(self, series: str, labels: str = BELONGS) -> str:
        return f"{series} * on ({PROCESS}) group_left ({labels}) {self.info}"

    def cgroup(self, metric: str) -> str:
        """Return the series of the cgroups that the processes are in, each once."""
        return f"{metric}{_OF_CGROUP} and on ({CGROUP}) {self.info}"


def kills() -> str:
    """Return how often the kernel killed in the chosen containers and pods, in the time that is shown."""
    return f"increase(gomem_cgroup_oom_kills_total{_OF_CGROUP}[$__range])"


def kills_lately() -> str:
    """Return the chosen containers and pods in which the kernel has killed in the last two minutes."""
    return f"increase(gomem_cgroup_oom_kills_total{_OF_CGROUP}[2m]) > 0"


def tracers(*, one: bool = False) -> list[dashboard.QueryVariable]:
    """Return the variables that choose tracers, `one` or several."""
    return [
        choice("job", "Job", "label_values(gomem_build_info, job)", several=True),
        choice("instance", "Tracer", 'label_values(gomem_build_info{job=~"$job"}, instance)', several=not one),
    ]


def workload() -> list[dashboard.QueryVariable]:
    """Return the variables that choose what processes belong to; All takes also what belongs to none."""
    found, chosen = [], 'job=~"$job", instance=~"$instance"'
    for name in BELONGS.split(", "):
        query = f"label_values(gomem_process_info{{{chosen}}}, {name})"
        found.append(choice(name, name.capitalize(), query, several=True))
        chosen += f', {name}=~"${name}"'
    return found


def process(*, one: bool = False) -> dashboard.QueryVariable:
    """Return the variable that chooses processes by name, `one` or several."""
    info = f'gomem_process_info{{job=~"$job", instance=~"$instance", {_BELONGING}}}'
    return choice("process", "Process", f"label_values({info}, process)", several=not one)


def pid() -> dashboard.QueryVariable:
    """Return the variable that chooses among processes of one name; with All, those of before a restart count too."""
    return choice("pid", "Pid", f"label_values({INFO}, pid)", several=True)


def total(query: str) -> str:
    """Return the sum over all that are chosen."""
    return f"sum({query})"


def by(labels: str, query: str) -> str:
    """Return the sum over all else but these labels."""
    return f"sum by ({labels}) ({query})"
