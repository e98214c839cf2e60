"""Executables as Go and gcc link them; the truth is Go's own: debug/gosym, go tool nm and objdump, go version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gomem.tracer.binary.buildinfo import read_build_info
from gomem.tracer.binary.code import Access, references
from gomem.tracer.binary.elf import Malformed
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.pclntab_format import decode
from tests.support.builds import Mode, build
from tests.support.debian import program_of
from tests.support.samples.executables import MAGIC, TEXT, encode_pclntab
from tests.support.toolchains import RELEASES, toolchain

# gcc's linker merges the pclntab into .data.rel.ro (PIE, up to 1.25); 1.26 and later have no text start in its header.
CASES: list[tuple[str, Mode]] = [(release, "exe") for release in RELEASES]
for linked in ("pie", "cgo", "cgo-pie"):
    CASES += [(release, linked) for release in ("1.19", "1.25.5", "1.27.3")]

CODE = ["runtime.mallocinit", "runtime.readmemstats_m", "runtime.procresize", "runtime.gcStart", "runtime.schedinit"]


def go(release: str, *arguments: str) -> str:
    root = toolchain(release)
    environment = {**os.environ, "GOROOT": str(root), "GOTOOLCHAIN": "local"}
    command = [str(root / "bin/go"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def gosym(table: bytes, text_start: int, directory: Path) -> list[str]:
    """Return "entry end name" of each function, as debug/gosym reads the table."""
    raw = directory / "pclntab"
    raw.write_bytes(table)
    reader = build("gosym", RELEASES[-1])
    shown = subprocess.run([reader, raw, hex(text_start)], capture_output=True, text=True, check=True).stdout
    return shown.splitlines()


def spelt(table: FunctionTable) -> list[str]:
    return [f"{function.entry} {function.end} {function.name}" for function in table]


def nm(release: str, path: Path) -> dict[str, list[tuple[int, str]]]:
    """Return (address, name) of all symbols, by nm's letter; ABI suffixes are not part of a function's name."""
    symbols: dict[str, list[tuple[int, str]]] = {}
    for line in go(release, "tool", "nm", str(path)).splitlines():
        fields = line.split(None, 2)
        if len(fields) == 3:
            name = re.sub(r"\.abi(0|internal)$", "", fields[2])
            symbols.setdefault(fields[1].upper(), []).append((int(fields[0], 16), name))
    return symbols


def comparable(name: str) -> str:
    """Cut out type arguments and array sizes, which the pclntab abbreviates, and local types' numbers."""
    return re.sub(r"\[[^]]*\]", "[]", name).replace("·", ".")


@pytest.mark.live
@pytest.mark.parametrize(("release", "mode"), CASES, ids=lambda value: str(value))
def test_every_function_address_and_setting_is_what_gos_own_tools_say(release: str, mode: Mode, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    for stripped in (False, True):
        path = build("parked", release, stripped=stripped, mode=mode)
        with Executable.open(path) as exe:
            table = FunctionTable.find(exe)
            assert (exe.stripped, exe.pie) == (stripped, mode.endswith("pie"))
            assert (exe.interpreter is None) == (mode == "exe")
            assert table.moduledata is not None
            assert spelt(table) == gosym(exe.read_up_to(table.address, exe.file_size), table.text_start, tmp_path)
            assert all(function in table.lookup(function.name) for function in list(table)[::7])
            assert_build_info(release, path, exe)
            seen.append(spelt(table))
            if not stripped:
                assert_symbols(release, path, exe, table)
    # Stripping moves data, but no code.
    assert seen[0] == seen[1]


def assert_symbols(release: str, path: Path, exe: Executable, table: FunctionTable) -> None:
    symbols = nm(release, path)
    names = {"runtime.text": table.text_start, "runtime.firstmoduledata": table.moduledata}
    assert exe.symbols(list(names)) == names
    first, end = table.bounds
    aliases = {"runtime.text", "runtime.etext"}
    texts = [(at, name) for at, name in symbols["T"] if first <= at < end and name not in aliases]
    said = {(at, comparable(name)) for at, name in texts}
    assert {(function.entry, comparable(function.name)) for function in table} == said
    data = {name: at for letter in "DB" for at, name in symbols.get(letter, [])}
    globals_ = ["runtime.mheap_", "runtime.memstats", "runtime.gcController", "runtime.allp"]
    assert exe.symbols(globals_) == {name: data[name] for name in globals_}


def assert_build_info(release: str, path: Path, exe: Executable) -> None:
    said = go(release, "version", "-m", str(path)).splitlines()
    info = read_build_info(exe)
    assert info is not None
    assert said[0].endswith(f": {info.go_version}")
    rows = [line.split("\t")[1:] for line in said[1:]]
    assert [row[1] for row in rows if row[0] == "path"] == [info.main_path]
    assert [row[1:3] for row in rows if row[0] == "mod"] == [[info.main_module, info.main_version]]
    settings = dict(row[1].split("=", 1) for row in rows if row[0] == "build")
    assert {key: value.strip('"') for key, value in settings.items()} == info.settings


@pytest.mark.live
@pytest.mark.parametrize("release", ["1.19", "1.23.9", "1.27.3"])
def test_references_are_what_gos_disassembler_shows(release: str) -> None:
    path = build("parked", release)
    pattern = "^(" + "|".join(re.escape(name) for name in CODE) + ")$"
    listing = go(release, "tool", "objdump", "-s", pattern, str(path))
    addresses = {name: at for rows in nm(release, path).values() for at, name in rows}
    shown = [row for line in listing.splitlines() if (row := listed(line, addresses))]
    assert len(shown) > 200
    with Executable.open(path) as exe:
        table = FunctionTable.find(exe)
        found = [
            (reference.instruction, reference.target, reference.access)
            for function in sorted((table.lookup(name)[0] for name in CODE), key=lambda function: function.entry)
            for reference in references(exe, function)
        ]
    # Where a name stands for two addresses (wrapper and body), the target in the listing is not certain.
    assert [row[0::2] for row in found] == [row[0::2] for row in shown]
    different = [(ours, theirs) for ours, theirs in zip(found, shown, strict=True) if ours != theirs]
    assert all(theirs[2] == "call" for _, theirs in different)
    assert len(different) < len(shown) / 20


LISTED = re.compile(r"^\s+\S+:-?\d+\s+(0x[0-9a-f]+)\s+([0-9a-f]+)\s+(.+?)\s*$")
OPERAND = re.compile(r"(?:(?P<name>[^\s,]+?)(?P<offset>[+-]\d+)?\(SB\)|(?P<distance>-?0x[0-9a-f]+)\(IP\))")


def listed(line: str, addresses: dict[str, int]) -> tuple[int, int, Access] | None:
    """Parse one line of go tool objdump; None if its instruction refers to nothing."""
    match = LISTED.match(line)
    if match is None:
        return None
    at, size, text = int(match[1], 16), len(match[2]) // 2, match[3]
    mnemonic = text.removeprefix("LOCK ").split()[0]
    operand = OPERAND.search(text)
    if operand is None or mnemonic.startswith("J"):
        return None
    if operand["distance"]:
        target = at + size + int(operand["distance"], 16)
    else:
        name = re.sub(r"\.abi(0|internal)$", "", operand["name"])
        target = addresses.get(name, 0) + int(operand["offset"] or 0)
    if mnemonic == "CALL":
        return at, target, "call"
    if mnemonic.startswith("LEA"):
        return at, target, "address"
    # Go's syntax has the destination last; comparisons have none.
    compares = mnemonic.startswith(("CMP", "TEST", "BT")) and not mnemonic.startswith("CMPXCHG")
    written = text.endswith("(SB)") and not compares
    return at, target, "write" if written or mnemonic.startswith(("XCHG", "XADD")) else "read"


@pytest.mark.live
@pytest.mark.parametrize("version", list(MAGIC))
@pytest.mark.parametrize("pointer_size", [4, 8])
def test_go_reads_the_tables_that_other_tests_are_built_on(version: str, pointer_size: int, tmp_path: Path) -> None:
    functions = [("runtime.a", 16), ("runtime.b", 0), ("main.größe", 4096), ("runtime.a", 32), ("main.(*T).f[...]", 8)]
    for quantum in (1, 2, 4):
        sample = encode_pclntab(version, functions, quantum=quantum, pointer_size=pointer_size)
        ours = spelt(FunctionTable(decode(sample.raw), 0, TEXT, None))
        assert ours == gosym(sample.raw, TEXT, tmp_path)
        assert len(ours) == len(functions)
    # Behind the names of version 1.2 stands the table of files, which Go reads and we do not.
    for length in range(0, len(sample.raw) if version != "1.2" else sample.raw.rindex(b"main."), 5):
        try:
            decode(sample.raw[:length])
        except Malformed:
            continue
        assert gosym(sample.raw[:length], TEXT, tmp_path), "we accept a table that Go itself refuses"


@pytest.mark.live
@pytest.mark.parametrize("package", ["prometheus", "etcd-server"])
def test_debians_stripped_programs_are_read(package: str, tmp_path: Path) -> None:
    path = program_of(package, f"usr/bin/{package.removesuffix('-server')}")
    with Executable.open(path) as exe:
        assert exe.stripped
        info = read_build_info(exe)
        assert info is not None
        assert info.go_version.startswith("go1.")
        table = FunctionTable.find(exe)
        section = exe.section(".gopclntab")
        assert section is not None
        assert spelt(table) == gosym(exe.read(section.address, section.size), table.text_start, tmp_path)
        init = table.lookup("runtime.(*mheap).init")[0]
        found = references(exe, table.lookup("runtime.mallocinit")[0])
        calls = [index for index, row in enumerate(found) if row.access == "call" and row.target == init.entry]
        assert [found[index - 1].access for index in calls] == ["address"]

        # The same program as sstrip would leave it: no section headers at all.
        bare = bytearray(path.read_bytes())
        bare[0x28:0x30], bare[0x3A:0x40] = bytes(8), bytes(6)
        (tmp_path / "bare").write_bytes(bare)
        with Executable.open(tmp_path / "bare") as same:
            assert same.sections == ()
            assert read_build_info(same) == info
            assert FunctionTable.find(same).text_start == table.text_start
            assert same.go_build_id == exe.go_build_id


@pytest.mark.live
def test_the_executable_of_a_process_is_readable_after_the_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    shutil.copy2(build("tiny", RELEASES[-1]), path)
    process = subprocess.Popen([path, "-hold", "60s"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        path.unlink()
        path.write_text("#!/bin/sh\n")
        with Executable.open(f"/proc/{process.pid}/exe") as exe:
            process.kill()
            process.wait()
            assert FunctionTable.find(exe).lookup("main.main")
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.live
def test_what_is_no_go_program_is_told_apart() -> None:
    with Executable.open(shutil.which("sleep") or "/bin/sleep") as exe:
        assert read_build_info(exe) is None
