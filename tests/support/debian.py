"""Programs out of Debian packages, unpacked into the cache: no service is installed, enabled or started."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.cache import cache_dir, made_once
from tests.support.requirements import absent


class PackageMissing(Exception):
    """A Debian package cannot be had."""


def prometheus() -> Path:
    """Return Debian's own prometheus, a stripped Go program that nobody changed; skip the test without it."""
    return program_of("prometheus", "usr/bin/prometheus")


def program_of(package: str, path: str) -> Path:
    """Return a program of a Debian package; skip the test without it."""
    try:
        return unpacked(package) / path
    except PackageMissing as missing:
        absent(str(missing))


def unpacked(package: str) -> Path:
    """Return the directory with the files of Debian's `package`. Raises PackageMissing."""
    return made_once(cache_dir() / "debian" / package, lambda empty: _unpack(package, empty))


def _unpack(package: str, into: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PackageMissing(f"{package} cannot be downloaded: this is not Debian (no apt-get)")
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        # apt's own user must be able to write there, or it warns.
        Path(directory).chmod(0o777)
        download = ["apt-get", "download", "-q", package]
        done = subprocess.run(download, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
            done = subprocess.run(download, cwd=directory, capture_output=True, text=True, check=False)
        archives = list(Path(directory).glob("*.deb"))
        if done.returncode != 0 or not archives:
            raise PackageMissing(f"apt-get download {package}: {done.stderr.strip()[-300:]}")
        subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(into)], check=True)


def main(packages: list[str]) -> int:
    """Make sure that the files of `packages` are there; return an exit status."""
    try:
        for package in packages:
            print(unpacked(package))
    except PackageMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
