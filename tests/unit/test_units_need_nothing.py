"""What tests are given: units nothing that has to be downloaded or built first, all their helpers from one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.cache import cache_dir
from tests.support.debian import prometheus
from tests.support.toolchains import PYPI, goroot


def test_the_cache_is_not_for_unit_tests() -> None:
    for reach in (cache_dir, prometheus, lambda: goroot(PYPI[0]), lambda: build("parked", PYPI[0])):
        with pytest.raises(AssertionError, match="test_the_cache_is_not_for_unit_tests needs"):
            reach()


def test_helpers_are_in_support() -> None:
    tests = Path(__file__).parents[1]
    modules = [path for kind in ("unit", "live", "e2e") for path in (tests / kind).rglob("*.py")]
    assert len(modules) > 100
    helpers = [path for path in modules if not path.name.startswith("test_") and path.name != "conftest.py"]
    assert helpers == []
