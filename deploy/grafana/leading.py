"""Where one gets to from a dashboard, and what its graphs are marked with: data links and annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

from deploy.grafana.choice import TRACERS, Chosen, kills_lately
from deploy.grafana.panels import SOURCE

_CHOOSES = ("job", "instance", "process")


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a value: what it is called, and where it leads."""

    title: str
    url: str

    def built(self) -> dict[str, object]:
        """Return it as the value of a field's property."""
        return {"title": self.title, "url": self.url, "targetBlank": self.url.startswith("http")}


def _process(of: str, *names: str) -> str:
    """Return the address of a process's dashboard; `of`: how Grafana gets the value of a label, with its name as {}."""
    chosen = "&".join(f"var-{name}=${{{of.format(name)}}}" for name in names)
    return f"/d/gomem-process?var-datasource=${{datasource}}&{chosen}&${{__url_time_range}}"


# Of a row of a table, and of a series of a graph. A series over restarts has no pid.
ROW_TO_PROCESS = Link("The process in depth", _process("__data.fields.{}", *_CHOOSES, "pid"))
SERIES_TO_PROCESS = Link("The process in depth", _process("__field.labels.{}", *_CHOOSES))
ROW_TO_PAGE = Link(
    "Its page in gomem: findings in words", "http://${__data.fields.instance}/targets/${__data.fields.pid}"
)
ROW_TO_RUNBOOK = Link(
    "Its runbook: what it means, what to do",
    "http://${__data.fields.instance}/runbooks/${__data.fields.alertname}.md",
)
ROW_TO_WORKLOAD = Link(
    "Its workload, over restarts",
    "/d/gomem-workload?var-datasource=${datasource}&var-process=${__data.fields.process}&${__url_time_range}",
)


def data_link(link: Link) -> dashboard.DashboardLink:
    """Return a link of all values of a panel."""
    return dashboard.DashboardLink(link.title).type(DashboardLinkType.LINK).url(link.url)


class _Marked(models.AnnotationQuery):
    """An annotation of Prometheus's data source, whose own fields the SDK does not know.

    Source: PrometheusAnnotationSupport in Grafana's packages/grafana-prometheus/src/annotations.ts.
    """

    title_format: str = ""
    text_format: str = ""
    at_value: bool = False  # the value is the moment, ms since 1970

    def to_json(self) -> dict[str, object]:
        """Return it with these fields."""
        return {
            **super().to_json(),
            "titleFormat": self.title_format,
            "textFormat": self.text_format,
            "useValueForTime": "on" if self.at_value else "",
        }


class _Annotation(dashboard.AnnotationQuery):
    def __init__(self, name: str, expr: str, colour: str, text: str, *, at_value: bool) -> None:
        self._internal = _Marked(name=name, datasource=SOURCE, enable=True, icon_color=colour, expr=expr)
        self._internal.title_format, self._internal.text_format = name, text
        self._internal.at_value = at_value


def marks(chosen: Chosen) -> Sequence[dashboard.AnnotationQuery]:
    """Return what the graphs of some processes are marked with."""
    place = "{{namespace}} {{pod}} {{container}}"
    who, where = f"{place} {{{{process}}}} {{{{pid}}}}", f"{place} {{{{cgroup}}}}"
    return [
        _Annotation("OOM kill", kills_lately(), "red", where, at_value=False),
        _Annotation("Start of a process", f"1000 * ({chosen.series('gomem_process_start_time_seconds')})", "blue", who,
                    at_value=True),
        _Annotation("At GOMEMLIMIT", chosen.series("gomem_finding_active", 'id="near-gomemlimit"'), "orange", who,
                    at_value=False),
        _Annotation("Start of gomem", f"1000 * gomem_tracer_start_time_seconds{TRACERS}", "purple", "{{instance}}",
                    at_value=True),
    ]  # fmt: skip


def alerts(process: str = "$process") -> str:
    """Return the alerts of the mixin that are pending or fire, for the chosen processes, containers and tracers."""
    of = ", ".join(f'{name}=~"${name}|"' for name in ("namespace", "workload", "pod", "container"))
    return f'ALERTS{{alertname=~"Gomem.+", instance=~"$instance|", process=~"{process}|", {of}}}'
