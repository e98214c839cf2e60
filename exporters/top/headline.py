"""The lines above the table: how many processes there are, what they have in RAM, and what gomem takes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from gomem.exporters.top.rows import Row
from gomem.exporters.units import plural, seconds, short_size
from gomem.tracer.fleet.view import FleetView


def headline(
    view: FleetView, before: FleetView | None, rows: Sequence[Row], width: int, *, frozen: bool, news: str
) -> Text:
    """Return them. `before`: the view that was shown last; `rows` are those in sight; `news`: what cannot be seen."""
    total = sum(row.rss or 0 for row in rows)
    told = [
        "gomem top",
        plural(len(rows), "Go process", "Go processes"),
        f"RSS {short_size(total)}",
        f"looks every {seconds(view.health.interval_seconds)}",
        f"events: {view.health.backend}",
        _own(view, before),
    ]
    if view.health.lost_events:
        told.insert(3, f"{view.health.lost_events:,} events lost")
    line = Text("  ".join(part for part in told if part), style="bold", no_wrap=True)
    if frozen:
        line = Text("FROZEN ", style="bold reverse") + line
    line.truncate(max(width, 1), overflow="ellipsis")
    if news:
        said = Text(news, style="yellow", no_wrap=True)
        said.truncate(max(width, 1), overflow="ellipsis")
        line = Text("\n").join([line, said])
    return line


def _own(view: FleetView, before: FleetView | None) -> str:
    own = f"own {short_size(view.health.resident_bytes)}"
    if before is None or view.published <= before.published:
        return own
    share = (view.health.cpu_seconds - before.health.cpu_seconds) / (view.published - before.published)
    return f"{own}, {max(share, 0.0):.1%} CPU"
