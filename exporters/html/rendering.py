"""Templates into pages; style and scripts are the only text that is not escaped (see exporters/printing.py).

The templates are compiled when this module is imported, which only a server does.
"""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment
from markupsafe import Markup

from gomem.exporters.html.drawing import figure, placed, spark_path, told
from gomem.exporters.printing import printing
from gomem.exporters.self_contained import served_policy, shared, vendored

_PLACE = files(__package__)
STYLE = shared("palette.css") + _PLACE.joinpath("style.css").read_text()
_UNITS, _LIVE = shared("units.js"), _PLACE.joinpath("live.js").read_text()
# What the pages run, by the name that their templates have for it.
SCRIPTS = {
    "index": [_UNITS + _LIVE + _PLACE.joinpath("index.js").read_text()],
    "target": [vendored("d3.min.js"), _UNITS + shared("chart.js") + _LIVE + _PLACE.joinpath("target.js").read_text()],
}
# Scripts and style are in each page, and the policy names them by their hashes; nobody but this server is asked.
POLICY = served_policy([script for scripts in SCRIPTS.values() for script in scripts], [STYLE])


def environment() -> Environment:
    """Return what reads and compiles this package's templates."""
    made = printing(__package__)
    made.filters |= {"figure": figure, "placed": placed, "spark": spark_path, "told": told}
    made.globals = {
        "style": Markup(STYLE),
        "scripts": {name: list(map(Markup, each)) for name, each in SCRIPTS.items()},
    }
    return made


def _compiled() -> Environment:
    made = environment()
    for name in made.list_templates():
        made.get_template(name)
    return made


_TEMPLATES = _compiled()


def render(template: str, values: dict[str, object]) -> bytes:
    """Return the page that the template makes of `values`. Safe from many threads."""
    return _TEMPLATES.get_template(template).render(values).encode()
