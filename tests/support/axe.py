"""What axe-core says of a page: whom it keeps out."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.support.browser import Browser
from tests.support.cache import cache_dir, made_once
from tests.support.npm import packed_file

_AXE = "4.14.1"


def keeps_out(window: Browser) -> list[tuple[str, list[str]]]:
    """Return the serious violations of the page that is open: the rule, and some of the elements."""
    window.run(_axe())
    found = window.run_async("axe.run(document).then((r) => done(r.violations))")
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    return [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in serious]


@cache
def _axe() -> str:
    """Return axe-core, kept in the cache: it is a tool of the tests alone."""

    def fetch(directory: Path) -> None:
        (directory / "axe.min.js").write_bytes(packed_file(f"axe-core@{_AXE}", "package/axe.min.js"))

    return (made_once(cache_dir() / "npm" / f"axe-core-{_AXE}", fetch) / "axe.min.js").read_text()
