from __future__ import annotations

import os

import pytest

from gomem.tracer.kernel.mapping_kinds import Program, mapping_kinds
from gomem.tracer.kernel.maps import parse_maps
from gomem.tracer.report import KINDS

DEVICE = os.makedev(8, 1)
PROGRAM = Program(DEVICE, 100, ((0x400000, 0x600000), (0x600000, 0x700000)))
TEXT = "08:01 100   /app"
LIBC = "08:01 7   /lib/libc.so.6"


def kinds(*lines: str, program: Program | None = PROGRAM) -> list[str]:
    return [KINDS[number] for number in mapping_kinds(parse_maps("\n".join(lines).encode()), program)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("00400000-00500000 r-xp 0 " + TEXT, "binary"),
        ("00500000-00600000 rw-p 0 " + TEXT, "binary"),
        ("00610000-00620000 rw-p 0 00:00 0 ", "binary"),  # bss
        ("006f0000-00710000 rw-p 0 00:00 0 ", "other"),  # half of it leaves the segment
        ("00900000-00a00000 r--p 0 08:01 9   /data", "file"),
        ("00900000-00a00000 rw-s 0 00:05 9   /dev/zero (deleted)", "file"),
        ("00900000-00a00000 rw-p 0 00:00 0   [heap]", "c_heap"),
        ("00900000-00a00000 rw-p 0 00:00 0   [stack]", "thread_stack"),
        ("00900000-00a00000 rw-p 0 00:00 0   [stack:77]", "other"),  # where a stack pointer was, up to Linux 4.4
        ("00900000-00a00000 rw-p 0 00:00 0   [anon: glibc: pthread stack: 77]", "thread_stack"),
        ("00900000-00a00000 rw-p 0 00:00 0   [anon: glibc: malloc arena]", "c_heap"),
        ("00900000-00a00000 rw-p 0 00:00 0   [anon: glibc: loader malloc]", "c_heap"),
        ("00900000-00a00000 rw-p 0 00:00 0   [anon:jemalloc_pg]", "c_heap"),
        ("00900000-00a00000 rw-p 0 00:00 0   [anon:tcmalloc_region_NORMAL]", "c_heap"),
        ("00900000-00a00000 rw-p 0 00:00 0   [anon:my own cache]", "other"),
        ("00900000-00a00000 r-xp 0 00:00 0   [vdso]", "vdso"),
        ("00900000-00a00000 r--p 0 00:00 0   [vvar]", "vdso"),
        ("00900000-00a00000 r--p 0 00:00 0   [vvar_vclock]", "vdso"),
        ("00900000-00a00000 r-xp 0 00:00 0   [uprobes]", "vdso"),
        ("00900000-00a00000 rw-p 0 00:00 0   [anon: Go: heap]", "runtime_other"),
        ("00900000-00a00000 rw-p 0 00:00 0   [anon:malloc]", "other"),
        ("00900000-00a00000 rw-p 0 00:00 0   [no kernel has this yet]", "other"),
        ("00900000-00a00000 rw-p 0 00:00 0 ", "other"),
        ("00900000-00a00000 ---p 0 00:00 0 ", "other"),
    ],
)
def test_each_mapping_has_the_kind_of_what_the_kernel_says_of_it(line: str, kind: str) -> None:
    assert kinds(line) == [kind]


def test_all_of_a_file_that_is_executable_somewhere_is_a_shared_library_and_so_is_its_bss() -> None:
    assert kinds(
        "7f0000000000-7f0000001000 r--p 0 " + LIBC,
        "7f0000001000-7f0000002000 r-xp 0 " + LIBC,
        "7f0000002000-7f0000003000 rw-p 0 " + LIBC,
        "7f0000003000-7f0000005000 rw-p 0 00:00 0 ",
        "7f0000005000-7f0000006000 rw-p 0 00:00 0 ",
        "7f0000007000-7f0000008000 rw-p 0 00:00 0 ",
    ) == [*["shared_library"] * 5, "other"]


def test_what_may_not_be_written_behind_a_library_is_not_its_bss() -> None:
    assert kinds("7f0000001000-7f0000002000 r-xp 0 " + LIBC, "7f0000002000-7f0000003000 ---p 0 00:00 0 ")[1] == "other"


def test_the_same_inode_on_another_device_is_another_file() -> None:
    assert kinds("00400000-00500000 r--p 0 08:02 100   /app") == ["file"]


def test_without_a_program_its_file_is_a_library_like_any_other() -> None:
    lines = ("00400000-00500000 r-xp 0 " + TEXT, "00610000-00620000 rw-p 0 00:00 0 ")
    assert kinds(*lines, program=None) == ["shared_library", "other"]


def test_no_mappings_have_no_kinds() -> None:
    assert kinds() == []


def test_a_segment_covers_what_lies_within_it() -> None:
    assert PROGRAM.covers(0x400000, 0x600000)
    assert not PROGRAM.covers(0x3FF000, 0x401000)
    assert not PROGRAM.covers(0x5FF000, 0x601000)
