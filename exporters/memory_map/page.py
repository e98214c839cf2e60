"""The page: what the report says as words and tables, and the map as data that scripts of the page draw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Template
from markupsafe import Markup
from msgspec.structs import astuple

from gomem.exporters.flamegraph.page import flame_data, flame_scripts
from gomem.exporters.json.report import plain_json, report_object
from gomem.exporters.memory_map.encoding import Encoded, encode_map
from gomem.exporters.memory_map.figures import class_rows, course_rows, facts, figure, page_rows, tiles
from gomem.exporters.printing import printing
from gomem.exporters.self_contained import data_element, policy, served_policy, shared, vendored
from gomem.exporters.units import clean
from gomem.exporters.verdict import verdict
from gomem.tracer.report import KINDS, GrownCreator, JsonObject, Report
from gomem.tracer.report.goroutines import GoroutineReport
from gomem.tracer.report.heap import LargeObject
from gomem.tracer.report.memory_map import HeldBytes, Picture
from gomem.tracer.report.profile import Profile

_SHARED = ("units.js", "chart.js")
_SCRIPTS = (
    "data.js", "colours.js", "model.js", "layouts.js", "drawing.js", "map.js", "treemap.js",
    "timeline.js", "moments.js", "page.js",
)  # fmt: skip
_MOST_GROUPS = 100
_LEAST_PART = 4000  # of RSS: what is smaller cannot be seen
_LONGEST_NAME = 200
_MOST_FRAMES = 10_000
_SEVERITY = {"info": "soft", "warning": "warn", "critical": "bad"}


def map_page(report: Report, picture: Picture) -> str:
    """Return the page of a report and of the maps of what was looked at; without a map it has the report alone."""
    maps = [encode_map(moment.map) for moment in picture.moments]
    body = report_object(report)
    name = clean(os.path.basename(report.process.exe) or "?", 80)
    return _template().render(
        name=name,
        report=report,
        figure=lambda path: figure(body, path),
        class_rows=class_rows(report),
        verdict=verdict(report),
        facts=facts(report),
        tiles=tiles(report),
        page_rows=page_rows(report),
        severity=_SEVERITY,
        largest=_largest_objects(report),
        goroutines=picture.goroutines,
        groups=_groups(picture.goroutines),
        grown=_grown(report),
        flame=_flame(picture.profile) if picture.profile is not None and maps else None,
        gaps=[limit for limit in report.limits if limit.kind == "gap"],
        notes=[limit for limit in report.limits if limit.kind != "gap"],
        has_map=bool(maps),
        course=course_rows(picture),
        watched=bool(len(picture.course) > 1 or report.gc_cycles),
        moments=len(maps),
        maps=[Markup(one.text) for one in maps],  # base64
        data=data_element(plain_json(_content(picture, maps))),
        report_json=data_element(plain_json(body)),
    )


def _content(picture: Picture, maps: Sequence[Encoded]) -> JsonObject:
    return {
        "kinds": list(KINDS),
        "holders": [
            [[clean(name, _LONGEST_NAME) for name in held.path], held.resident, held.estimated]
            for held in _largest(picture.holders)
        ],
        "course": [[round(seconds, 3), *astuple(point)] for seconds, point in picture.course],
        "maps": [
            {
                "columns": encoded.columns,
                "seconds": moment.seconds,
                "rss": int(moment.map.areas.resident.sum()) + int(moment.map.arenas.resident.sum()),
                "taken_at": moment.map.taken_at,
                "page_residency": moment.map.page_residency,
                "pages_left_out": moment.map.pages_left_out,
                "spans_outside": moment.map.spans_outside,
                "names": [clean(name, _LONGEST_NAME) for name in moment.map.areas.names],
                "types": [clean(name, _LONGEST_NAME) for name in moment.map.spans.types],
            }
            for moment, encoded in zip(picture.moments, maps, strict=True)
        ],
    }  # fmt: skip


def _largest(holders: Sequence[HeldBytes]) -> list[HeldBytes]:
    """Return the holders that can be seen, and as one what is smaller in the same place; the sum stays."""
    least = sum(held.resident for held in holders) // _LEAST_PART
    smaller: dict[tuple[str, ...], tuple[int, int, bool]] = {}
    found = []
    for held in holders:
        if held.resident >= least or len(held.path) == 1:
            found.append(held)
        else:
            place = held.path[:-1]
            count, resident, estimated = smaller.get(place, (0, 0, False))
            smaller[place] = count + 1, resident + held.resident, estimated or held.estimated
    for place, (count, resident, estimated) in smaller.items():
        found.append(HeldBytes((*place, f"{count:,} smaller"), resident, estimated))
    return found


def _largest_objects(report: Report) -> Sequence[LargeObject]:
    found = report.heap.large_objects if report.heap is not None else None
    return found.largest if found is not None else ()


def _flame(profile: Profile) -> Markup:
    """Return the heap profile as what a flame graph is drawn of, first what is in use."""
    types = [each.type for each in profile.sample_types]
    index = types.index("inuse_space") if "inuse_space" in types else 0
    return flame_data(profile, index, most=_MOST_FRAMES)


def _groups(goroutines: GoroutineReport | None) -> list[tuple[str, str, int]]:
    """Return of each group of goroutines who created it, what it does, and its number in the report."""
    rows = []
    for at, group in enumerate(goroutines.groups[:_MOST_GROUPS] if goroutines is not None else ()):
        place = group.creator
        name = f"{place.function}" if place is not None else "the program's start"
        rows.append((name, ", ".join(f"{count:,} {reason}" for reason, count in list(group.reasons.items())[:3]), at))
    return rows


def _grown(report: Report) -> list[tuple[str, GrownCreator]]:
    """Return who has created more goroutines than there were at first, with how many."""
    found = report.goroutine_growth
    rows = found.creators if found is not None else ()
    return [(row.function or "the program's start", row) for row in rows if row.sums.grown > 0]


def map_policy() -> str:
    """Return the Content-Security-Policy for the header of a page that a server sends."""
    scripts, style = _parts()
    flame, flame_style = flame_scripts()
    return served_policy([*scripts, *flame], [style, flame_style], asks=False)


@cache
def _parts() -> tuple[list[str], str]:
    """Return the scripts of all pages, and their style."""
    place = files(__package__)
    own = [place.joinpath(name).read_text() for name in _SCRIPTS]
    scripts = [vendored("d3.min.js"), "\n".join([*map(shared, _SHARED), *own])]
    return scripts, shared("palette.css") + place.joinpath("memory_map.css").read_text()


@cache
def _template() -> Template:
    """Return the template, with everything in it that is the same for all pages."""
    scripts, style = _parts()
    flame, flame_style = flame_scripts()
    made = printing(__package__)
    made.filters["address"] = hex
    made.globals = {
        "policy": Markup(policy([*scripts, *flame], [style, flame_style])),  # whole, however long
        "style": Markup(style),
        "scripts": [Markup(script) for script in scripts],
        "flame_scripts": [Markup(script) for script in flame],
    }
    return made.get_template("memory_map.html.j2")
