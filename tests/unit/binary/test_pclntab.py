from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.tracer.binary.elf import Malformed
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import Function, FunctionTable
from gomem.tracer.binary.pclntab_format import decode
from gomem.tracer.errors import BinaryError
from tests.support.samples.executables import DATA, MAGIC, RODATA, TEXT, Elf, elf_file, encode_pclntab, go_elf, write

VERSIONS = list(MAGIC)
FUNCTIONS = [
    ("internal/cpu.Initialize", 64),
    ("runtime.mallocgc", 32),
    ("runtime.mallocgc", 512),
    ("runtime.mallocgcLarge", 96),
    ("main.größe", 16),
    ("main.main", 256),
]

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
functions_strategy = st.lists(st.tuples(names, st.integers(0, 5000).map(lambda n: n * 4)), min_size=1, max_size=40)


def laid_out(functions: list[tuple[str, int]], at: int = TEXT) -> list[Function]:
    found = []
    for name, size in functions:
        found.append(Function(name, at, at + size))
        at += size
    return found


def find(tmp_path: Path, elf: Elf) -> FunctionTable:
    with Executable.open(write(tmp_path / "program", elf_file(elf))) as exe:
        return FunctionTable.find(exe)


@settings(max_examples=150, deadline=None)
@given(
    functions=functions_strategy,
    version=st.sampled_from(VERSIONS),
    quantum=st.sampled_from([1, 2, 4]),
    pointer_size=st.sampled_from([4, 8]),
    trailing=st.binary(max_size=20),
)
def test_every_version_gives_back_what_was_encoded(
    functions: list[tuple[str, int]], version: str, quantum: int, pointer_size: int, trailing: bytes
) -> None:
    sample = encode_pclntab(version, functions, quantum=quantum, pointer_size=pointer_size)
    table = decode(sample.raw + trailing)
    assert (table.header.version, table.header.quantum, table.header.pointer_size) == (version, quantum, pointer_size)
    made = FunctionTable(table, RODATA, TEXT, None)
    assert list(made) == laid_out(functions)
    assert [function.name for function in made] == [name for name, _ in functions]
    for name in {name for name, _ in functions}:
        expected = [function for function in laid_out(functions) if function.name == name]
        assert made.lookup(name) == sorted(expected, key=lambda function: function.entry - function.end)
    assert made.lookup(functions[0][0] + "x" * 31) == []
    some = [function for function in made if function.name.startswith(functions[0][0][:3])]
    assert made.extent_of([functions[0][0][:3]]) == (some[0].entry, some[-1].end)
    assert made.extent_of([functions[0][0] + "x" * 31]) is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pie", [False, True])
@pytest.mark.parametrize("section_headers", [False, True])
def test_the_table_of_a_program_is_found(tmp_path: Path, version: str, pie: bool, section_headers: bool) -> None:
    table = find(tmp_path, go_elf(version, FUNCTIONS, pie=pie, section_headers=section_headers))
    assert (table.version, table.address, table.text_start) == (version, RODATA, TEXT)
    assert (table.count, table.moduledata) == (len(FUNCTIONS), DATA + 64)
    assert list(table) == laid_out(FUNCTIONS)


def test_the_body_comes_before_its_wrapper(tmp_path: Path) -> None:
    found = find(tmp_path, go_elf("1.20", FUNCTIONS)).lookup("runtime.mallocgc")
    assert [function.end - function.entry for function in found] == [512, 32]


def test_names_that_contain_each_other_are_not_confused(tmp_path: Path) -> None:
    table = find(tmp_path, go_elf("1.20", FUNCTIONS))
    assert [f.name for f in table.lookup("runtime.mallocgcLarge")] == ["runtime.mallocgcLarge"]
    assert len(table.lookup("main.größe")) == 1
    for absent in ("", "mallocgc", "runtime.malloc", "main.mai", "main.main\0", "x" * 10_000):
        assert table.lookup(absent) == []


def test_the_functions_of_a_package_lie_between_two_addresses(tmp_path: Path) -> None:
    table = find(tmp_path, go_elf("1.20", FUNCTIONS))
    runtimes = [function for function in laid_out(FUNCTIONS) if function.name.startswith("runtime.")]
    assert table.extent_of(("runtime.", "internal/runtime/")) == (runtimes[0].entry, runtimes[-1].end)
    assert table.extent_of(("x" * 10_000,)) is None


def test_an_address_belongs_to_the_function_that_it_lies_in(tmp_path: Path) -> None:
    table = find(tmp_path, go_elf("1.20", FUNCTIONS))
    for function in laid_out(FUNCTIONS):
        assert table.at(function.entry) == table.at(function.end - 1) == function
    end = laid_out(FUNCTIONS)[-1].end
    for outside in (0, TEXT - 1, end, 1 << 63, 1 << 65, -1):
        assert table.at(outside) is None


@pytest.mark.parametrize("pie", [False, True])
def test_the_text_start_comes_from_moduledata_where_the_header_has_none(tmp_path: Path, pie: bool) -> None:
    # Go 1.26 and later write 0; Go before may leave an unrelocated one.
    for header_text in (0, 0x1234):
        table = find(tmp_path, go_elf("1.20", FUNCTIONS, pie=pie, header_text=header_text))
        assert table.text_start == TEXT
        assert table.at(TEXT) == laid_out(FUNCTIONS)[0]


def test_without_moduledata_the_header_is_believed_if_it_points_at_code(tmp_path: Path) -> None:
    table = find(tmp_path, go_elf("1.18", FUNCTIONS, moduledata=False))
    assert (table.text_start, table.moduledata) == (TEXT, None)
    with pytest.raises(BinaryError, match="start of Go's text"):
        find(tmp_path, go_elf("1.20", FUNCTIONS, moduledata=False, header_text=0))
    with pytest.raises(BinaryError, match="not in the program's code"):
        find(tmp_path, go_elf("1.20", FUNCTIONS, moduledata=False, header_text=RODATA))


@pytest.mark.parametrize("version", VERSIONS)
def test_another_programs_table_in_the_data_is_not_taken(tmp_path: Path, version: str) -> None:
    other = encode_pclntab(version, [("other.main", 16)]).raw
    decoy = other + bytes(-len(other) % 8)
    table = find(tmp_path, go_elf(version, FUNCTIONS, decoy=decoy))
    assert table.address == RODATA + len(decoy)
    assert list(table) == laid_out(FUNCTIONS)


def test_a_program_without_a_table_is_said_to_be_no_go_program(tmp_path: Path) -> None:
    elf = go_elf("1.20", FUNCTIONS)
    elf.parts = [part for part in elf.parts if part.name != ".gopclntab"]
    with pytest.raises(BinaryError, match="no Go program"):
        find(tmp_path, elf)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_table_that_is_cut_anywhere_is_malformed_or_whole(version: str) -> None:
    raw = encode_pclntab(version, FUNCTIONS).raw
    for length in range(len(raw)):
        try:
            decoded = decode(raw[:length])
        except Malformed:
            continue
        assert [Function(f.name, f.entry, f.end) for f in FunctionTable(decoded, 0, TEXT, None)]


@settings(max_examples=300, deadline=None)
@given(version=st.sampled_from(VERSIONS), at=st.integers(0, 400), value=st.binary(min_size=1, max_size=8))
def test_a_damaged_table_is_malformed_or_usable(version: str, at: int, value: bytes) -> None:
    raw = bytearray(encode_pclntab(version, FUNCTIONS).raw)
    raw[at : at + len(value)] = value
    try:
        table = FunctionTable(decode(bytes(raw)), 0, TEXT, None)
    except Malformed:
        return
    for function in table:
        assert table.lookup(function.name) or not function.name or "\ufffd" in function.name
    table.lookup("runtime.mallocgc")
    table.extent_of(("runtime.", "main."))
    table.at(TEXT)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(functions=functions_strategy, version=st.sampled_from(VERSIONS), pie=st.booleans())
def test_any_functions_are_found_through_the_file(
    tmp_path: Path, functions: list[tuple[str, int]], version: str, pie: bool
) -> None:
    functions = [*functions, ("main.main", 16)]
    assert list(find(tmp_path, go_elf(version, functions, pie=pie))) == laid_out(functions)


@pytest.mark.parametrize("version", VERSIONS)
def test_names_left_in_the_file_are_found_as_before(tmp_path: Path, version: str) -> None:
    with Executable.open(write(tmp_path / "program", elf_file(go_elf(version, FUNCTIONS)))) as exe:
        table = FunctionTable.find(exe)
        before = list(table), [table.lookup(name) for name, _ in FUNCTIONS], table.lookup("main.missing")
        table.leave_names_in(exe)
        assert (list(table), [table.lookup(name) for name, _ in FUNCTIONS], table.lookup("main.missing")) == before
        assert table.at(TEXT + 64) == before[0][1]
