from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.tracer.binary.buildinfo import BuildInfo, Module, parse_modules, read_build_info
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError
from tests.support.samples.executables import (
    BUILD_MAGIC,
    DATA,
    RODATA,
    Elf,
    Part,
    elf_file,
    framed,
    inline_build_info,
    write,
)

LINES = (
    "path\texample.com/shop/cmd/till\n"
    "mod\texample.com/shop\tv1.2.3\t\n"
    "dep\texample.com/a\tv0.1.0\th1:abc=\n"
    "dep\texample.com/b\tv0.2.0\n"
    "=>\texample.com/fork\tv0.2.1\th1:def=\n"
    "build\t-compiler=gc\n"
    'build\t-ldflags="-s -w -X \'main.v=\\"1\\"\'"\n'
    "build\t-tags=a=b\n"
    'build\t"odd key"=`raw \\n`\n'
    "build\tCGO_ENABLED=0\n"
)
EXPECTED = BuildInfo(
    go_version="go1.23.9",
    main_path="example.com/shop/cmd/till",
    main_module="example.com/shop",
    main_version="v1.2.3",
    settings={
        "-compiler": "gc",
        "-ldflags": "-s -w -X 'main.v=\"1\"'",
        "-tags": "a=b",
        "odd key": "raw \\n",
        "CGO_ENABLED": "0",
    },
    dependencies=(
        Module("example.com/a", "v0.1.0"),
        Module("example.com/b", "v0.2.0", Module("example.com/fork", "v0.2.1")),
    ),
)


def read(tmp_path: Path, elf: Elf) -> BuildInfo | None:
    with Executable.open(write(tmp_path / "program", elf_file(elf))) as exe:
        return read_build_info(exe)


def pointer_build_info(at: int) -> bytes:
    """Encode the format of Go 1.13 to 1.17: the header points at two Go strings."""
    modules = framed(LINES)
    header = BUILD_MAGIC + bytes([8, 0]) + struct.pack("<QQ", at + 32, at + 48)
    return header + struct.pack("<4Q", at + 64, 8, at + 72, len(modules)) + b"go1.23.9" + modules


@pytest.mark.parametrize("section_headers", [True, False])
def test_inline_strings_are_read(tmp_path: Path, section_headers: bool) -> None:
    # Without sections the magic counts only at multiples of 16.
    content = b"\1" * 40 + BUILD_MAGIC + bytes(10) + inline_build_info("go1.23.9", LINES)
    if section_headers:
        content = content[64:]
    elf = Elf([Part(".go.buildinfo", DATA, content, 6)], section_headers=section_headers)
    assert read(tmp_path, elf) == EXPECTED


def test_pointed_at_strings_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, Elf([Part(".go.buildinfo", DATA, pointer_build_info(DATA), 6)])) == EXPECTED


def test_pointed_at_strings_of_a_pie_are_read_through_its_relocations(tmp_path: Path) -> None:
    content = bytearray(pointer_build_info(DATA))
    relocations = {}
    for offset in (16, 24, 32, 48):
        relocations[DATA + offset] = int.from_bytes(content[offset : offset + 8], "little")
        content[offset : offset + 8] = bytes(8)
    elf = Elf([Part(".go.buildinfo", DATA, bytes(content), 6)], pie=True, relocations=relocations)
    assert read(tmp_path, elf) == EXPECTED


def test_a_string_of_modules_that_lies_in_bss_is_empty(tmp_path: Path) -> None:
    """Go 1.13 without modules: the linker leaves runtime.modinfo to the zero pages behind the data."""
    content = bytearray(pointer_build_info(DATA))
    content[24:32] = (DATA + len(content) + 64).to_bytes(8, "little")
    elf = Elf([Part(".go.buildinfo", DATA, bytes(content), 6, extra_memory=4096)])
    assert read(tmp_path, elf) == BuildInfo("go1.23.9")
    content[24:32] = (DATA + len(content) + 8192).to_bytes(8, "little")
    with pytest.raises(BinaryError):
        read(tmp_path, Elf([Part(".go.buildinfo", DATA, bytes(content), 6, extra_memory=4096)]))


def test_a_program_without_modules_still_tells_its_release(tmp_path: Path) -> None:
    elf = Elf([Part(".go.buildinfo", DATA, inline_build_info("go1.21.0 X:boringcrypto", ""), 6)])
    assert read(tmp_path, elf) == BuildInfo("go1.21.0 X:boringcrypto")


def test_what_is_no_go_program_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, Elf([Part(".data", DATA, bytes(4096), 6)])) is None


def test_the_magic_in_a_programs_own_data_is_not_mistaken_for_it(tmp_path: Path) -> None:
    own = BUILD_MAGIC + b"\x08\x02" + b"\xff" * 48
    elf = Elf(
        [Part("a", RODATA, own, 4), Part("b", DATA, own + inline_build_info("go1.23.9", LINES), 6)],
        section_headers=False,
    )
    assert read(tmp_path, elf) == EXPECTED


@pytest.mark.parametrize(
    "content",
    [
        b"no magic here, but the section has the name",
        BUILD_MAGIC + b"\x08\x02",
        BUILD_MAGIC + b"\x08\x02" + bytes(16) + b"\xff" * 20,
        BUILD_MAGIC + b"\x08\x02" + bytes(16) + b"\x08go1.23",
        BUILD_MAGIC + b"\x08\x01" + bytes(64),
        BUILD_MAGIC + b"\x04\x00" + bytes(64),
        BUILD_MAGIC + b"\x08\x00" + struct.pack("<4Q", DATA + 32, 0, DATA, 1 << 62),
        BUILD_MAGIC + b"\x08\x00" + struct.pack("<4Q", 1 << 63, 1 << 63, 0, 0),
    ],
)
def test_broken_build_information_is_an_error_not_none(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BinaryError):
        read(tmp_path, Elf([Part(".go.buildinfo", DATA, content, 6)]))


@given(st.text(), st.text(max_size=300))
def test_any_module_lines_can_be_parsed(version: str, lines: str) -> None:
    assert parse_modules(version, lines).go_version == version


@given(st.lists(st.tuples(st.sampled_from(["path", "mod", "dep", "=>", "build"]), st.text(max_size=20))))
def test_any_columns_can_be_parsed(rows: list[tuple[str, str]]) -> None:
    parse_modules("go1", "".join(f"{kind}\t{rest}\n" for kind, rest in rows))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(content=st.binary(max_size=200), inline=st.booleans())
def test_any_bytes_behind_the_magic_end_in_a_result_or_a_binary_error(
    tmp_path: Path, content: bytes, inline: bool
) -> None:
    elf = Elf([Part(".go.buildinfo", DATA, BUILD_MAGIC + bytes([8, 2 * inline]) + content, 6)])
    with contextlib.suppress(BinaryError):
        read(tmp_path, elf)
