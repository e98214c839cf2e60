"""The page: its parts put together, under a policy that lets it ask nobody for anything."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from gomem.exporters.flamegraph.tree import MOST, FlameTree, flame_tree
from gomem.exporters.profile.sample_type import is_difference
from gomem.exporters.self_contained import data_element, policy, vendored
from gomem.exporters.units import clean
from gomem.tracer.report.profile import Profile

_MOST_REMARKS = 12
# The library puts this style into the page by itself.
_LIBRARY_STYLE = re.compile(r"textContent=`([^`]*)`")


def flame_graph(profile: Profile, index: int) -> str:
    """Return the page, which shows one of the profile's values first; the others, and both of a difference, too."""
    difference = is_difference(profile)
    return _template().render(
        title=_title(profile, difference=difference),
        remarks=_remarks(profile),
        profile=flame_data(profile, index, difference=difference),
    )


def flame_data(profile: Profile, index: int, *, difference: bool = False, most: int = MOST) -> Markup:
    """Return what the script draws, for a script element of type application/json; `most` frames."""
    content = json.dumps(_content(profile, index, difference=difference, most=most), separators=(",", ":"))
    return data_element(content)


def _content(profile: Profile, index: int, *, difference: bool, most: int) -> dict[str, object]:
    tree = flame_tree(profile, difference=difference, most=most)
    return {
        "types": [[clean(each.type, 80), clean(each.unit, 80)] for each in profile.sample_types],
        "first": index,
        "difference": difference,
        "cut": tree.cut,
        **_frames(tree),
    }


def _frames(tree: FlameTree) -> dict[str, object]:
    return {
        "names": tree.names,
        "name": tree.name,
        "caller": tree.caller,
        "inlined": tree.inlined,
        "own": [[frame, *values] for frame, values in tree.own.items()],
    }


def _title(profile: Profile, *, difference: bool) -> str:
    program = os.path.basename(profile.mappings[0].path) if profile.mappings else ""
    said = "What grew" if difference else "Flame graph"
    return f"{said}: {clean(program, 80)}" if program else said


def _remarks(profile: Profile) -> list[str]:
    limits = (f"{limit.what}: {limit.why}" + (f" ({limit.fix})" if limit.fix else "") for limit in profile.limits)
    return [clean(said, 400) for said in (*profile.comments, *limits)][:_MOST_REMARKS]


def flame_scripts() -> tuple[list[str], str]:
    """Return the scripts that draw a flame graph, behind d3, and the style that the library puts into the page."""
    library = vendored("d3-flamegraph.umd.min.js")
    library_style = _LIBRARY_STYLE.search(library)
    assert library_style is not None
    return [library, files(__package__).joinpath("flamegraph.js").read_text()], library_style[1]


@cache
def _template() -> Template:
    """Return the template, with everything in it that is the same for all profiles."""
    own, library_style = flame_scripts()
    scripts = [vendored("d3.min.js"), *own]
    style = files(__package__).joinpath("flamegraph.css").read_text()
    made = Environment(loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined)
    made.globals = {
        "policy": policy(scripts, [style, library_style]),
        "style": Markup(style),
        "scripts": [Markup(script) for script in scripts],
    }
    return made.get_template("flamegraph.html.j2")
