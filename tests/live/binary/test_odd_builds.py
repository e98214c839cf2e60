"""Globals found in the code of programs that were built, linked or stripped in unusual ways.

The truth is the symbol table of the same program, or of its twin that was not stripped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomem.tracer.binary.elf import SHT_SYMTAB
from gomem.tracer.binary.executable import Executable
from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.tables import table_for
from gomem.tracer.process.target import Target
from gomem.tracer.program.globals import find_in_code, recipes
from gomem.tracer.program.go_program import GoProgram, load_program
from gomem.tracer.runtime.earlier import optional_globals, required_globals
from gomem.tracer.runtime.self_checks import contradictions
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import BuildFailed, Mode, build
from tests.support.cache import cache_dir, made_once
from tests.support.requirements import absent, program
from tests.support.summary import note

NEWEST = "1.27.3"
UNOPTIMISED, NOT_INLINED = "-gcflags=all=-N -l", "-gcflags=all=-l"
# What the compiler makes of the runtime otherwise than usual. All toolchains were looked at by hand; these take long.
COMPILED = [("1.19", UNOPTIMISED), ("1.23.9", "-race"), (NEWEST, UNOPTIMISED), (NEWEST, NOT_INLINED), (NEWEST, "-race"),
            (NEWEST, "-pgo")]  # fmt: skip
LINKED: list[tuple[str, Mode]] = [("1.19", "exe"), ("1.19", "pie"), ("1.25.5", "cgo-pie"), (NEWEST, "exe"),
                                  (NEWEST, "cgo")]  # fmt: skip
# No code has the addresses of the lists of block and mutex profiles where nothing in the program reads these.
UNREAD = {"bbuckets", "xbuckets"}
TITLE = "globals found in code, of those in the symbol table"


def compiled(release: str, flag: str) -> Path:
    if flag == "-pgo":
        flag = f"-pgo={profile()}"
    try:
        return build("tiny", release, mode="cgo" if flag == "-race" else "exe", extra_flags=[flag])
    except BuildFailed as failure:
        absent(str(failure))


def profile() -> Path:
    """Return a CPU profile of a program that allocates and collects, so that -pgo changes the runtime's own code."""

    def make(directory: Path) -> None:
        with (directory / "cpu.pprof").open("wb") as file:
            subprocess.run([build("profiled", NEWEST)], stdout=file, check=True)

    return made_once(cache_dir() / "builds" / f"profile-{NEWEST}", make) / "cpu.pprof"


def layout_of(loaded: GoProgram) -> Layout:
    layout = table_for(loaded.release, "amd64")
    assert layout is not None
    return layout


@contextmanager
def opened(path: Path) -> Iterator[GoProgram]:
    loaded = load_program(str(path))
    try:
        yield loaded
    finally:
        loaded.close()


def sought(layout: Layout) -> list[str]:
    """Return the globals that the code tells of; of debug, those releases that have what it is sought for."""
    return [name for name in recipes() if name != "debug" or layout.has("debug", "profstackdepth")]


def symbols_of(path: Path) -> dict[str, int]:
    with opened(path) as loaded:
        assert loaded.executable is not None
        values = loaded.executable.symbols([f"runtime.{name}" for name in sought(layout_of(loaded))])
    return {name.removeprefix("runtime."): value for name, value in values.items()}


def found_in(path: Path) -> dict[str, int]:
    with opened(path) as loaded:
        assert loaded.executable is not None
        assert loaded.functions is not None
        layout = layout_of(loaded)
        return find_in_code(loaded.executable, loaded.functions, layout, sought(layout))


def without_symbols(path: Path, directory: Path) -> Path:
    bare = directory / "bare"
    subprocess.run([program("strip", "binutils"), "--strip-all", "-o", bare, path], check=True)
    return bare


@pytest.mark.parametrize(("release", "flag"), COMPILED, ids=lambda value: str(value).replace(" ", ""))
def test_code_compiled_otherwise_names_the_same_globals(release: str, flag: str, tmp_path: Path) -> None:
    path = compiled(release, flag)
    symbols = symbols_of(path)
    found = found_in(path)
    note(TITLE, flag, release, f"{len(found)}/{len(symbols)}")
    # Where nothing is inlined, the scavenger's goals are read by functions of their own, and the queue of cleanups
    # is an argument of those that work on it: then they are not known.
    missing = UNREAD | ({"scavenge", "gcCleanups"} if "-l" in flag else set())
    assert found == {name: address for name, address in symbols.items() if name in found or name not in missing}
    assert found_in(without_symbols(path, tmp_path)) == found


@pytest.mark.parametrize(("release", "flag"), COMPILED, ids=lambda value: str(value).replace(" ", ""))
def test_programs_compiled_otherwise_are_read_exactly_when_stripped(release: str, flag: str, tmp_path: Path) -> None:
    bare = without_symbols(compiled(release, flag), tmp_path)
    with subprocess.Popen([bare, "-hold", "60s"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"hello\n"
            with Target.open(process.pid) as target, Inspector.open(target) as inspector:
                assert inspector.program.layout is not None
                assert inspector.program.layout.source == "table"
                look = inspector.look()
                assert look.runtime is not None
                assert look.runtime.consistency.exact
                assert look.runtime.missed == []
                assert inspector.bias is not None
                addresses = {name: at + inspector.bias for name, at in inspector.program.globals.items()}
                reader, memory = inspector.reader(), inspector.memory()
                assert contradictions(reader.snapshot, memory, inspector.program.layout, addresses) == []
        finally:
            process.kill()


def stripped_by(tool: str, *options: str) -> Callable[[Path, Path], None]:
    def strip(path: Path, output: Path) -> None:
        subprocess.run([program(tool, "binutils"), *options, path, output], check=True)

    return strip


def strip_all(path: Path, output: Path) -> None:
    subprocess.run([program("strip", "binutils"), "--strip-all", "-o", output, path], check=True)


def sstrip(path: Path, output: Path) -> None:
    """Leave no section headers, nor what lies behind the last segment."""
    with Executable.open(path) as exe:
        end = max(segment.offset + segment.file_size for segment in exe.segments)
    raw = bytearray(path.read_bytes()[:end])
    raw[0x28:0x30], raw[0x3A:0x40] = bytes(8), bytes(6)
    output.write_bytes(raw)


STRIPPERS: dict[str, Callable[[Path, Path], None]] = {
    "strip": strip_all,
    "strip-debug": stripped_by("objcopy", "--strip-debug"),
    "strip-unneeded": stripped_by("objcopy", "--strip-unneeded"),
    "compress": stripped_by("objcopy", "--compress-debug-sections=zlib"),
    "sstrip": sstrip,
}


@pytest.mark.parametrize(("release", "mode"), LINKED)
@pytest.mark.parametrize("way", STRIPPERS)
def test_programs_stripped_afterwards_tell_what_their_twin_tells(
    release: str, mode: Mode, way: str, tmp_path: Path
) -> None:
    whole = build("parked", release, mode=mode)
    symbols = symbols_of(whole)
    path = tmp_path / "stripped"
    STRIPPERS[way](whole, path)
    known = {name: address for name, address in symbols.items() if name not in UNREAD}
    assert found_in(path) == known
    with Executable.open(path) as exe:
        has_symbols = any(section.type == SHT_SYMTAB for section in exe.sections)
        assert has_symbols is (way in ("strip-debug", "compress"))
        assert exe.has_dwarf is (way == "compress")
    with opened(path) as loaded:
        assert loaded.layout is not None
        assert loaded.layout.source == ("dwarf" if way == "compress" else "table")
        assert loaded.limits == ()
        wanted = {*required_globals(loaded.layout), *optional_globals(loaded.layout)}
        there = symbols if has_symbols else known
        assert loaded.globals == {name: value for name, value in there.items() if name in wanted}
    note(TITLE, way, f"{release} {mode}", f"{len(known)}/{len(symbols)}")
