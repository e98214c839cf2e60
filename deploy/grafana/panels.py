"""The pieces that the dashboards are made of: panels with one or more queries, all with the same look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphGradientMode,
    GraphTresholdsStyleMode,
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
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
TAGS = ["gomem", "go", "memory"]
HEIGHT = 8  # grid rows of a panel
_GRID = 24  # columns

Panel = timeseries.Panel | stat.Panel | table.Panel | statetimeline.Panel
# What a value is called from when on: its colour from each value on, the first from the lowest.
Levels = Sequence[tuple[float | None, str]]
NONE_IS_WELL: Levels = ((None, "green"), (1, "orange"))
NONE_IS_MUST: Levels = ((None, "green"), (1, "red"))
NEAR_A_LIMIT: Levels = ((None, "green"), (0.8, "orange"), (0.95, "red"))

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
    title: str,
    what: str,
    queries: Sequence[Query],
    *,
    unit: str = "bytes",
    stacked: bool = False,
    width: int = 12,
    levels: Levels = (),
) -> timeseries.Panel:
    """Return a panel of series over time; `what` teaches what to see in it. `levels` are drawn as dashed lines."""
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
    if levels:
        panel.thresholds(_thresholds(levels)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
        )
    for query in queries:
        panel.with_target(_target(query))
        if query.legend in COLOURS:
            panel.override_by_name(query.legend, [DynamicConfigValue("color", _fixed(COLOURS[query.legend]))])
    return panel


def number(
    title: str, what: str, query: str, *, unit: str = "short", width: int = 4, levels: Levels = ()
) -> stat.Panel:
    """Return a panel with one number and its recent course; its colour is that of the level that it has reached."""
    panel = (
        stat.Panel().title(title).description(what).datasource(SOURCE).unit(unit).height(4).span(width)
        .color_mode(BigValueColorMode.NONE).graph_mode(BigValueGraphMode.AREA).orientation(VizOrientation.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(Query(query)))
    )  # fmt: skip
    if levels:
        panel.color_mode(BigValueColorMode.VALUE).thresholds(_thresholds(levels))
    return panel


def states(
    title: str, what: str, query: Query, names: Sequence[tuple[str, str]], *, width: int = 24, height: int = HEIGHT
) -> statetimeline.Panel:
    """Return a panel with a bar over time for each series, whose values 0, 1, ... have `names` and colours."""
    mapped = {
        str(value): ValueMappingResult(text=name, color=colour, index=value)
        for value, (name, colour) in enumerate(names)
    }
    return (
        statetimeline.Panel().title(title).description(what).datasource(SOURCE).height(height).span(width)
        .merge_values(True).row_height(0.8).fill_opacity(70).mappings([ValueMap(mapped)])
        .thresholds(_thresholds([(value or None, colour) for value, (_, colour) in enumerate(names)]))
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
                .show_legend(True))
        .with_target(_target(query))
    )  # fmt: skip


def rows(title: str, what: str, queries: Sequence[Query], *, renamed: dict[str, str], units: dict[str, str],
         hidden: Sequence[str] = (), unseen: Sequence[str] = (), width: int = 24, height: int = HEIGHT,
         links: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
         levels: Mapping[str, Levels] | None = None) -> table.Panel:  # fmt: skip
    """Return a table of the newest values, a row for each set of labels and a column for each query.

    `renamed` gives columns their titles, `units` by title their units; `hidden` columns are left out, `unseen` ones are
    there for the `links` of others, which are given by column, as are the `levels` that colour their text.
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
    for column in unseen:
        panel.override_by_name(column, [DynamicConfigValue("custom.hidden", True)])
    for column, leading in (links or {}).items():
        panel.override_by_name(column, [DynamicConfigValue("links", list(leading))])
    for column, some in (levels or {}).items():
        panel.override_by_name(column, [
            DynamicConfigValue("thresholds", _thresholds(some).build()),
            DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ])  # fmt: skip
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


def arrange(
    made: dashboard.Dashboard, panels: Sequence[Panel], annotations: Sequence[dashboard.AnnotationQuery] = ()
) -> dashboard.Dashboard:
    """Put panels on a dashboard, from left to right and from top to bottom, and what marks them; return it."""
    for annotation in annotations:
        made.annotation(annotation)
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


def _thresholds(levels: Levels) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value, colour) for value, colour in levels]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _fixed(colour: str) -> dict[str, str]:
    return {"mode": FieldColorModeId.FIXED.value, "fixedColor": colour}


def _transformation(kind: str, options: dict[str, object]) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=kind, options=options)
