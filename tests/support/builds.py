"""Go programs of tests/targets, built with any of the toolchains and kept in the cache.

Run as a script, it builds what the live matrix needs: `python -m tests.support.builds`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tests.support.cache import cache_dir, made_once
from tests.support.toolchains import RELEASES, ToolchainMissing, goroot, toolchain

TARGETS = Path(__file__).resolve().parent.parent / "targets"

# exe: internally linked, no cgo; pie: the same, position independent; cgo: linked by gcc; cgo-pie: both.
Mode = Literal["exe", "pie", "cgo", "cgo-pie"]


class BuildFailed(Exception):
    """The Go compiler or linker refused a target; the message is theirs."""


def build(
    target: str,
    release: str,
    *,
    stripped: bool = False,
    mode: Mode = "exe",
    extra_ldflags: str = "",
    extra_flags: Sequence[str] = (),
    goarch: str = "amd64",
) -> Path:
    """Return the executable of tests/targets/`target` built with Go `release`; `extra_flags` are those of go build.

    The result is shared by all tests: copy it before changing it. A missing toolchain skips the test (in CI: fails it).
    """
    toolchain(release)
    return built(
        target, release, stripped=stripped, mode=mode, extra_ldflags=extra_ldflags, extra_flags=extra_flags,
        goarch=goarch,
    )  # fmt: skip


def built(
    target: str,
    release: str,
    *,
    stripped: bool = False,
    mode: Mode = "exe",
    extra_ldflags: str = "",
    extra_flags: Sequence[str] = (),
    goarch: str = "amd64",
) -> Path:
    """Like `build`, outside of a test: raises ToolchainMissing and BuildFailed."""
    root = goroot(release)
    sources = TARGETS / target
    ldflags = " ".join(filter(None, ["-s -w" if stripped else "", extra_ldflags]))
    flags = ["-buildvcs=false", "-trimpath", *extra_flags]
    if ldflags:
        flags.append(f"-ldflags={ldflags}")
    if mode.endswith("pie"):
        flags.append("-buildmode=pie")
    other = [goarch] if goarch != "amd64" else []
    shape = "-".join([target, release, mode, *(["stripped"] if stripped else []), *other])
    key = _key(sources, root, mode, flags + other)

    def make(directory: Path) -> None:
        command = [str(root / "bin/go"), "build", *flags, "-o", str(directory / target), "."]
        done = subprocess.run(
            command, cwd=sources, env=_environment(root, mode, goarch), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BuildFailed(f"{shape}: {done.stderr.strip()}")

    return made_once(cache_dir() / "builds" / f"{shape}-{key}", make) / target


def _key(sources: Path, root: Path, mode: Mode, flags: list[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(sources)}\0".encode() + path.read_bytes() + b"\0")
    digest.update((root / "VERSION").read_bytes())
    digest.update("\0".join([mode, *flags]).encode())
    return digest.hexdigest()[:12]


def _environment(root: Path, mode: Mode, goarch: str) -> dict[str, str]:
    cache = cache_dir()
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": os.environ.get("HOME", "/"),
        "GOROOT": str(root),
        "GOARCH": goarch,
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOENV": "off",
        "GOPATH": str(cache / "gopath"),
        "GOCACHE": str(cache / "go-build"),
        "CGO_ENABLED": "1" if mode.startswith("cgo") else "0",
    }


def main() -> int:
    """Build the live matrix ahead of the tests; return an exit status."""
    wanted = [("parked", release, stripped) for release in RELEASES for stripped in (False, True)]
    wanted += [(target, release, False) for target in ("tiny", "mappings", "churn") for release in RELEASES]
    wanted += [("census", release, stripped) for release in RELEASES for stripped in (False, True)]
    wanted += [("waits", "1.27.3", False), ("spans", "1.27.3", False)]

    def one(wish: tuple[str, str, bool]) -> str:
        target, release, stripped = wish
        return str(built(target, release, stripped=stripped))

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            built_now = list(pool.map(one, wanted))
        print(f"{len(built_now)} builds of tests/targets")
    except (ToolchainMissing, BuildFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
