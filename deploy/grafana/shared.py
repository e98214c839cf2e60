"""Panels that several dashboards have, and how they ask for the worst and the largest."""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries

from deploy.grafana.choice import BELONGS, CGROUP, PROCESS, Chosen, by
from deploy.grafana.leading import ROW_TO_PAGE, ROW_TO_PROCESS, ROW_TO_RUNBOOK, SERIES_TO_PROCESS, alerts, data_link
from deploy.grafana.panels import Panel, Query, lines, rows

KEPT = 'state="free", residency="resident"'
# What a series goes by on a dashboard that shows many: unknown parts are empty.
OF_PLACE = "{{namespace}} {{pod}} {{container}} {{process}} {{instance}}"
OF_CGROUP = "{{namespace}} {{pod}} {{container}} {{cgroup}} {{instance}}"


def top(query: str, legend: str = OF_PLACE) -> Query:
    """Return the ten largest series of a query."""
    return Query(f"topk(10, {query})", legend)


SEVERITIES = (("nothing", "green"), ("info", "blue"), ("warning", "orange"), ("critical", "red"))


def places(title: str, what: str, query: str, **more: object) -> timeseries.Panel:
    """Return a panel with the ten largest, each of which leads to its process."""
    panel = lines(title, what, [top(query)], **more)  # type: ignore[arg-type]
    return panel.data_links([data_link(SERIES_TO_PROCESS)])


def worst(chosen: Chosen, labels: str) -> str:
    """Return how bad the worst finding is, by its place in SEVERITIES."""
    found = {name: chosen.series("gomem_finding_active", f'severity="{name}"') for name, _ in SEVERITIES[1:]}
    weighted = [f"{weight} * max by ({labels}) ({series})" for weight, series in enumerate(found.values(), 1)]
    weights = " or ".join(reversed(weighted))
    return f"{weights} or 0 * max by ({labels}) ({chosen.series('gomem_process_state')})"


def finding_rows(chosen: Chosen) -> Panel:
    """Return the table of the findings that hold now; each leads to the page that explains it."""
    return rows(
        "Findings that hold", "Each by its id and severity; the page in gomem has the words, the figures, and what to "
        "do. `gomem explain ID` says what one means.",
        [Query(by(f"{PROCESS}, id, severity, {BELONGS}", chosen.series("gomem_finding_active")))],
        renamed={"id": "finding"}, units={}, hidden=("__name__", "Value", "Value #A"), unseen=("job",),
        links={"finding": [ROW_TO_PAGE.built()], "process": [ROW_TO_PROCESS.built()], "pid": [ROW_TO_PAGE.built()]},
        width=12,
    )  # fmt: skip


def alert_rows() -> Panel:
    """Return the table of alerts; each leads to its runbook."""
    return rows(
        "Alerts", "Those of the mixin that are pending or fire. Each leads to its runbook.",
        [Query(f"max by (alertname, alertstate, severity, instance, namespace, pod, container, process, pid) "
               f"({alerts()})")],
        renamed={"alertstate": "state"}, units={}, hidden=("__name__", "Value", "Value #A"),
        links={"alertname": [ROW_TO_RUNBOOK.built()], "pid": [ROW_TO_PAGE.built()]}, width=12,
    )  # fmt: skip


def share(chosen: Chosen) -> str:
    """Return what of the limit of each container or cgroup the kernel cannot take back."""
    used, limit = (chosen.cgroup(f"gomem_cgroup_memory_{name}_bytes") for name in ("unreclaimable", "max"))
    return f"max by ({CGROUP}) ({used}) / max by ({CGROUP}) ({limit})"
