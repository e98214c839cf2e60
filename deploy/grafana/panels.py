"""The pieces that the dashboards are made of: panels with one or more queries, all with the same look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphGradientMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
TAGS = ["gomem", "go", "memory"]
HEIGHT = 8  # grid rows of a panel
_GRID = 24  # columns

Panel = timeseries.Panel | stat.Panel | table.Panel

# One colour for each thing, on all dashboards: what is certain to be in RAM is dark, what costs nothing is pale.
COLOURS = {
    "Ready": "dark-blue",
    "Prepared": "semi-dark-blue",
    "Reserved": "super-light-blue",
    "not the runtime's": "light-purple",
    "in use": "dark-green",
    "goroutine stacks": "semi-dark-green",
    "work buffers": "light-green",
    "free, kept": "orange",
    "scavenged, still resident": "dark-red",
    "resident": "dark-blue",
    "address space": "super-light-blue",
    "limit": "red",
}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expr: str
    legend: str = ""


def lines(
    title: str, what: str, queries: Sequence[Query], *, unit: str = "bytes", stacked: bool = False, width: int = 12
) -> timeseries.Panel:
    """Return a panel of series over time; `what` teaches what to see in it."""
    panel = (
        timeseries.Panel().title(title).description(what).datasource(SOURCE).unit(unit).min(0)
        .height(HEIGHT).span(width).line_width(1).fill_opacity(30 if stacked else 8)
        .gradient_mode(GraphGradientMode.NONE)
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
                .show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )  # fmt: skip
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for query in queries:
        panel.with_target(_target(query))
        if query.legend in COLOURS:
            panel.override_by_name(query.legend, [DynamicConfigValue("color", _fixed(COLOURS[query.legend]))])
    return panel


def number(title: str, what: str, query: str, *, unit: str = "short", width: int = 4) -> stat.Panel:
    """Return a panel with one number and its recent course."""
    return (
        stat.Panel().title(title).description(what).datasource(SOURCE).unit(unit).height(4).span(width)
        .color_mode(BigValueColorMode.NONE).graph_mode(BigValueGraphMode.AREA).orientation(VizOrientation.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(Query(query)))
    )  # fmt: skip


def rows(title: str, what: str, queries: Sequence[Query], *, renamed: dict[str, str], units: dict[str, str],
         hidden: Sequence[str] = (), width: int = 24, height: int = HEIGHT) -> table.Panel:  # fmt: skip
    """Return a table of the newest values, a row for each set of labels and a column for each query.

    `renamed` gives columns their titles, `units` by title their units; `hidden` columns are left out.
    """
    panel = table.Panel().title(title).description(what).datasource(SOURCE).height(height).span(width)
    for position, query in enumerate(queries):
        panel.with_target(_target(query, instant=True).ref_id(chr(ord("A") + position)))
    panel.with_transformation(_transformation("merge", {}))
    panel.with_transformation(
        _transformation("organize", {"excludeByName": dict.fromkeys(("Time", *hidden), True), "renameByName": renamed})
    )
    for column, unit in units.items():
        panel.override_by_name(column, [DynamicConfigValue("unit", unit)])
    return panel


def board(uid: str, title: str, what: str, variables: Sequence[dashboard.QueryVariable]) -> dashboard.Dashboard:
    """Return an empty dashboard with the variables that all have, and those of its own."""
    made = (
        dashboard.Dashboard(title).uid(uid).description(what).tags(TAGS).refresh("30s").time("now-1h", "now")
        .timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(dashboard.DashboardLink("gomem").type(DashboardLinkType.DASHBOARDS).tags(["gomem"]).keep_time(True)
              .include_vars(True).as_dropdown(False))
    )  # fmt: skip
    for variable in variables:
        made.with_variable(variable)
    return made


def arrange(made: dashboard.Dashboard, panels: Sequence[Panel]) -> dashboard.Dashboard:
    """Put panels on a dashboard, from left to right and from top to bottom; return it."""
    left = top = bottom = 0
    for panel in panels:
        size = panel.build().grid_pos
        assert size is not None
        if left + size.w > _GRID:
            left, top = 0, bottom
        panel.grid_pos(GridPos(size.h, size.w, left, top))
        left, bottom = left + size.w, max(bottom, top + size.h)
        made.with_panel(panel)
    return made


def choice(name: str, label: str, query: str, *, several: bool) -> dashboard.QueryVariable:
    """Return a variable whose values come from Prometheus; `several` allows more than one, and all."""
    made = (
        dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    )  # fmt: skip
    return made.multi(True).include_all(True).all_value(".*") if several else made


def _target(query: Query, *, instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).datasource(SOURCE)
    return target.instant().format(PromQueryFormat.TABLE) if instant else target.range()


def _fixed(colour: str) -> dict[str, str]:
    return {"mode": FieldColorModeId.FIXED.value, "fixedColor": colour}


def _transformation(kind: str, options: dict[str, object]) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=kind, options=options)
