"""Programs out of Debian packages, unpacked into the cache: no service is installed, enabled or started."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.cache import cache_dir, made_once
from tests.support.requirements import absent

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCES = ("/etc/apt/sources.list.d", "/etc/apt")
_URI = re.compile(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", re.MULTILINE)


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


class Suite:
    """A suite of Debian, with lists of apt's own beside the machine's, from the mirror that the machine uses.

    Every method raises PackageMissing.
    """

    def __init__(self, name: str, work: Path) -> None:
        """`work`: an empty directory that lives as long."""
        self._work = work
        work.chmod(0o777)  # apt's own user must be able to write there, or it warns
        (work / "lists/partial").mkdir(parents=True)
        (work / "cache/archives/partial").mkdir(parents=True)
        sources = work / "sources.list"
        sources.write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {name} main\n")
        # Without the machine's status, or what is installed would be asked for in the version that it has.
        where = {
            "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null", "Dir::State::lists": work / "lists",
            "Dir::Cache": work / "cache", "Dir::State::status": "/dev/null", "Acquire::Retries": 3,
        }  # fmt: skip
        self._apt = [word for key, value in where.items() for word in ("-o", f"{key}={value}")]
        self._run("apt-get", *self._apt, "update", "-q")

    def apt_cache(self, *words: str) -> str:
        """Return what apt-cache says."""
        return self._run("apt-cache", *self._apt, *words)

    def unpack(self, packages: list[str], into: Path) -> list[str]:
        """Put the files of `packages` into a directory; return the names of their archives."""
        self._run("apt-get", *self._apt, "download", "-q", *packages)
        archives = sorted(self._work.glob("*.deb"))
        for archive in archives:
            self._run("dpkg-deb", "-x", str(archive), str(into))
        return [archive.name for archive in archives]

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(command, cwd=self._work, capture_output=True, text=True, check=False)
        except OSError as error:
            raise PackageMissing(f"{command[0]}: {error.strerror}") from error
        if done.returncode != 0:
            raise PackageMissing(f"{' '.join(command[:1] + command[-2:])}: {done.stderr.strip()[-300:]}")
        return done.stdout


def _mirror() -> str:
    """Return where the machine's own packages come from."""
    for directory in _SOURCES:
        for path in sorted([*Path(directory).glob("*.sources"), *Path(directory).glob("*.list")]):
            found = _URI.search(path.read_text())
            if found:
                return found[1]
    raise PackageMissing("no mirror of Debian is configured in /etc/apt")


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
