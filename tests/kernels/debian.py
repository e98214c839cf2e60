"""The kernels of Debian's suites, out of their packages, unpacked into the cache: nothing is installed.

Each suite has lists of apt's own beside the machine's, from the mirror that the machine uses. Run as a script, it
fetches some ahead of the tests: `python -m tests.kernels.debian 6.1`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import cache_dir, made_once

_WAITS = (5, 30)  # seconds before it is tried again
_META = "linux-image-amd64"  # depends on the suite's newest kernel
# Since 6.18 the image is in one package, and the modules in another.
_PARTS = re.compile(r"^[ |]*Depends: (linux-(?:image|binary|modules)-[\w.+-]+)$", re.MULTILINE)
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCES = ("/etc/apt/sources.list.d", "/etc/apt")
_URI = re.compile(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", re.MULTILINE)


class KernelMissing(Exception):
    """A kernel cannot be had."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel by its short name, and Debian's suite that has it."""

    name: str
    suite: str


KERNELS = (Kernel("5.10", "bullseye"), Kernel("6.1", "bookworm"), Kernel("6.12", "trixie"), Kernel("7.2", "sid"))


@dataclass(frozen=True, slots=True)
class Files:
    """Where a kernel is, and the directory of its modules, named by its release."""

    image: Path
    modules: Path


def fetched(kernel: Kernel) -> Files:
    """Return a kernel's files, downloaded if they are not in the cache. Raises KernelMissing."""
    root = made_once(cache_dir() / "kernels" / kernel.name, lambda empty: _fetch(kernel, empty))
    modules = next(root.glob("**/lib/modules/*"))
    image = next(iter([*root.glob("boot/vmlinuz-*"), *root.glob(f"**/lib/modules/{modules.name}/vmlinuz")]))
    return Files(image, modules)


def _fetch(kernel: Kernel, into: Path) -> None:
    """Fill a directory with the kernel; a mirror that fails is asked again after a while."""
    for wait in _WAITS:
        try:
            return _downloaded(kernel, into)
        except KernelMissing as error:
            print(f"Linux {kernel.name}: {error}; once more in {wait} s", file=sys.stderr)
            time.sleep(wait)
    _downloaded(kernel, into)


def _downloaded(kernel: Kernel, into: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        work = Path(directory)
        work.chmod(0o777)  # apt's own user must be able to write there, or it warns
        apt = _options(work, kernel.suite)
        _run(work, "apt-get", *apt, "update", "-q")
        names, seen = [_META], set()
        while names:
            name = names.pop()
            seen.add(name)
            names += set(_PARTS.findall(_run(work, "apt-cache", *apt, "depends", name))) - seen
        _run(work, "apt-get", *apt, "download", "-q", *sorted(seen - {_META}))
        for archive in work.glob("*.deb"):
            _run(work, "dpkg-deb", "-x", str(archive), str(into))
    if not any(into.glob(f"**/lib/modules/{kernel.name}*")):
        raise KernelMissing(f"{kernel.suite} has another kernel than {kernel.name}: {sorted(seen)}")


def _options(work: Path, suite: str) -> list[str]:
    (work / "lists/partial").mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    sources = work / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n")
    where = {
        "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null", "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache", "Acquire::Retries": 3,
    }  # fmt: skip
    return [word for name, value in where.items() for word in ("-o", f"{name}={value}")]


def _mirror() -> str:
    """Return where the machine's own packages come from."""
    for directory in _SOURCES:
        for path in sorted([*Path(directory).glob("*.sources"), *Path(directory).glob("*.list")]):
            found = _URI.search(path.read_text())
            if found:
                return found[1]
    raise KernelMissing("no mirror of Debian is configured in /etc/apt")


def _run(work: Path, *command: str) -> str:
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    except OSError as error:
        raise KernelMissing(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise KernelMissing(f"{' '.join(command[:1] + command[-2:])}: {done.stderr.strip()[-300:]}")
    return done.stdout


def main(names: list[str]) -> int:
    """Make sure that kernels are there; return an exit status."""
    try:
        for kernel in KERNELS:
            if kernel.name in names:
                print(fetched(kernel).image)
    except KernelMissing as missing:
        print(f"Linux {kernel.name} cannot be had, which tests need: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
