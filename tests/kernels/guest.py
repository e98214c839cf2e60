"""What runs in the virtual machine: `gomem doctor`, and the tests that were chosen.

python -m tests.kernels.guest RESULTS TEST...
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gomem.tracer.machine.entry_cache import cache_directory
from tests.kernels.features import DOCTOR
from tests.kernels.local_builds import copied
from tests.kernels.recorder import FILE, Tried, note

_CGROUPS = Path("/sys/fs/cgroup")
_COLLAPSING = Path("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs")
_MOUNTED = {"tracefs": "/sys/kernel/tracing", "securityfs": "/sys/kernel/security"}  # as systemd does
DISK = Path("/dev/vda")  # for swap
IN_MACHINE = "GOMEM_IN_MACHINE"  # in the environment of what runs in one
COMPILED = "bpf"  # in the results: BPF programs as gomem's cache has them, which take a minute here
ANSWERS, TESTS, RELEASE = "doctor.json", "tests.jsonl", "release"  # what is written into the results


def entered(directory: Path) -> str:
    """Return the words of a shell that make a machine's environment ours, in this directory."""
    names = ("PATH", "HOME", "XDG_CACHE_HOME")
    ours = [f"{name}={shlex.quote(os.environ[name])}" for name in names if name in os.environ]
    fixed = ("LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", "GOMEM_TEST_PATIENCE=5", f"{IN_MACHINE}=1")
    return f"cd {shlex.quote(str(directory))}\nexport {' '.join([*ours, *fixed])}"


def main(results: Path, tests: Sequence[str]) -> int:
    """Do all of it; return the status of pytest."""
    (results / RELEASE).write_text(f"{os.uname().release} {os.uname().version}\n")
    (_CGROUPS / "cgroup.subtree_control").write_text("+memory +pids")
    # Debian has huge pages everywhere, and one that is made while a process stands still changes its RSS.
    _COLLAPSING.write_text("4000000000")
    for kind, at in _MOUNTED.items():
        subprocess.run(["mount", "-t", kind, kind, at], check=False)
    _keep_compiled(results / COMPILED)
    cat = "/usr/bin/cat"  # upon which gomem doctor tries its probes
    subprocess.run(["mount", "--bind", copied(Path(cat)), cat], check=True)
    gomem = Path(sys.executable).parent / "gomem"
    began = time.monotonic()
    with (results / ANSWERS).open("wb") as file:
        status = subprocess.run([gomem, "doctor", "--format", "json"], stdout=file, check=False).returncode
    ended = Tried(DOCTOR, "failed" if status else "passed", f"exit code {status}", round(time.monotonic() - began, 1))
    note(results / TESTS, ended)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.kernels.recorder",
        "-p", "tests.kernels.local_builds",
        "--timeout", "1500", *tests,
    ]  # fmt: skip
    environment = {**os.environ, FILE: str(results / TESTS), "GOMEM_CI": "0"}
    with (results / "pytest.log").open("wb") as file:
        return subprocess.run(command, env=environment, stdout=file, stderr=file, check=False).returncode


def _keep_compiled(kept: Path) -> None:
    """Let gomem find what was compiled on this kernel before, and keep what is compiled now. doctor compiles anyway."""
    cache = cache_directory("bpf")
    if cache is None or not kept.is_dir():
        return
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", kept, cache], check=True)
    kept.chmod(0o700)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
