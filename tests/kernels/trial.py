"""A kernel's machine: it is booted, the tests of chosen features run in it, and what came of them is read."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.kernels import results as outcomes
from tests.kernels.debian import Kernel, fetched
from tests.kernels.features import DOCTOR, Feature
from tests.kernels.guest import COMPILED, RELEASE, TESTS, entered
from tests.kernels.machine import MachineFailed, boot
from tests.kernels.recorder import FILE, now

ROOT = Path(__file__).parents[2]
_SCRIPT = "{entered}\n{python} -m tests.kernels.guest /run/results {tests} >/run/results/guest.log 2>&1\n"


def tried(kernel: Kernel, features: Sequence[Feature], seconds: float) -> outcomes.Results:
    """Return what came of it; what the machine had not come to after so many seconds is missing.

    Its logs are in build/kernels/KERNEL. Raises KernelMissing, and MachineFailed if it did not come to anything.
    """
    directory = ROOT / "build" / "kernels" / kernel.name
    shutil.rmtree(directory, ignore_errors=True)
    compiled = directory.parent / "compiled" / kernel.name
    compiled.mkdir(parents=True, exist_ok=True)
    shutil.copytree(compiled, directory / COMPILED)
    tests = dict.fromkeys(test for feature in features for test in feature.tests if test != DOCTOR)
    script = _SCRIPT.format(entered=entered(ROOT), python=shlex.quote(sys.executable), tests=shlex.join(tests))
    files = fetched(kernel)
    began, day, ended = time.monotonic(), now(), outcomes.ENDED
    try:
        boot(files, script, directory, seconds)
    except MachineFailed as error:
        if not (directory / RELEASE).exists():
            raise
        ended = f"Cut short: {_in_short(str(error))}"  # what it has written is what there is
    shutil.rmtree(compiled)
    shutil.move(directory / COMPILED, compiled)
    run = outcomes.run_of(directory, day, time.monotonic() - began, ended)
    print(f"{kernel.name}: {run.seconds:.0f} s; {ended} Logs in {directory}", file=sys.stderr)
    return outcomes.read(kernel.name, directory, run)


def _in_short(said: str) -> str:
    """Return what was said on one line, without qemu's warnings if there is more, and without our directory."""
    lines = said.splitlines()
    worth = [line for line in lines if "warning:" not in line] or lines
    return " ".join(worth).replace(str(ROOT), ".")


def rights_here() -> outcomes.Results:
    """Return with which rights gomem does what on this machine's own kernel. Raises CalledProcessError."""
    directory = ROOT / "build" / "kernels" / "here"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    kernel = os.uname()
    (directory / RELEASE).write_text(f"{kernel.release} {kernel.version}\n")
    # With tracefs mounted, as on most machines.
    mounted = 'mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"'
    command = [
        "unshare", "--mount", "--propagation=private", "--", "sh", "-c", mounted, "sh",
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.kernels.recorder",
        "tests/kernels/inside/rights.py",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env={**os.environ, FILE: str(directory / TESTS)}, check=True)
    return outcomes.read(".".join(kernel.release.split(".")[:2]), directory)
