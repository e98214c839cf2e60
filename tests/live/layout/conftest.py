"""One program for each toolchain and architecture, built once for all tests of the layouts and kept in the cache."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import pytest

from gomem.tracer.layout import generate
from tests.support.cache import cache_dir, made_once
from tests.support.toolchains import ALL_RELEASES, toolchain


@pytest.fixture(scope="session", params=ALL_RELEASES)
def any_release(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="session")
def program(any_release: str) -> Path:
    """An unstripped Go program of the release, for amd64."""
    return probe(any_release, "amd64")


def probe(release: str, goarch: str) -> Path:
    """Return the program whose DWARF the release's table is made from."""
    root = toolchain(release)
    seed = inspect.getsource(generate).encode() + (root / "VERSION").read_bytes()
    name = f"layoutprobe-{release}-{goarch}-{hashlib.sha256(seed).hexdigest()[:12]}"

    def make(directory: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GOCACHE", str(cache_dir() / "go-build"))
            generate.build_probe(root, goarch, directory)

    return made_once(cache_dir() / "builds" / name, make) / "layoutprobe"
