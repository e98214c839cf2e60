"""The kernels of Debian's suites, out of their packages, unpacked into the cache: nothing is installed.

Run as a script, it fetches some ahead of the tests: `python -m tests.kernels.debian 6.1`.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import cache_dir, made_once
from tests.support.debian import PackageMissing, Suite

_WAITS = (5, 30)  # seconds before it is tried again
_META = "linux-image-amd64"  # depends on the suite's newest kernel
# Since 6.18 the image is in one package, and the modules in another.
_PARTS = re.compile(r"^[ |]*Depends: (linux-(?:image|binary|modules)-[\w.+-]+)$", re.MULTILINE)


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
        try:
            suite = Suite(kernel.suite, Path(directory))
            names, seen = [_META], set()
            while names:
                name = names.pop()
                seen.add(name)
                names += set(_PARTS.findall(suite.apt_cache("depends", name))) - seen
            suite.unpack(sorted(seen - {_META}), into)
        except PackageMissing as missing:
            raise KernelMissing(str(missing)) from missing
    if not any(into.glob(f"**/lib/modules/{kernel.name}*")):
        raise KernelMissing(f"{kernel.suite} has another kernel than {kernel.name}: {sorted(seen)}")


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
