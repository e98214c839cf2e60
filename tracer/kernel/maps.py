"""The mappings of a process: /proc/PID/maps as columns.

The parser is pure and works on many lines at once: 100,000 mappings are not rare in a large process. A hostile one has
as many with a path of four kilobytes each, so the file is parsed as it is read, and no path is kept twice.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Addresses, Ranges, addresses, normalise
from gomem.tracer.errors import SnapshotError, TooLarge
from gomem.tracer.machine.room import room_for_one
from gomem.tracer.process.target import Target

# The gate page that the kernel shows in every process: not in its mm, so VmSize does not count it.
GATE = "[vsyscall]"
MAX_MAPS_BYTES = 512 << 20
# A list that takes the kernel this many bytes of text is not asked for again only because it was torn.
_LARGE = 16 << 20
_PIECE = 1 << 20
# What we hold of a mapping: its columns, as often again while they are put together, and what the join makes of them.
_MAPPING_HELD = 512
# Of all paths together; once that many are kept, only the ends of further ones are.
_NAMES_HELD = 8 << 20
_SHORT_NAME = 64
_LINE = re.compile(
    rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][sp]) ([0-9a-f]{1,16}) ([0-9a-f]{1,8}:[0-9a-f]{1,8}) (\d{1,20})"
    rb"(?: +(.*))?$",
    re.MULTILINE,
)
_U64 = 2**64 - 1
_PAGE = os.sysconf("SC_PAGESIZE")

T = TypeVar("T")

Flags = NDArray[np.bool_]


class Mappings(Struct, frozen=True):
    """The mappings of a process in order of address: columns of one length, addresses and sizes in bytes.

    Source: show_map_vma in fs/proc/task_mmu.c.
    """

    start: Addresses
    end: Addresses
    readable: Flags
    writable: Flags
    executable: Flags
    shared: Flags  # MAP_SHARED
    offset: Addresses  # in the file
    device: NDArray[np.uint64]  # as os.makedev makes it; 0 for anonymous memory
    inode: NDArray[np.uint64]  # 0 for anonymous memory
    name: list[str]  # path, "[heap]", "[anon: Go: heap]", "... (deleted)", or ""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def virtual_bytes(self) -> int:
        """The sum of all sizes."""
        return int(np.sum(self.end - self.start, dtype=np.uint64))

    def ranges(self) -> Ranges:
        """Return the mapped addresses; mappings that touch are joined."""
        return normalise(self.start, self.end)

    def select(self, keep: Flags) -> Mappings:
        """Return the mappings where `keep` (shape (n,)) is true."""
        return Mappings(
            self.start[keep], self.end[keep], self.readable[keep], self.writable[keep], self.executable[keep],
            self.shared[keep], self.offset[keep], self.device[keep], self.inode[keep],
            [name for name, kept in zip(self.name, keep.tolist(), strict=True) if kept],
        )  # fmt: skip

    def find(self, points: Addresses) -> NDArray[np.intp]:
        """Return for each address the index of its mapping, or -1."""
        if len(self) == 0:
            return np.full(len(points), -1, dtype=np.intp)
        index = np.searchsorted(self.start, points, side="right") - 1
        inside = (index >= 0) & (points < self.end[index])
        return np.where(inside, index, -1)


class Names:
    """The different names in one file of mappings, each kept once; bounded, so that some are only kept in part."""

    def __init__(self, held: int = _NAMES_HELD) -> None:
        """`held`: bytes that whole names may take together."""
        self._known: dict[bytes, str] = {}
        self._left = held

    def of(self, word: bytes) -> str:
        """Return the name that stands in the file as `word`."""
        name = self._known.get(word)
        if name is not None:
            return name
        if len(word) > self._left:
            return _name(b"..." + word[-_SHORT_NAME:])
        self._left -= len(word)
        name = self._known[word] = _name(word)
        return name


def parse_maps(raw: bytes, names: Names | None = None) -> Mappings:
    """Parse the text of /proc/PID/maps, the gate page included; `names` are those of the same file's other parts.

    A line that is none of the kernel's (a file cut short ends in one) is passed over. Never raises.
    """
    names = names or Names()
    lines = _LINE.findall(raw)
    columns = zip(*lines, strict=True) if lines else ((),) * 7
    start, end, flags, offset, device, inode, name = columns
    letters = np.array(flags, dtype="S4").view(np.uint8).reshape(-1, 4)
    return Mappings(
        start=_hex(start),
        end=_hex(end),
        readable=letters[:, 0] == ord("r"),
        writable=letters[:, 1] == ord("w"),
        executable=letters[:, 2] == ord("x"),
        shared=letters[:, 3] == ord("s"),
        offset=_hex(offset),
        device=addresses(_each(device, _device)),
        inode=addresses([int(word) & _U64 for word in inode]),
        name=[names.of(word) for word in name],
    )


def _hex(words: tuple[bytes, ...]) -> Addresses:
    return addresses([int(word, 16) for word in words])


def _each(words: tuple[bytes, ...], convert: Callable[[bytes], T]) -> list[T]:
    """Convert every word; few of them differ, so each is converted once."""
    known = {word: convert(word) for word in set(words)}
    return [known[word] for word in words]


def _device(word: bytes) -> int:
    major, minor = word.split(b":")
    return os.makedev(int(major, 16), int(minor, 16))


def _name(word: bytes) -> str:
    # The kernel escapes only the newline, and leaves a backslash as it is.
    return word.replace(rb"\012", b"\n").decode("utf-8", errors="backslashreplace")


class MappingsRead(Struct, frozen=True):
    """Mappings without the gate page, and how well they fit VmSize: 0 skew means they were read in one piece.

    `read_at`: when the reading began and ended, CLOCK_MONOTONIC ns.
    """

    mappings: Mappings
    vm_size: int
    skew_bytes: int
    attempts: int
    read_at: tuple[int, int]


def read_mappings(target: Target, attempts: int = 5) -> MappingsRead:
    """Read the mappings of a live process until their sum is VmSize, at most `attempts` times.

    The kernel hands maps out some kilobytes at a time, so a process that maps and unmaps can give a torn list;
    the one that is nearest to VmSize is returned. Raises TargetGone, NotPermitted, and TooLarge where there
    are more mappings than gomem is ready to hold.
    """
    best: MappingsRead | None = None
    for attempt in range(1, attempts + 1):
        began = time.monotonic_ns()
        before = read_vm_size(target)
        mappings, size = _read_and_parse(target)
        after = read_vm_size(target)
        mappings = disjoint(mappings)
        if len(mappings) == 0:
            target.check_alive()
        total = mappings.virtual_bytes
        nearest = before if abs(total - before) < abs(total - after) else after
        read = MappingsRead(mappings, nearest, abs(total - nearest), attempt, (began, time.monotonic_ns()))
        if best is None or read.skew_bytes < best.skew_bytes:
            best = read
        if total == before == after or size > _LARGE:
            break
    assert best is not None
    return best


def _read_and_parse(target: Target) -> tuple[Mappings, int]:
    """Return the mappings as the file lists them, and the size of the text. Raises as `read_mappings`."""
    names, room = Names(), room_for_one()
    parts: list[Mappings] = []
    rest, size = b"", 0
    for piece in target.read_pieces("maps", _PIECE):
        size += len(piece)
        if size > MAX_MAPS_BYTES:
            raise TooLarge(f"process {target.pid} has more than {MAX_MAPS_BYTES >> 20} MB of /proc/PID/maps")
        lines, _, rest = (rest + piece).rpartition(b"\n")
        parts.append(parse_maps(lines, names))
        try:
            room.take(len(parts[-1]), _MAPPING_HELD, "mappings")
        except SnapshotError as error:
            raise TooLarge(error.what, error.fix) from None
    return _joined([*parts, parse_maps(rest, names)]), size


def _joined(parts: list[Mappings]) -> Mappings:
    columns = [name for name in Mappings.__struct_fields__ if name != "name"]
    return Mappings(
        **{column: np.concatenate([getattr(part, column) for part in parts]) for column in columns},
        name=[name for part in parts for name in part.name],
    )


def read_vm_size(target: Target) -> int:
    """Return VmSize of the moment, from /proc/PID/statm (the same counter, mm->total_vm, cheaper to read)."""
    words = target.read("statm").split()
    return int(words[0]) * _PAGE if words else 0


def disjoint(mappings: Mappings) -> Mappings:
    """Return the mappings without the gate page, none overlapping another.

    Two mappings that merge between two reads of the file show up twice, the second time with the first inside.
    """
    start = mappings.start
    if len(mappings) > 1:
        highest = np.maximum.accumulate(mappings.end)
        start = np.concatenate((start[:1], np.maximum(start[1:], highest[:-1])))
    keep = (start < mappings.end) & np.array([name != GATE for name in mappings.name], dtype=np.bool_)
    return replace(mappings, start=start).select(keep)
