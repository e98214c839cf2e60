"""What a test needs from the machine: its absence is a skip for a person, a failure in CI (GOMEM_CI=1)."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

CAP_SYS_ADMIN = 21
CAP_BPF = 39


def in_ci() -> bool:
    """Return whether everything that tests need must be here."""
    return os.environ.get("GOMEM_CI", "") not in ("", "0")


def absent(what: str) -> NoReturn:
    """End the running test because `what` is missing."""
    if in_ci():
        pytest.fail(f"GOMEM_CI is set, but {what}", pytrace=False)
    pytest.skip(what)


def program(name: str, package: str) -> str:
    """Return the path of an installed program; `package` is the Debian package that has it."""
    path = shutil.which(name)
    if path is None:
        absent(f"{name} is not installed (apt-get install {package})")
    return path


def no_bpf() -> str | None:
    """Return why BPF programs cannot be loaded here, or None where they can."""
    if importlib.util.find_spec("bcc") is None:
        return "the Python module bcc is not installed (apt-get install python3-bpfcc)"
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if not effective & (1 << CAP_SYS_ADMIN | 1 << CAP_BPF):
        return "this process has neither CAP_BPF nor CAP_SYS_ADMIN"
    return None
