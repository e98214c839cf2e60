"""glibc of other suites of Debian than the machine's, and C programs that are linked with it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from tests.support.c_programs import compiled
from tests.support.cache import cache_dir, made_once
from tests.support.debian import PackageMissing, Suite

# What of the test's own libraries a release still had apart from libc.so.6.
_ONCE_APART = ("libpthread.so.0", "libdl.so.2")
SUITES = {"2.31": "bullseye", "2.41": "trixie", "2.43": "sid"}


def linked_with_glibc(release: str, source: str) -> Path:
    """Return the program of tests/targets/`source` that runs with that release of glibc; skip the test without it."""
    suite = SUITES[release]
    try:
        root = made_once(cache_dir() / "glibc" / f"{suite}-{release}", lambda empty: _unpack(suite, release, empty))
    except PackageMissing as missing:  # also in CI: a suite moves on, and a mirror need not have them all
        pytest.skip(str(missing))
    libraries = next(root.glob("**/x86_64-linux-gnu/libc.so.6")).parent
    loader = libraries / "ld-linux-x86-64.so.2"
    shared = [libraries / name for name in ("libc.so.6", *_ONCE_APART) if (libraries / name).exists()]
    return compiled(
        source, "-nodefaultlibs", *map(str, shared), "-lgcc", "-Wl,--allow-shlib-undefined",
        f"-Wl,--dynamic-linker={loader}", f"-Wl,-rpath={libraries}",
    )  # fmt: skip


def _unpack(suite: str, release: str, into: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        archive = Suite(suite, Path(directory)).unpack(["libc6"], into)[0]
    if not re.match(rf"libc6_{re.escape(release)}\b", archive):
        raise PackageMissing(f"{suite} has another glibc than {release} now: {archive}")
