"""The file of a recording: a header and frames, append-only, each frame checked and compressed by itself.

    file    = header frame*
    header  = MAGIC (8 bytes), u16 version, u16 0, u32 length, u32 CRC-32 of the text, text (JSON, `length` bytes)
    frame   = head (40 bytes), payload (`stored` bytes: zstandard, with the content size in its own header)
    head    = "GmFr", u16 kind, u16 0, u32 number, u32 stored, u32 plain, u32 CRC-32 of the payload,
              u64 time (CLOCK_MONOTONIC ns of the last thing in it), u32 0, u32 CRC-32 of the 36 bytes before

All numbers are little-endian; frames are numbered from 0 without gaps. A frame is written by one write(2): a
writer that dies leaves a whole number of frames, or one that is cut, and nothing behind it. A reader that finds a
bad head looks for the next good one; the numbers tell how many frames were lost between.

Nothing in a file is trusted: lengths are held against the file and against MAX_STORED and MAX_PLAIN before anything
is read or decompressed, so that one frame at a time, of at most their sum, is in memory. What a frame holds is bounded
by how long it is in the file (`Worth`), and what is read in search of frames by the file's size (WASTED): so is the
time that it takes to go through a file. The writer keeps to the same bounds: a frame that compresses too well is
filled up, with a frame of zstandard's that readers skip.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import zstandard

from gomem.tracer.errors import GomemError

MAGIC = b"\x89gomem\r\n"
VERSION = 1
MAX_STORED = 128 << 20
MAX_PLAIN = 256 << 20
MAX_HEADER = 1 << 16

_START = struct.Struct("<8sHHII")
_HEAD = struct.Struct("<4sHHIIIIQI")
_SYNC = b"GmFr"
_CRC = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CRC.size
# Offsets in a head of bytes that are always the same: the mark, and what is kept for later.
_FIXED = [*enumerate(_SYNC), (6, 0), (7, 0), *((at, 0) for at in range(32, 36))]
_SCAN = 1 << 20
# How often the file's size may be read in vain: payloads of heads that are good, of frames that are not.
WASTED = 4
_LEVEL = 3
# https://github.com/facebook/zstd/blob/dev/doc/zstd_compression_format.md, skippable frames: magic number, size
_SKIPPED = struct.Struct("<II")
_SKIPPED_MAGIC = 0x184D2A50


@dataclass(frozen=True, slots=True)
class Worth:
    """How many of something a frame may hold: `least`, and `per_byte` more for each byte that it takes in the file.

    Compression makes thousands of equal things out of a byte. What was measured differs: no event, batch or value of a
    real recording takes less than a byte or two. Where one does, the writer spends the bytes.
    """

    least: int
    per_byte: int

    def most(self, stored: int) -> int:
        """Return how many a frame of `stored` bytes may hold."""
        return self.least + stored * self.per_byte

    def bytes_for(self, count: int) -> int:
        """Return of how many bytes a frame has to be to hold so many."""
        return -(-max(count - self.least, 0) // self.per_byte)


_PLAIN = Worth(1 << 18, 1000)  # bytes of a payload: zstandard makes up to 30,000 of one


Tick = Callable[[int, int], None]


class RecordingError(GomemError):
    """A file is no recording, or none that this gomem can read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One intact frame, still compressed; `offset` is where its head begins in the file, in bytes."""

    kind: int
    number: int
    time: int
    offset: int
    plain: int
    stored: bytes

    def payload(self) -> bytes:
        """Return the decompressed payload; raises RecordingError if it is not what the head says."""
        try:
            if self.plain > _PLAIN.most(len(self.stored)):
                raise RecordingError(f"frame {self.number} claims {self.plain} bytes in {len(self.stored)}")
            told = zstandard.get_frame_parameters(self.stored)
            # Before decompressing: a one-shot decompression allocates what the payload claims to hold.
            if told.content_size != self.plain:
                raise RecordingError(f"frame {self.number} claims two sizes")
            payload = zstandard.ZstdDecompressor().decompress(self.stored, max_output_size=self.plain)
        except zstandard.ZstdError as error:
            raise RecordingError(f"frame {self.number} cannot be decompressed: {error}") from error
        if len(payload) != self.plain:
            raise RecordingError(f"frame {self.number} is not as long as it claims")
        return payload


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of the file that holds no intact frame: from `offset`, `size` bytes, and what is wrong with it.

    `frames` is how many numbered frames are missing there, None where nobody can tell (the end).
    """

    offset: int
    size: int
    what: str
    frames: int | None


def is_recording(head: bytes) -> bool:
    """Tell whether a file that begins with `head` (at least 8 bytes of it) is a recording."""
    return head.startswith(MAGIC)


class FrameWriter:
    """Appends frames to a new recording. The file is locked while it grows; nothing is synced before `close`."""

    def __init__(self, path: str, *, force: bool = False) -> None:
        """Open `path`; it is emptied, if there is something in it, by `begin`.

        Raises GomemError when it cannot be written, when it is a file of another kind and `force` is not given, and
        when another gomem is recording into it.
        """
        self.path = path
        self.bytes = 0
        self._number = 0
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self._fd = _open(path, force)

    def begin(self, header: dict[str, object]) -> None:
        """Write the header, which is JSON; raises GomemError."""
        text = json.dumps(header, separators=(",", ":")).encode()
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise GomemError(f"cannot write {self.path}: {error.strerror}", "choose another file with -o") from error
        self._write(_START.pack(MAGIC, VERSION, 0, len(text), zlib.crc32(text)) + text)

    def write(self, kind: int, time: int, payload: bytes, at_least: int = 0) -> None:
        """Append one frame; raises GomemError when the disk is full, RecordingError when a frame cannot hold it.

        `at_least`: how many bytes it has to take for a reader to believe what it holds.
        """
        stored = self._compressor.compress(payload)
        missing = max(at_least, _PLAIN.bytes_for(len(payload))) - len(stored)
        if missing > 0:
            stored += _SKIPPED.pack(_SKIPPED_MAGIC, missing) + bytes(missing)
        if len(payload) > MAX_PLAIN or len(stored) > MAX_STORED:
            raise RecordingError(f"{len(payload)} bytes are more than a frame may hold")
        head = _HEAD.pack(_SYNC, kind, 0, self._number, len(stored), len(payload), zlib.crc32(stored), time, 0)
        self._write(head + _CRC.pack(zlib.crc32(head)) + stored)
        self._number += 1

    def close(self) -> None:
        """Bring the file to the disk and close it; an empty one is removed again."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
                if not os.fstat(self._fd).st_size:
                    os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1

    def _write(self, raw: bytes) -> None:
        rest = memoryview(raw)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            # What is there stays readable: take back the part of a frame that was written.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.bytes)
            raise GomemError(
                f"cannot write {self.path}: {error.strerror}",
                f"what was recorded until now is in it: gomem replay {self.path}" if self.bytes else "",
            ) from error
        self.bytes += len(raw)


def _open(path: str, force: bool) -> int:
    # Readable only to its owner: a recording has the command line and the addresses of a process.
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    except OSError as error:
        raise GomemError(f"cannot write {path}: {error.strerror}", "choose another file with -o") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise GomemError(f"cannot record into {path}: not a regular file", "choose another file with -o")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GomemError(f"another gomem is recording into {path}", "choose another file with -o") from error
        if status.st_size and not force and not is_recording(os.pread(descriptor, len(MAGIC), 0)):
            raise GomemError(f"{path} exists and is no recording", "choose another file with -o, or add --force")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class FrameReader:
    """Reads a recording, also one that is damaged or still growing."""

    def __init__(self, path: str, tick: Tick | None = None) -> None:
        """Open `path`; raises RecordingError if it is no recording or of a version that is not known.

        `tick` is told, again and again, how many of how many bytes have been read.
        """
        self.path = path
        self.position = 0  # how far `frames` has come, bytes
        self._tick = tick or _untold
        self._wasted = 0
        self._scanned = -_SCAN  # the piece of the file whose good heads are known: where it begins
        self._heads: list[tuple[int, int]] = []  # of which those that are behind us are gone
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RecordingError(f"cannot read {path}: {error.strerror}") from error
        try:
            self.size = os.fstat(self._fd).st_size
            self.version, self.header, self._first = self._read_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def frames(self) -> Iterator[Frame | Damage]:
        """Yield the frames in the order of the file, and a Damage for what is between them and is none."""
        position, number = self._first, 0
        self._wasted = 0
        while position < self.size:
            found = self._frame_at(position)
            self.position = position + (HEAD_BYTES + len(found.stored) if isinstance(found, Frame) else 0)
            self._tick(self.position, self.size)
            if isinstance(found, Frame):
                if found.number != number and found.number > number:
                    yield Damage(position, 0, "frames are missing", found.number - number)
                yield found
                position, number = position + HEAD_BYTES + len(found.stored), found.number + 1
                continue
            following = self._next_head(position + 1)
            lost = None if following is None else max(following[1] - number, 0)
            end = self.size if following is None else following[0]
            yield Damage(position, end - position, found, lost)
            if following is None:
                return
            position, number = following

    def _read_header(self) -> tuple[int, dict[str, object], int]:
        raw = os.pread(self._fd, _START.size, 0)
        if len(raw) < _START.size or not is_recording(raw):
            raise RecordingError(f"{self.path} is no recording of gomem")
        _, version, _, length, checksum = _START.unpack(raw)
        if version != VERSION:
            raise RecordingError(
                f"{self.path} is a recording of version {version}; this gomem reads version {VERSION}",
                "replay it with the gomem that made it, or a newer one",
            )
        text = os.pread(self._fd, min(length, MAX_HEADER), _START.size)
        if len(text) < length or zlib.crc32(text) != checksum:
            raise RecordingError(f"the header of {self.path} is damaged")
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecordingError(f"the header of {self.path} makes no sense") from error
        if not isinstance(header, dict):
            raise RecordingError(f"the header of {self.path} makes no sense")
        return version, header, _START.size + length

    def _head_at(self, position: int) -> tuple[int, ...] | None:
        return _read_head(os.pread(self._fd, HEAD_BYTES, position))

    def _frame_at(self, position: int) -> Frame | str:
        head = self._head_at(position)
        if head is None:
            short = self.size - position < HEAD_BYTES
            return "the file ends within a frame" if short else "no frame begins here"
        kind, number, stored, plain, checksum, time = head
        if stored > MAX_STORED or plain > MAX_PLAIN:
            return f"frame {number} claims {max(stored, plain)} bytes"
        if stored > self.size - position - HEAD_BYTES:
            return "the file ends within a frame"
        if self._wasted > WASTED * self.size:
            return f"frame {number} is not looked at: too much of the file is damaged"
        payload = os.pread(self._fd, stored, position + HEAD_BYTES)
        if len(payload) < stored or zlib.crc32(payload) != checksum:
            self._wasted += stored
            return f"frame {number} is damaged (checksum)"
        return Frame(kind, number, time, position, plain, payload)

    def _next_head(self, position: int) -> tuple[int, int] | None:
        """Return offset and number of the next frame whose head is good, at or after `position`."""
        while position < self.size:
            if not self._scanned <= position < self._scanned + _SCAN:
                self._scanned = position
                self._heads = _good_heads(os.pread(self._fd, _SCAN + HEAD_BYTES - 1, position), position)
            while self._heads and self._heads[-1][0] < position:
                self._heads.pop()
            if self._heads:
                return self._heads[-1]
            position = self._scanned + _SCAN
            self._tick(min(position, self.size), self.size)
        return None


def _untold(read: int, size: int) -> None:
    del read, size


def _good_heads(piece: bytes, offset: int) -> list[tuple[int, int]]:
    """Return the offset and the number of each good head in a piece of the file that is at `offset`, the last first."""
    heads = ((at, _read_head(piece[at : at + HEAD_BYTES])) for at in reversed(_possible_heads(piece)))
    return [(offset + at, head[1]) for at, head in heads if head is not None]


def _possible_heads(piece: bytes) -> list[int]:
    """Return where in a piece of the file the bytes stand that are the same in every head."""
    raw = np.frombuffer(piece, np.uint8)
    starts = max(len(raw) - HEAD_BYTES + 1, 0)
    possible = np.ones(starts, np.bool_)
    for at, byte in _FIXED:
        possible &= raw[at : at + starts] == byte
    found: list[int] = np.flatnonzero(possible).tolist()
    return found


def _read_head(raw: bytes) -> tuple[int, ...] | None:
    """Return the fields of a good head: kind, number, stored, plain, checksum, time."""
    if len(raw) < HEAD_BYTES or not raw.startswith(_SYNC):
        return None
    if zlib.crc32(raw[: _HEAD.size]) != _CRC.unpack_from(raw, _HEAD.size)[0]:
        return None
    _, kind, _, number, stored, plain, checksum, time, _ = _HEAD.unpack_from(raw)
    return kind, number, stored, plain, checksum, time
