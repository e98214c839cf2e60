"""What `go tool pprof` says of a file: the reader of profiles that we did not write."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.toolchains import toolchain

RELEASE = "1.23.9"  # the last of the live matrix whose pprof comes built
_ROW = re.compile(r" *(\S+) +([0-9.e+-]+)% +([0-9.e+-]+)% +(\S+) +([0-9.e+-]+)%  (.*)")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `-top -unit=...`, values as integers, shares as pprof writes them."""

    flat: int
    flat_share: str
    sum_share: str
    cumulative: int
    cumulative_share: str
    name: str


def pprof(*arguments: str, keeping: Path | str = os.devnull) -> str:
    """Return what `go tool pprof` prints, which must succeed.

    It writes nowhere but what it fetches (of http://...), into the directory `keeping`.
    """
    command = [str(toolchain(RELEASE) / "pkg/tool/linux_amd64/pprof"), "-symbolize=none", *arguments]
    home = {"HOME": os.devnull, "PATH": os.environ["PATH"], "TZ": "UTC", "PPROF_TMPDIR": str(keeping)}
    done = subprocess.run(command, capture_output=True, text=True, env=home, errors="surrogateescape", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def top(*arguments: str, sample_type: str = "", unit: str = "") -> list[Row]:
    """Return the rows of -top, with nothing dropped. `unit`: the smallest one of the type, so that values are whole."""
    given = ["-top", "-nodefraction=0", "-edgefraction=0", "-nodecount=1000000", *([f"-unit={unit}"] if unit else [])]
    printed = pprof(*given, *([f"-sample_index={sample_type}"] if sample_type else []), *arguments)
    body = printed.partition("flat%")[2].partition("\n")[2]
    return [_row(line) for line in body.splitlines()]


def _row(line: str) -> Row:
    match = _ROW.fullmatch(line)
    assert match is not None, line
    flat, flat_share, sum_share, cumulative, cumulative_share, name = match.groups()
    return Row(_whole(flat), flat_share, sum_share, _whole(cumulative), cumulative_share, name)


def _whole(value: str) -> int:
    return int(re.sub(r"[A-Za-z]+$", "", value))


def written_by_go(program: Path, directory: Path) -> list[Path]:
    """Return the profiles that tests/targets/profiles wrote of itself."""
    subprocess.run([str(program), str(directory)], check=True, timeout=60)
    return sorted(directory.glob("*.pb.gz"))
