"""Parked targets: Go processes that stand still and know their own runtime.MemStats."""

from __future__ import annotations

import json
import os
import selectors
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MAGIC = b"MEMSTATS"
PREFIX = struct.Struct("=8sQQ")
FORMATS = {"uint64": "Q", "uint32": "I", "float64": "d", "bool": "?"}

# Field name -> value; BySize -> [[size, mallocs, frees], ...]; PauseNs and PauseEnd -> lists.
MemStats = dict[str, int]
Flag = int | float | str | bool


class TargetBroken(Exception):
    """A target program did not do what it is for."""


@dataclass(slots=True)
class Parked:
    """A parked process.

    `first` and `by_size` are what it said of itself last; `memstats()` makes it read its figures again.
    """

    process: subprocess.Popen[bytes]
    release: str
    description: dict[str, object]
    emitted: MemStats = field(default_factory=dict)
    by_size: list[list[int]] = field(default_factory=list)
    records: int = 0

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def memstats(self) -> MemStats:
        """Let the target read its MemStats anew, and return them (the sizes are in `by_size`)."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.receive()

    def receive(self) -> MemStats:
        """Take the record that the target is about to write."""
        size = self.description["size"]
        assert isinstance(size, int)
        magic, sequence, told = PREFIX.unpack(_read(self.process, PREFIX.size))
        if (magic, sequence, told) != (MAGIC, self.records, size):
            raise TargetBroken(f"bad record header: {magic!r} {sequence} {told}")
        self.records += 1
        self._decode(_read(self.process, size))
        return self.emitted

    def _decode(self, raw: bytes) -> None:
        fields = self.description["fields"]
        step = self.description["by_size_step"]
        assert isinstance(fields, list)
        assert isinstance(step, int)
        decoded: MemStats = {}
        for one in fields:
            if one["name"] == "BySize":
                rows = [struct.unpack_from("=IxxxxQQ", raw, one["offset"] + row * step) for row in range(one["length"])]
                self.by_size = [list(row) for row in rows]
            elif one["length"] == 0 and one["kind"] in ("uint64", "uint32"):
                (decoded[one["name"]],) = struct.unpack_from("=" + FORMATS[one["kind"]], raw, one["offset"])
        self.emitted = decoded


def _read(process: subprocess.Popen[bytes], count: int, seconds: float = 60.0) -> bytes:
    assert process.stdout is not None
    got = b""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(got) < count:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TargetBroken(f"the target wrote nothing for {seconds} s")
            piece = os.read(process.stdout.fileno(), count - len(got))
            if not piece:
                raise TargetBroken(f"the target ended early with status {process.wait()}")
            got += piece
    return got


def _read_line(process: subprocess.Popen[bytes]) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += _read(process, 1)
    return line


@contextmanager
def parked(
    binary: Path,
    shape: Mapping[str, Flag] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    **more_shape: Flag,
) -> Iterator[Parked]:
    """Run a build of tests/targets/parked until the block ends; its shape are the flags of its main.go.

    `env` is added to the environment, e.g. GOMAXPROCS. Raises TargetBroken.
    """
    words = {**(shape or {}), **more_shape}
    flags = [f"-{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in words.items()]
    # Without asyncpreemptoff, sysmon signals the goroutine in its raw system call every 10 ms.
    environment = {**os.environ, "GODEBUG": "asyncpreemptoff=1", **(env or {})}
    process = subprocess.Popen(
        [str(binary), *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
    )
    try:
        yield adopted(process)
    finally:
        ended(process)


def adopted(process: subprocess.Popen[bytes]) -> Parked:
    """Return the parked target that a process is about to be, of whose output nothing has been read yet."""
    description = json.loads(_read_line(process))
    target = Parked(process, description["release"], description)
    target.receive()
    return target


def ended(process: subprocess.Popen[bytes]) -> None:
    """Kill `process` if it still runs, and reap it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        process.kill()
    process.wait(timeout=30)
