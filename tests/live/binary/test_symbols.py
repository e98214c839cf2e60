"""Names and lines of code, against what the Go runtime itself says of the same addresses."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from gomem.exporters.pprof.decode import read_profile
from gomem.tracer.binary.elf_symbols import ElfSymbols
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.symbols import Symbolizer
from gomem.tracer.report.profile import Line
from tests.support.builds import Mode, build
from tests.support.inlined import inlined_functions
from tests.support.old_programs import PROGRAMS, UNSTRIPPED, OldProgram, old_program
from tests.support.toolchains import RELEASES

CASES: list[tuple[str, Mode]] = [
    ("1.19", "exe"), ("1.19", "cgo-pie"), ("1.21.13", "pie"), ("1.23.9", "exe"), ("1.25.5", "cgo"), ("1.27.3", "exe"),
    ("1.27.3", "cgo-pie"),
]  # fmt: skip
ADDRESSES = 10_000
CHAIN = ["main.fourth", "main.third", "main.second", "main.first"]

Told = list[tuple[str, str, int]]
"""(function, file, line) of each frame, the innermost first."""


@dataclass(frozen=True)
class Answers:
    """What a program says of its own addresses: `bias` is what it adds to link-time ones."""

    bias: int
    tells_all: bool
    frames: list[Told]


def asked(program: Path, functions: FunctionTable, addresses: list[int], *profile: Path) -> Answers:
    """Ask the program for the frames of link-time addresses within instructions; they are return addresses less one."""
    process = subprocess.Popen([program, *profile], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        hello = json.loads(process.stdout.readline())
        (main,) = functions.lookup("main.main")
        bias = hello["Main"] - main.entry
        answer, _ = process.communicate("".join(f"{address + bias + 1:x}\n" for address in addresses), timeout=60)
    finally:
        process.kill()
        process.wait()
    return Answers(bias, hello["All"], [spelt(json.loads(line)) for line in answer.splitlines()])


def spelt(frames: list[dict[str, object]]) -> Told:
    told = [(str(frame["Function"]), str(frame["File"]), int(str(frame["Line"]))) for frame in frames]
    return [(function, "" if file == "?" else file, line) for function, file, line in told]


def code_addresses(functions: FunctionTable, seed: str) -> list[int]:
    """Return addresses that a return address tells of: behind a function's last byte the next one begins."""
    first, end = functions.bounds
    ends = {function.end - 1 for function in functions}
    return sorted(
        address for address in random.Random(seed).sample(range(first, end), ADDRESSES) if address not in ends
    )


def printed(function: str, unnamed: str) -> str:
    """Abbreviate type arguments as funcNameForPrint in runtime/traceback.go does.

    The runtime takes the offset 0 for that of no name, and so has none for the function whose name is there.
    """
    return "" if function == unnamed else re.sub(r"\[.*\]", "[...]", function)


@pytest.mark.parametrize(("release", "mode"), CASES, ids=str)
def test_functions_files_and_lines_are_those_that_the_runtime_tells(release: str, mode: Mode) -> None:
    program = build("frames", release, stripped=True, mode=mode)
    with Executable.open(program) as exe:
        functions = FunctionTable.find(exe)
        symbolizer = Symbolizer.of(exe, functions)
        addresses = code_addresses(functions, release)
        ours = [
            [(printed(line.function, functions.name(0)), line.file, line.line) for line in symbolizer.lines(address)]
            for address in addresses
        ]
    answers = asked(program, functions, addresses)
    assert answers.tells_all or not {"1.23.9", "1.25.5", "1.27.3"} & {release}
    compared = ours if answers.tells_all else [frames[:1] for frames in ours]
    differ = [
        (hex(address), mine, theirs)
        for address, mine, theirs in zip(addresses, compared, answers.frames, strict=True)
        if mine != theirs
    ]
    assert not differ, (len(differ), differ[:3])
    assert sum(len(frames) > 1 for frames in ours) > ADDRESSES // 20, len(ours)


@pytest.mark.parametrize(("release", "mode"), [CASES[0], CASES[2], CASES[4], CASES[5]], ids=str)
def test_locations_of_a_heap_profile_are_those_that_the_program_wrote(release: str, mode: Mode, tmp_path: Path) -> None:
    """Calls of every shape: inlined within each other, generic, of methods that the compiler made up, and panics."""
    program = build("frames", release, stripped=True, mode=mode)
    written = tmp_path / "heap.pb.gz"
    with Executable.open(program) as exe:
        functions = FunctionTable.find(exe)
        bias = asked(program, functions, [], written).bias
        symbolizer = Symbolizer.of(exe, functions)
        theirs = read_profile(str(written)).locations
        ours = [symbolizer.lines(location.address - bias) for location in theirs]
    # pprof knows a function by its name: it is in the file in which it was met first.
    places = [[(line.function, line.line, line.start_line) for line in lines] for lines in ours]
    assert places == [[(one.function, one.line, one.start_line) for one in location.lines] for location in theirs]
    files = {(line.function, line.file) for lines in ours for line in lines}
    assert {(line.function, line.file) for location in theirs for line in location.lines} <= files
    assert any([line.function for line in lines[:4]] == CHAIN for lines in ours)
    assert any(line.line == 1000 and line.file.endswith("made/up name.y") for lines in ours for line in lines)
    assert any(line.start_line for lines in ours for line in lines) == (functions.version == "1.20")


# Of each way to write down inlined calls, and each version of the pclntab.
OLD = [program for program in PROGRAMS if program.go in ("go1.10.2", "go1.12.6", "go1.15.5", "go1.16", "go1.18")]


@pytest.mark.parametrize("program", OLD, ids=lambda program: program.go)
def test_old_programs_are_read_as_by_gos_own_reader(program: OldProgram, tmp_path: Path) -> None:
    assert_read_as_by_gos_own_reader(old_program(program), tmp_path)


def test_functions_that_an_old_program_has_inlined_are_those_of_its_dwarf() -> None:
    program = old_program(UNSTRIPPED[0])
    depths: Counter[int] = Counter()
    with Executable.open(program) as exe:
        symbolizer = Symbolizer.of(exe, FunctionTable.find(exe))
        for address, theirs in inlined_functions(program, every=12):
            assert [frame.line.function for frame in symbolizer.frames(address)] == theirs, hex(address)
            depths[len(theirs)] += 1
    assert {1, 2, 3} <= depths.keys(), depths


def test_a_program_for_arm64_is_read_as_by_gos_own_reader(tmp_path: Path) -> None:
    assert_read_as_by_gos_own_reader(build("tiny", RELEASES[-1], stripped=True, goarch="arm64"), tmp_path)


def assert_read_as_by_gos_own_reader(program: Path, tmp_path: Path) -> None:
    with Executable.open(program) as exe:
        functions = FunctionTable.find(exe)
        symbolizer = Symbolizer.of(exe, functions)
        addresses = code_addresses(functions, program.name)
        ours = [symbolizer.frames(address) for address in addresses]
        theirs = gosym_lines(exe.read_up_to(functions.address, exe.file_size), functions, addresses, tmp_path)
    innermost = [(frames[-1].line.function, frames[0].line.file, frames[0].line.line) for frames in ours]
    assert innermost == theirs
    inlined = [frame.line for frames in ours for frame in frames if frame.inlined]
    assert len(inlined) > ADDRESSES // 20
    # Names and files are from different tables: a package's functions are in a directory of its name.
    elsewhere = [line for line in inlined if not at_home(line)]
    assert len(elsewhere) < len(inlined) // 50, elsewhere[:5]


def at_home(line: Line) -> bool:
    """Tell whether a function is in a directory that is called as its package; main's may have any name."""
    name = line.function.partition("[")[0].rpartition("/")[2].partition(".")[0].replace("%2e", ".")
    return name in ("main", Path(line.file).parent.name.partition("@")[0])


def gosym_lines(table: bytes, functions: FunctionTable, addresses: list[int], directory: Path) -> Told:
    """Return the real function at each address, and the file and line of the instruction, by Go's debug/gosym."""
    raw, asked_for = directory / "pclntab", directory / "addresses"
    raw.write_bytes(table)
    asked_for.write_text("\n".join(f"{address:x}" for address in addresses))
    command: list[str | Path] = [build("gosym", RELEASES[-1]), raw, hex(functions.text_start), asked_for]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = [line.split("\t") for line in shown.splitlines()]
    return [(function, file, max(int(line), 0)) for function, file, line in told]


@pytest.mark.parametrize("library", ["libc.so.6", "libstdc++.so.6"])
def test_functions_of_c_are_those_that_nm_lists(library: str) -> None:
    path = Path("/lib/x86_64-linux-gnu", library)
    assert_told_as_by_nm(path, "--dynamic")


def test_c_functions_of_a_go_program_are_those_that_nm_lists() -> None:
    assert_told_as_by_nm(build("frames", RELEASES[-1], mode="cgo"))


def assert_told_as_by_nm(path: Path, *options: str) -> None:
    command = ["nm", "--defined-only", "--print-size", *options, str(path)]
    listed: dict[int, set[str]] = {}
    sizes: dict[int, int] = {}
    for row in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        fields = row.split(maxsplit=3)
        if len(fields) == 4 and fields[2] in "tTwWi":
            address, size = int(fields[0], 16), int(fields[1], 16)
            listed.setdefault(address, set()).add(fields[3].partition("@")[0])
            sizes[address] = size
    with Executable.open(path) as exe:
        symbols = ElfSymbols.of(exe)
        for start, names in listed.items():
            for within in (start, start + sizes[start] - 1) if sizes[start] else ():
                (line,) = symbols.lines(within)
                # Another function may lie within this one.
                assert line.function in names or any(start < other <= within for other in listed), hex(within)
    assert len(listed) > 100
