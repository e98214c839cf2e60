"""What a test needs from the machine: its absence is a skip for a person, a failure in CI (GOMEM_CI=1)."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


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
