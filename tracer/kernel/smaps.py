"""What the kernel adds up itself: /proc/PID/smaps_rollup, and the full smaps where there is nothing better.

Source: Documentation/filesystems/proc.rst and fs/proc/task_mmu.c. Both files walk the page tables of the
target, which costs about as much as it has resident pages.
"""

from __future__ import annotations

import re

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Addresses, addresses
from gomem.tracer.errors import SnapshotError, TooLarge
from gomem.tracer.machine.room import room_for_one
from gomem.tracer.proc.small_files import colon_fields, kib_field
from gomem.tracer.process.target import Target

_KIB = 1024
MAX_SMAPS_BYTES = 1 << 30
_PIECE = 1 << 20
# What we hold of a mapping: its two dozen columns, and as often again while they are put together.
_ROW_HELD = 512
_HEADER = re.compile(rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) [r-][w-][x-][sp] ", re.MULTILINE)


class Rollup(Struct, frozen=True):
    """Sums over all mappings, in bytes; None where this kernel has no such line.

    Rss and everything under it leave out hugetlb pages, the zero page and special mappings such as [vvar].
    """

    rss: int | None
    pss: int | None
    pss_anon: int | None
    pss_file: int | None
    pss_shmem: int | None
    shared_clean: int | None
    shared_dirty: int | None
    private_clean: int | None
    private_dirty: int | None
    referenced: int | None
    anonymous: int | None
    lazy_free: int | None
    anon_huge_pages: int | None
    shmem_pmd_mapped: int | None
    file_pmd_mapped: int | None
    shared_hugetlb: int | None
    private_hugetlb: int | None
    swap: int | None
    swap_pss: int | None
    locked: int | None


_SPECIAL_NAMES = {
    "lazy_free": "LazyFree",
    "anon_huge_pages": "AnonHugePages",
    "shmem_pmd_mapped": "ShmemPmdMapped",
    "file_pmd_mapped": "FilePmdMapped",
    "swap_pss": "SwapPss",
}
# smaps_rollup's own name for each field; the words of the others are joined by "_" in both.
_KERNEL_NAMES = {
    name: _SPECIAL_NAMES.get(name, "_".join(word.capitalize() for word in name.split("_")))
    for name in Rollup.__struct_fields__
}
_COLUMNS = {kernel.encode() for kernel in _KERNEL_NAMES.values()}
_MAX_DIGITS = 16  # of a number of kB that still fits 64 bits as bytes


def parse_rollup(raw: bytes) -> Rollup:
    """Parse /proc/PID/smaps_rollup. Never raises: an odd or missing line is None."""
    lines = colon_fields(raw)
    return Rollup(**{name: kib_field(lines, kernel) for name, kernel in _KERNEL_NAMES.items()})


def read_rollup(target: Target) -> Rollup:
    """Read the sums of the moment. Before Linux 4.14 they are added up from the full smaps."""
    try:
        return parse_rollup(target.read("smaps_rollup"))
    except FileNotFoundError:
        return read_smaps(target).rollup()


class Smaps(Struct, frozen=True):
    """The full smaps: one row a mapping, in order of address; sizes in bytes, shape (n,).

    `fields` has the columns by the kernel's names ("Rss", "Swap", ...), 0 in mappings without such a line.
    """

    start: Addresses
    end: Addresses
    hugetlb: NDArray[np.bool_]  # mapped from hugetlbfs: VmFlags has "ht"
    special: NDArray[np.bool_]  # maps page frames, not pages: VmFlags has "pf" or "io"
    locked: NDArray[np.bool_]  # in RAM by mlock: VmFlags has "lo"
    advised: NDArray[np.bool_]  # MADV_HUGEPAGE: VmFlags has "hg"
    refused: NDArray[np.bool_]  # MADV_NOHUGEPAGE: VmFlags has "nh"
    fields: dict[str, NDArray[np.uint64]]

    def column(self, name: str) -> NDArray[np.uint64]:
        """Return the column of the kernel's field `name`, zeros if this kernel has none."""
        return self.fields.get(name, np.zeros(len(self.start), dtype=np.uint64))

    def rollup(self) -> Rollup:
        """Add the rows up."""
        sums = {name: int(np.sum(column)) for name, column in self.fields.items()}
        return Rollup(**{name: sums.get(kernel) for name, kernel in _KERNEL_NAMES.items()})


def parse_smaps(raw: bytes) -> Smaps:
    """Parse the text of /proc/PID/smaps; a row cut short keeps what it has. Never raises."""
    headers = list(_HEADER.finditer(raw))
    count = len(headers)
    columns: dict[str, NDArray[np.uint64]] = {}
    hugetlb, special, locked, advised, refused = (np.zeros(count, dtype=np.bool_) for _ in range(5))
    for row, header in enumerate(headers):
        end = headers[row + 1].start() if row + 1 < count else len(raw)
        # The header's own line may hold any text (a file name): it says nothing about sizes.
        _, _, body = raw[header.end() : end].partition(b"\n")
        for line in body.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"VmFlags":
                flags = value.split()
                hugetlb[row] = b"ht" in flags
                special[row] = b"pf" in flags or b"io" in flags
                locked[row] = b"lo" in flags
                advised[row] = b"hg" in flags
                refused[row] = b"nh" in flags
            elif name in _COLUMNS and value.endswith(b" kB"):
                number = value[:-3].strip()
                if number.isdigit() and len(number) <= _MAX_DIGITS:
                    column = columns.setdefault(name.decode("ascii"), np.zeros(count, dtype=np.uint64))
                    column[row] = int(number) * _KIB
    return Smaps(
        start=addresses([int(header[1], 16) for header in headers]),
        end=addresses([int(header[2], 16) for header in headers]),
        hugetlb=hugetlb,
        special=special,
        locked=locked,
        advised=advised,
        refused=refused,
        fields=columns,
    )


def read_smaps(target: Target) -> Smaps:
    """Read the full smaps: slow (some microseconds a mapping here, and the kernel's walk); a fallback only.

    Raises TargetGone, NotPermitted, and TooLarge where there are more mappings than gomem is ready to hold.
    """
    room, parts = room_for_one(), []
    rest, size = b"", 0
    for piece in target.read_pieces("smaps", _PIECE):
        size += len(piece)
        if size > MAX_SMAPS_BYTES:
            raise TooLarge(f"process {target.pid} has more than {MAX_SMAPS_BYTES >> 20} MB of /proc/PID/smaps")
        text = rest + piece
        *_, whole = (0, *(header.start() for header in _HEADER.finditer(text)))
        parts.append(parse_smaps(text[:whole]))
        rest = text[whole:]
        try:
            room.take(len(parts[-1].start), _ROW_HELD, "mappings")
        except SnapshotError as error:
            raise TooLarge(error.what, error.fix) from None
    return _joined([*parts, parse_smaps(rest)])


def _joined(parts: list[Smaps]) -> Smaps:
    names = dict.fromkeys(name for part in parts for name in part.fields)
    return Smaps(
        start=np.concatenate([part.start for part in parts]),
        end=np.concatenate([part.end for part in parts]),
        hugetlb=np.concatenate([part.hugetlb for part in parts]),
        special=np.concatenate([part.special for part in parts]),
        locked=np.concatenate([part.locked for part in parts]),
        advised=np.concatenate([part.advised for part in parts]),
        refused=np.concatenate([part.refused for part in parts]),
        fields={name: np.concatenate([part.column(name) for part in parts]) for name in names},
    )
