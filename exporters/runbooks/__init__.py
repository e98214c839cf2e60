"""The pages that alerts lead to: what each means, and what to do. They are here so that each has an address."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def runbooks() -> dict[str, bytes]:
    """Return the pages, in Markdown, by the name of the alert."""
    pages = [file for file in files(__name__).iterdir() if file.name.endswith(".md")]
    return {page.name.removesuffix(".md"): page.read_bytes() for page in pages}
