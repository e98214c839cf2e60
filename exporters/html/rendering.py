"""Templates into pages; the style is the only text that is not escaped (see exporters/printing.py).

The templates are compiled when this module is imported, which only a server does.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment
from markupsafe import Markup

from gomem.exporters.printing import printing

# No request to anywhere, no script: the style is in each page, and the policy names it by its hash.
STYLE = files(__package__).joinpath("style.css").read_text()
POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def environment() -> Environment:
    """Return what reads and compiles this package's templates."""
    made = printing(__package__)
    made.globals = {"style": Markup(STYLE)}
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
