"""The file of a recording: what is written comes back, and what is damaged is told and passed over."""

from __future__ import annotations

import os
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.tracer.errors import GomemError
from gomem.tracer.recording.frames import HEAD_BYTES, MAGIC, Damage, Frame, FrameReader, FrameWriter, RecordingError

HEADER = {"gomem": "0", "events": []}
PAYLOADS = [b"first" * 100, b"", b"\x00" * 5000, b"GmFr" * 20, bytes(range(256))]


def write(path: Path, payloads: list[bytes]) -> bytes:
    path.unlink(missing_ok=True)
    writer = FrameWriter(str(path))
    writer.begin(dict(HEADER))
    for number, payload in enumerate(payloads):
        writer.write(number % 3 + 1, 1000 + number, payload)
    writer.close()
    return path.read_bytes()


def read(path: Path) -> list[Frame | Damage]:
    reader = FrameReader(str(path))
    try:
        return list(reader.frames())
    finally:
        reader.close()


def payloads(found: list[Frame | Damage]) -> list[bytes]:
    return [one.payload() for one in found if isinstance(one, Frame)]


def offsets(path: Path) -> list[int]:
    return [one.offset for one in read(path) if isinstance(one, Frame)]


def damages(found: list[Frame | Damage]) -> list[Damage]:
    return [one for one in found if isinstance(one, Damage)]


def test_frames_come_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path / "r", PAYLOADS)
    found = read(tmp_path / "r")
    assert payloads(found) == PAYLOADS
    assert [(one.kind, one.number, one.time) for one in found if isinstance(one, Frame)] == [
        (number % 3 + 1, number, 1000 + number) for number in range(len(PAYLOADS))
    ]


def test_a_file_cut_at_any_byte_gives_all_frames_before(tmp_path: Path) -> None:
    path = tmp_path / "r"
    raw = write(path, PAYLOADS)
    ends = [*offsets(path)[1:], len(raw)]
    first = offsets(path)[0]
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        if size < first:
            with pytest.raises(RecordingError):
                FrameReader(str(path))
            continue
        found = read(path)
        whole = sum(end <= size for end in ends)
        assert payloads(found) == PAYLOADS[:whole]
        at_border = size in (first, *ends)
        assert len(damages(found)) == (0 if at_border else 1)
        if not at_border:
            (damage,) = damages(found)
            assert damage.offset + damage.size == size
            assert damage.frames is None


def test_a_flipped_bit_costs_one_frame_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r"
    raw = write(path, PAYLOADS)
    starts = [*offsets(path), len(raw)]
    for at in range(starts[0], len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        hit = next(number for number, (low, high) in enumerate(pairwise(starts)) if low <= at < high)
        found = read(path)
        assert payloads(found) == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
        (damage,) = damages(found)
        assert (damage.offset, damage.size) == (starts[hit], starts[hit + 1] - starts[hit])
        assert damage.frames == (None if hit == len(PAYLOADS) - 1 else 1)


def test_frames_that_were_cut_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "r"
    raw = write(path, PAYLOADS)
    starts = offsets(path)
    path.write_bytes(raw[: starts[1]] + raw[starts[3] :])
    found = read(path)
    assert payloads(found) == [PAYLOADS[0], *PAYLOADS[3:]]
    assert [damage.frames for damage in damages(found)] == [2]


def forged(kind: int = 1, stored: bytes = b"", plain: int = 0, length: int | None = None) -> bytes:
    """Return a frame whose checksums are right, whatever it says."""
    head = struct.pack(
        "<4sHHIIIIQI", b"GmFr", kind, 0, 0, len(stored) if length is None else length, plain, zlib.crc32(stored), 0, 0
    )
    return head + struct.pack("<I", zlib.crc32(head)) + stored


@pytest.mark.parametrize(
    ("length", "plain", "what"),
    [(0xFFFFFFFF, 10, "claims"), (10, 0xFFFFFFFF, "claims"), (1 << 20, 10, "ends within")],
)
def test_declared_lengths_are_held_against_the_file(tmp_path: Path, length: int, plain: int, what: str) -> None:
    path = tmp_path / "r"
    raw = write(path, [])
    path.write_bytes(raw + forged(stored=b"0123456789", plain=plain, length=length))
    (damage,) = read(path)
    assert isinstance(damage, Damage)
    assert what in damage.what


def bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(size))


def lying() -> bytes:
    """Return a zstandard frame that claims 2^62 bytes (RFC 8878: 8 bytes of content size, single segment)."""
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", 1 << 62) + b"\x01\x00\x00"


@pytest.mark.parametrize("stored", [bomb(1 << 20), lying(), b"no zstandard", b""], ids=["bomb", "lie", "junk", "empty"])
def test_decompression_never_gives_more_than_the_head_says(tmp_path: Path, stored: bytes) -> None:
    path = tmp_path / "r"
    raw = write(path, [])
    path.write_bytes(raw + forged(stored=stored, plain=100))
    (frame,) = read(path)
    assert isinstance(frame, Frame)
    with pytest.raises(RecordingError, match="frame 0"):
        frame.payload()


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_file_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "r"
    path.write_bytes(MAGIC + junk)
    try:
        found = read(path)
    except RecordingError:
        return
    assert sum(one.size for one in damages(found)) <= len(junk)


def test_a_version_of_the_future_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r"
    raw = write(path, [])
    path.write_bytes(raw[:8] + struct.pack("<H", 9) + raw[10:])
    with pytest.raises(RecordingError, match="version 9") as caught:
        FrameReader(str(path))
    assert "gomem" in caught.value.fix


def test_a_file_of_another_kind_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("three years of work")
    with pytest.raises(GomemError, match="is no recording"):
        FrameWriter(str(path))
    assert path.read_text() == "three years of work"
    writer = FrameWriter(str(path), force=True)
    writer.begin(dict(HEADER))
    writer.close()
    assert read(path) == []
    write(path, PAYLOADS)  # a recording is replaced
    assert payloads(read(path)) == PAYLOADS


def test_a_recording_that_never_began_leaves_things_as_they_were(tmp_path: Path) -> None:
    FrameWriter(str(tmp_path / "new")).close()
    assert not (tmp_path / "new").exists()
    raw = write(tmp_path / "old", PAYLOADS)
    FrameWriter(str(tmp_path / "old")).close()
    assert (tmp_path / "old").read_bytes() == raw


def test_two_writers_do_not_share_a_file(tmp_path: Path) -> None:
    first = FrameWriter(str(tmp_path / "r"))
    first.begin(dict(HEADER))
    with pytest.raises(GomemError, match="another gomem"):
        FrameWriter(str(tmp_path / "r"))
    first.close()


@pytest.mark.parametrize("where", ["/dev/null", "/nonexistent/r", "/proc"])
def test_what_cannot_grow_is_refused(where: str) -> None:
    with pytest.raises(GomemError, match=r"cannot (write|record)"):
        FrameWriter(where)


def test_a_full_disk_leaves_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"
    writer = FrameWriter(str(path))
    writer.begin(dict(HEADER))
    writer.write(1, 0, b"kept" * 100)
    size = path.stat().st_size
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) > 7:
            return real(fd, data[:7])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(GomemError, match="No space left") as caught:
        writer.write(1, 0, os.urandom(60))
    monkeypatch.undo()
    writer.close()
    assert "gomem replay" in caught.value.fix
    assert path.stat().st_size == size
    assert payloads(read(path)) == [b"kept" * 100]


def test_a_growing_recording_can_be_read(tmp_path: Path) -> None:
    writer = FrameWriter(str(tmp_path / "r"))
    writer.begin(dict(HEADER))
    for number, payload in enumerate(PAYLOADS, 1):
        writer.write(1, 0, payload)
        assert payloads(read(tmp_path / "r")) == PAYLOADS[:number]
    writer.close()


def test_only_its_owner_may_read_a_recording(tmp_path: Path) -> None:
    write(tmp_path / "r", PAYLOADS)
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600
    assert HEAD_BYTES == 40
