"""Templates into pages. What a template prints is made printable, cut and escaped without its author's doing.

Jinja2 escapes (autoescape), and a name that is not there is an error and no blank (StrictUndefined). The style is the
only text that is not escaped. The templates are compiled when this module is imported, which only a server does.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gomem.exporters.units import UNKNOWN, clean, number, percent, plural, size

# No request to anywhere, no script: the style is in each page, and the policy names it by its hash.
STYLE = files(__package__).joinpath("style.css").read_text()
POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LONGEST_WORD = 400  # characters


class Printable(str):
    """Text that is printable and cut to its length. It is still escaped when it is printed."""

    __slots__ = ()


def up_to(words: object, limit: int) -> Printable:
    """Return any words in at most `limit` characters, with the unprintable ones written out."""
    return Printable(clean(str(words), limit))


def _finished(value: object) -> object:
    """Return what Jinja2 escapes in the place of an expression's value. Markup is a macro's or a block's output."""
    if isinstance(value, Markup | Printable):
        return value
    return UNKNOWN if value is None else up_to(value, _LONGEST_WORD)


def environment() -> Environment:
    """Return what reads and compiles this package's templates."""
    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finished,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # None of Jinja2's own, of which some let text through unescaped.
    made.filters = {"number": number, "percent": percent, "plural": plural, "size": size, "up_to": up_to}
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
