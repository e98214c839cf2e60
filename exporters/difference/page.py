"""The difference of two reports as one HTML file that needs nothing else: no script, and no request to anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Template
from markupsafe import Markup

from gomem.exporters.difference.words import (
    causes,
    count_of,
    later,
    more_rows,
    not_compared,
    shown_parts,
    shown_tables,
    side,
    signed,
    told,
    without_difference,
)
from gomem.exporters.printing import printing
from gomem.exporters.self_contained import policy
from gomem.tracer.report.difference.contract import Difference

_WIDTH = 1000  # of the picture, in units of its own
_MOST_ROWS = 40


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of the growth in the picture: where it begins and how long it is, and whether it is more or less."""

    what: str
    said: str
    x: str
    width: str
    colour: str


def difference_page(found: Difference) -> str:
    """Return the page."""
    return _template().render(
        found=found,
        bars=bars(found),
        before=side(found.before),
        after=side(found.after),
        later=later(found),
        parts=shown_parts(found),
        tables=shown_tables(found),
        most=_MOST_ROWS,
        same=without_difference(found),
        not_compared=not_compared(found),
    )


def bars(found: Difference) -> list[Bar]:
    """Return the steps that lead from the RSS of the one to that of the other; each begins where the last one ends."""
    steps = [part for part in shown_parts(found) if part.grown]
    at, edges = 0, [0]
    for part in steps:
        at += part.grown
        edges.append(at)
    low, whole = min(edges), max(max(edges) - min(edges), 1)
    drawn = []
    for part, start, end in zip(steps, edges, edges[1:], strict=False):
        x, width = _WIDTH * (min(start, end) - low) / whole, _WIDTH * abs(part.grown) / whole
        colour = "unexplained" if part.id == "unexplained" else "more" if part.grown > 0 else "less"
        drawn.append(Bar(part.what, signed(part.grown, "bytes"), f"{x:.1f}", f"{max(width, 1):.1f}", colour))
    return drawn


@cache
def _template() -> Template:
    style = files(__package__).joinpath("difference.css").read_text()
    made = printing(__package__)
    made.filters |= {"signed": signed, "told": told, "causes": causes, "more_rows": more_rows, "count_of": count_of}
    made.globals = {"policy": policy([], [style]), "style": Markup(style)}
    return made.get_template("difference.html.j2")
