"""The tables of docs/metrics.md, made from the code: `python -m gomem.exporters.reference` writes them anew."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric as ClientMetric
from prometheus_client.registry import Collector

from gomem.exporters.black_box.keeper import BoxCollector, BoxCounts
from gomem.exporters.http.statistics import WebCollector, WebStatistics
from gomem.exporters.otlp.push import PushCollector, PushCounts
from gomem.exporters.prometheus import cgroups, compat, spans, tracer_health
from gomem.exporters.prometheus.catalog import PROCESS_GROUPS
from gomem.exporters.prometheus.identity import LABELS
from gomem.exporters.prometheus.metric import Metric

# One of everything, so that each metric of the server has its labels.
_SERVED = WebStatistics({("", 0): 0}, {"": 0.0}, {"": 0}, 0, 0, 0, 0)
_HEAD = "| name | type | unit | labels | what it is |\n| --- | --- | --- | --- | --- |\n"


def _table(title: str, metrics: Iterable[Metric[Any]], common: str) -> str:
    rows = [
        f"| `{metric.name}` | {metric.type} | {metric.unit or '-'} | {_labels(metric)} | {metric.help} |\n"
        for metric in metrics
    ]
    return f"### {title}\n\n{common}{_HEAD}{''.join(rows)}"


def _labels(metric: Metric[Any]) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels) or "-"


def _table_of(title: str, collectors: Iterable[Collector]) -> str:
    """Return the metrics of prometheus_client's kind in Markdown."""
    rows = [
        f"| `{metric.name}{'_total' if metric.type == 'counter' else ''}` | {metric.type} | "
        f"{'seconds' if metric.name.endswith('_seconds') else '-'} | {_labels_of(metric)} | {metric.documentation} |\n"
        for collector in collectors
        for metric in collector.collect()
    ]
    return f"### {title}\n\n{_HEAD}{''.join(rows)}"


def _labels_of(metric: ClientMetric) -> str:
    names = dict.fromkeys(name for sample in metric.samples for name in sample.labels)
    return ", ".join(f"`{name}`" for name in names) or "-"


def _beside(labels: Sequence[str]) -> str:
    quoted = [f"`{label}`" for label in labels]
    return f"Beside {', '.join(quoted[:-1])} and {quoted[-1]}:\n\n"


def tables() -> str:
    """Return every metric in Markdown, by group."""
    beside = _beside(LABELS)
    parts = [_table(title, group, beside) for title, group in PROCESS_GROUPS.items()]
    parts.append(_table("By size class (`--size-classes`)", spans.SIZE_CLASS_METRICS, beside))
    parts.append(_table("Containers and cgroups", cgroups.METRICS, _beside(cgroups.LABELS)))
    own: tuple[Metric[Any], ...] = (tracer_health.BUILD, *tracer_health.METRICS, tracer_health.ERRORS)
    parts.append(_table("gomem itself", own, ""))
    parts.append(_table_of("gomem's HTTP server", [WebCollector(lambda: _SERVED)]))
    parts.append(_table_of("gomem's OTLP push (`--otlp`)", [PushCollector(lambda: PushCounts(0, 0, ""))]))
    parts.append(_table_of("Black boxes (`--black-box`)", [BoxCollector(lambda: BoxCounts(0, 0))]))
    parts.append(_table("client_golang's names (`--compat go-collector`)", compat.METRICS, beside))
    return "\n".join(parts)


def otlp_table() -> str:
    """Return the metrics that OTLP has under the semantic conventions' names, in Markdown."""
    from gomem.exporters.otlp.metrics_data import INSTRUMENTS  # needs the extra `otlp`, which only developers must have

    rows = [f"| `{one.name}` | {one.kind.value} | {one.unit} | {one.description} |\n" for one in INSTRUMENTS]
    return "| name | instrument | unit | what it is |\n| --- | --- | --- | --- |\n" + "".join(rows)


def with_tables(page: str) -> str:
    """Return the page with the tables between their marks replaced by the code's."""
    for mark, table in (("otlp", otlp_table()), ("tables", tables())):
        begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
        between = f"{begin}\n\n{table}\n{end}"
        page = re.sub(f"{begin}.*{end}", between.replace("\\", r"\\"), page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/metrics.md")
    path.write_text(with_tables(path.read_text()))
