"""What pages that are one file have in common: a policy that lets them ask nobody for anything, and libraries."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Return the Content-Security-Policy that allows these scripts and styles by their hashes, and nothing else."""
    return (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {' '.join(map(_hash, styles))}; "
        "base-uri 'none'; form-action 'none'"
    )


def data_element(json_text: str) -> Markup:
    """Return JSON as the content of a script element of type application/json.

    That is data: the browser does not run it, and nothing in it ends the element.
    """
    return Markup(json_text.replace("<", "\\u003c"))


def vendored(name: str) -> str:
    """Return a library of others as its registry has it; see exporters/vendor."""
    return files("gomem.exporters").joinpath("vendor", name).read_text()


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
