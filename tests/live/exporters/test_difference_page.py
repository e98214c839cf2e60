"""The page of `gomem diff` in Debian's chromium: nothing runs in it, nothing leaves it, and it fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gomem.exporters.difference.page import difference_page
from gomem.exporters.difference.words import shown_parts, signed
from gomem.tracer.report.difference.compare import difference
from tests.support.browser import browser
from tests.support.samples.reports import grown_and_scavenged, lazily_freed

pytestmark = pytest.mark.live


def test_the_page_shows_each_part_asks_for_nothing_and_fits_each_window(tmp_path: Path) -> None:
    found = difference(grown_and_scavenged(), lazily_freed(), ("a.json", "b.json"))
    page = tmp_path / "grown.html"
    page.write_text(difference_page(found))
    with browser() as window:
        for width, dark in ((1200, False), (1200, True), (390, False)):
            window.resize(width, 900)
            window.open(page, dark=dark)
            assert window.text("h1") == found.headline
            rows = window.text("#parts").splitlines()
            for part in shown_parts(found):
                assert any(row.startswith(signed(part.grown, "bytes")) and part.what in row for row in rows), part
            assert window.run("return document.documentElement.scrollWidth <= innerWidth")
            assert window.complaints() == []
            assert window.requests() == []
        # The longest bar is that of the largest part.
        assert window.run("return +document.querySelector('.step rect').getAttribute('width')") > 500
