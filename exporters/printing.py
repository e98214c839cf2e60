"""Templates that print what cannot be trusted: it is made printable, cut and escaped without their author's doing.

Jinja2 escapes (autoescape), and a name that is not there is an error and no blank (StrictUndefined).
"""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gomem.exporters.units import UNKNOWN, clean, number, percent, plural, seconds, size

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


def printing(package: str) -> Environment:
    """Return what reads and compiles the templates of a package."""
    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finished,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # None of Jinja2's own, of which some let text through unescaped.
    made.filters = {
        "number": number,
        "percent": percent,
        "plural": plural,
        "seconds": seconds,
        "size": size,
        "up_to": up_to,
    }
    return made
