"""What pages that are one file have in common: a policy that lets them ask nobody for anything, and libraries."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Return the Content-Security-Policy that allows these scripts and styles by their hashes, and nothing else."""
    return f"{_allowed(scripts, styles)}; base-uri 'none'; form-action 'none'"


def served_policy(scripts: Sequence[str], styles: Sequence[str], *, asks: bool = True) -> str:
    """Return that of a page which a server sends; with `asks` it may ask that server, and nobody else, for more."""
    more = "connect-src 'self'; form-action 'self'" if asks else "form-action 'none'"
    return f"{_allowed(scripts, styles)}; {more}; base-uri 'none'; frame-ancestors 'none'"


def _allowed(scripts: Sequence[str], styles: Sequence[str]) -> str:
    return f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {' '.join(map(_hash, styles))}"


def data_element(json_text: str) -> Markup:
    """Return JSON as the content of a script element of type application/json.

    That is data: the browser does not run it, and nothing in it ends the element.
    """
    return Markup(json_text.replace("<", "\\u003c"))


def vendored(name: str) -> str:
    """Return a library of others as its registry has it; see exporters/vendor."""
    return files("gomem.exporters").joinpath("vendor", name).read_text()


def shared(name: str) -> str:
    """Return a script or a style that several pages have; see exporters/scripts."""
    return files("gomem.exporters").joinpath("scripts", name).read_text()


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
