"""The lines that a Go program writes of itself with GODEBUG=gctrace=1 and scavtrace=1."""

from __future__ import annotations

import re
from dataclasses import dataclass

# runtime/mgc.go (gcMarkTermination) and mgcscavenge.go (printScavTrace), Go 1.19 to 1.27.
_GC = re.compile(r"gc (\d+) @([\d.]+)s \d+%: .* (\d+)->(\d+)->(\d+) MB, (\d+) MB goal, .*?( \(forced\))?")
_SCAV = re.compile(
    r"scav (\d+) KiB work(?: \(bg\), (\d+) KiB work \(eager\))?, \d+ KiB .*% util"
    r"(?:( \(forced\))| \[controller reset\])?"
)


@dataclass(frozen=True, slots=True)
class GcLine:
    """One collection: its number from 1, MB (rounded down) that were live before, marked, its goal; was it forced."""

    number: int
    live_mb: int
    marked_mb: int
    goal_mb: int
    forced: bool


@dataclass(frozen=True, slots=True)
class ScavengeLine:
    """Bytes given back: by one FreeOSMemory, or since the last such line in the background and by allocations.

    `by_allocations` is None in the lines of Go 1.19, which leave it out.
    """

    free_os_memory: int
    background: int
    by_allocations: int | None


def gc_lines(stderr: str) -> list[GcLine]:
    """Return the lines of gctrace. Raises ValueError for one that cannot be read."""
    found = [(line, _GC.fullmatch(line)) for line in stderr.splitlines() if line.startswith("gc ")]
    return [_gc_line(match) for match in map(_whole, found)]


def _gc_line(match: re.Match[str]) -> GcLine:
    number, live, marked, goal = (int(match[group]) for group in (1, 3, 5, 6))
    return GcLine(number, live, marked, goal, bool(match[7]))


def scavenge_lines(stderr: str) -> list[ScavengeLine]:
    """Return the lines of scavtrace. Raises ValueError for one that cannot be read."""
    found = [(line, _SCAV.fullmatch(line)) for line in stderr.splitlines() if line.startswith("scav ")]
    return [_scavenge_line(match) for match in map(_whole, found)]


def _scavenge_line(match: re.Match[str]) -> ScavengeLine:
    work, eager = int(match[1]) << 10, None if match[2] is None else int(match[2]) << 10
    if match[3]:
        return ScavengeLine(work + (eager or 0), 0, 0)
    return ScavengeLine(0, work, eager)


def _whole(found: tuple[str, re.Match[str] | None]) -> re.Match[str]:
    line, match = found
    if match is None:
        raise ValueError(f"no line of a known shape: {line}")
    return match
