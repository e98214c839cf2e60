"""A process that writes its own heap profile, and the records of profiles, as `go tool pprof` reads them from files."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gomem.exporters.pprof.encode import encode
from gomem.tracer.report.profile import Profile
from tests.support.pprof import pprof

_SAMPLE = re.compile(r" *([-\d ]+): ?([\d ]*)")
_LOCATION = re.compile(r" +(\d+): (0x[0-9a-f]+) (?:M=\d+ )?(.*)")


@dataclass(frozen=True, slots=True)
class Record:
    """A sample: its values, its stack as (address, lines) of each location, and its labels."""

    values: tuple[int, ...]
    stack: tuple[tuple[str, tuple[str, ...]], ...]
    labels: str

    def calls(self, function: str) -> bool:
        """Tell whether a function of that full name is in the stack."""
        return any(line.startswith(f"{function} ") for _, lines in self.stack for line in lines)


@dataclass(frozen=True, slots=True)
class Records:
    """What a profile holds: its samples, how often each is there, the period, and its mappings of files."""

    samples: Counter[Record]
    types: tuple[str, ...]
    period: str
    mappings: tuple[str, ...]

    def with_values(self) -> Counter[Record]:
        """Return the samples that count something: a bucket that only open cycles know has none."""
        return Counter({record: count for record, count in self.samples.items() if any(record.values)})

    def values_of(self, function: str, size: int) -> tuple[int, ...]:
        """Return the sum of the values of objects of `size` bytes whose stack has the function."""
        label = f"bytes:[{size}]"
        some = [(record, count) for record, count in self.samples.items() if record.labels == label]
        found = [[value * count for value in record.values] for record, count in some if record.calls(function)]
        return tuple(map(sum, zip(*found, strict=True)))


class Profiled:
    """A process of tests/targets/heapprofile."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self._hear("ready")

    def obey(self, command: str) -> None:
        """Let it do what its main.go says of such a command."""
        self.begin(command)
        self._hear("done")

    def begin(self, command: str) -> None:
        """Let it begin; `end` waits until it has done so."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait for the answer to the command before."""
        self._hear("done")

    def end_now(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def writes(self, directory: Path) -> Path:
        """Let it write its profiles, and return the path of the one of "heap"; that of "allocs" ends so."""
        self.obey(f"write {directory}/own")
        return directory / "own.heap"

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == f"{word}\n", f"{said!r}, status {self._process.poll()}"


@contextmanager
def profiled(binary: Path, *arguments: object, env: Mapping[str, str] | None = None) -> Iterator[Profiled]:
    """Run a build of tests/targets/heapprofile until the block ends; it begins when that has come to rest."""
    with subprocess.Popen(
        [binary, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            yield Profiled(process)
        finally:
            process.kill()


def records_of(profile: Path | Profile, directory: Path) -> Records:
    """Return what is in a file, or in a profile once it is written to one in `directory`."""
    if isinstance(profile, Profile):
        path = directory / "written.pb.gz"
        path.write_bytes(encode(profile))
        profile = path
    return _parsed(pprof("-raw", str(profile)))


def records_at(address: str, directory: Path) -> Records:
    """Return what a server answers to `go tool pprof`, which keeps it in `directory`."""
    return _parsed(pprof("-raw", address, keeping=directory))


def _parsed(text: str) -> Records:
    head, _, rest = text.partition("Samples:\n")
    samples, _, rest = rest.partition("Locations\n")
    locations, _, mappings = rest.partition("Mappings\n")
    stacks = _locations(locations)
    types, *lines = samples.splitlines()
    period = next((line for line in head.splitlines() if line.startswith("Period:")), "")
    return Records(
        Counter(_samples(lines, stacks)), tuple(types.split()), period, tuple(filter(None, mappings.splitlines()))
    )


def _locations(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        begins = _LOCATION.fullmatch(line)
        if begins:
            lines = found.setdefault(begins[1], (begins[2], []))[1]
        lines.append((begins[3] if begins else line).strip())
    return {number: (address, tuple(lines)) for number, (address, lines) in found.items()}


def _samples(lines: list[str], stacks: dict[str, tuple[str, tuple[str, ...]]]) -> Iterator[Record]:
    """Yield the samples; a line with labels is behind that of its sample."""
    for line, behind in zip(lines, [*lines[1:], ""], strict=True):
        match = _SAMPLE.fullmatch(line)
        if match:
            labels = "" if _SAMPLE.fullmatch(behind) else behind.strip()
            yield Record(
                tuple(map(int, match[1].split())), tuple(stacks[number] for number in match[2].split()), labels
            )
