"""What `gomem snapshot` imports: a person waits for every module of it, and for every dataclass that it makes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.builds import built
from tests.support.command import LIMIT, executable
from tests.support.parked import Parked, parked

# What only other commands need, or other libraries' parts that NumPy and we load when they are asked for.
NOT_NEEDED = (
    "gomem.bpf", "gomem.tracer.events.strace", "gomem.tracer.watch.backend", "gomem.tracer.watch.live",
    "gomem.tracer.watch.album", "gomem.tracer.profile", "gomem.tracer.recording.frames", "gomem.tracer.discovery",
    "gomem.tracer.fleet", "gomem.exporters.html", "gomem.exporters.memory_map", "gomem.exporters.prometheus",
    "bcc", "jinja2", "aiohttp", "yaml", "zstandard", "pyroute2", "google", "elftools", "pdb", "numpy.ma",
    "numpy.random",
)  # fmt: skip
_IMPORTED = re.compile(r"import time: +\d+ \| +\d+ \| +([\w.]+)")


@pytest.fixture(scope="module")
def target() -> Iterator[Parked]:
    with parked(built("parked", "1.25.5", stripped=True), live=64) as running:
        yield running


def imported(*words: object) -> set[str]:
    """Return the names of all modules that a run of gomem imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", executable(), *map(str, words)], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    return set(_IMPORTED.findall(done.stderr))


def unneeded(modules: set[str]) -> set[str]:
    """Return which of the modules NOT_NEEDED has, or a package of."""
    return {name for name in modules if any(name == one or name.startswith(f"{one}.") for one in NOT_NEEDED)}


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_snapshot_imports_nothing_that_only_others_need(target: Parked, form: str) -> None:
    modules = imported("snapshot", "--pid", target.pid, "--format", form)
    assert {"numpy._core.multiarray", "gomem.tracer.runtime.snapshot"} <= modules
    assert unneeded(modules) == set()


def test_other_commands_do_import_that(target: Parked) -> None:
    watching = imported("trace", "--duration", 0, "--backend", "procfs", "--pid", target.pid)
    drawing = imported("snapshot", "--pid", target.pid, "--format", "html", "-o", "/dev/null")
    assert {"gomem.bpf", "gomem.tracer.watch.backend"} <= unneeded(watching)
    assert {"jinja2", "gomem.exporters.memory_map", "gomem.tracer.watch.album"} <= unneeded(drawing)
