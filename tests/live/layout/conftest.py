"""One program for each toolchain, built once for all tests of the layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.toolchains import ALL_RELEASES, toolchain
from tracer.layout.generate import build_probe


@pytest.fixture(scope="session", params=ALL_RELEASES)
def any_release(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="session")
def program(any_release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unstripped Go program of the release."""
    return build_probe(toolchain(any_release), "amd64", tmp_path_factory.mktemp("layout"))
