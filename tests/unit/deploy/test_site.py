"""The links of pages, as the repository has them and as the site has them."""

from __future__ import annotations

import pytest

site = pytest.importorskip("deploy.site", reason="mkdocs is not installed (make venv)", exc_type=ImportError)


@pytest.mark.parametrize(
    ("path", "text", "there"),
    [
        ("README.md", "[m](docs/metrics.md)", "[m](metrics.md)"),
        ("README.md", "[m](docs/metrics.md#labels), [s](SECURITY.md)", "[m](metrics.md#labels), [s](reporting.md)"),
        ("docs/security.md", "[r](../SECURITY.md)", "[r](reporting.md)"),
        ("docs/fleets.md", "[rules](../deploy/mixin/rules.yaml)", "[rules](files/deploy/mixin/rules.yaml)"),
        ("docs/fleets.md", "[series](metrics.md#how-many-series)", "[series](metrics.md#how-many-series)"),
        ("exporters/runbooks/GomemDrift.md", "[m](../../docs/metrics.md)", "[m](../metrics.md)"),
        # What is no file of the repository stays for mkdocs to complain of.
        ("docs/fleets.md", "[gone](../deploy/gone.yaml)", "[gone](../deploy/gone.yaml)"),
        ("docs/fleets.md", "[web](https://example.org/docs/metrics.md)", "[web](https://example.org/docs/metrics.md)"),
        ("README.md", "`[m](docs/metrics.md)`", "`[m](docs/metrics.md)`"),
        ("README.md", "```\n[m](docs/metrics.md)\n```", "```\n[m](docs/metrics.md)\n```"),
    ],
)
def test_a_link_leads_to_the_same_page_in_the_site(path: str, text: str, there: str) -> None:
    assert site.moved(text, path) == there


def test_only_linked_files_that_are_no_pages_are_taken_along() -> None:
    text = "[a](../deploy/mixin/rules.yaml) [b](metrics.md) [c](../deploy/gone.yaml) `[d](../Makefile)`"
    assert site.linked_files(text, "docs/fleets.md") == {"deploy/mixin/rules.yaml"}
