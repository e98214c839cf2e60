"""Files of pprof: what is written comes back, and a file from anywhere is read whole, or refused with a reason."""

from __future__ import annotations

import gzip
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gomem.exporters.pprof import decode as decoding
from gomem.exporters.pprof import profile_pb2 as pb
from gomem.exporters.pprof.decode import decode, read_profile
from gomem.exporters.pprof.encode import encode
from gomem.tracer.errors import GomemError
from gomem.tracer.machine.room import Room
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.profile import Profile
from tests.support.requirements import absent
from tests.support.samples.profiles import heap, hostile, profiles

ROOT = Path(__file__).resolve().parents[4]
SMALL = heap(("main;work;make", 3, 300), ("main;work", 1, 50))


@given(profiles())
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back(profile: Profile) -> None:
    assert decode(encode(profile)) == profile


def test_hostile_names_come_back() -> None:
    assert decode(encode(hostile())) == hostile()


def test_a_file_that_is_not_gzipped_is_read_too() -> None:
    assert decode(gzip.decompress(encode(SMALL))) == SMALL


def test_two_files_of_one_profile_are_equal() -> None:
    assert encode(SMALL) == encode(decode(encode(SMALL)))


def test_what_could_not_be_seen_is_told_in_a_comment() -> None:
    limit = Limit("no-frames", "C frames", "no symbols", "install them")
    assert decode(encode(replace(SMALL, limits=(limit,)))).comments == ("gomem: C frames: no symbols (install them)",)


def test_a_surrogate_that_no_byte_made_is_written_out() -> None:
    assert decode(encode(replace(SMALL, comments=("\ud800",)))).comments == ("\\ud800",)


def test_the_generated_code_is_that_of_the_messages() -> None:
    try:
        from grpc_tools import protoc
    except ImportError:
        absent("grpcio-tools is not installed (make venv)")
    with tempfile.TemporaryDirectory() as directory:
        given_to = [f"-I{ROOT}", f"--python_out={directory}", f"--pyi_out={directory}"]
        assert protoc.main(["protoc", *given_to, "gomem/exporters/pprof/profile.proto"]) == 0
        made = Path(directory, "gomem/exporters/pprof")
        for name in ("profile_pb2.py", "profile_pb2.pyi"):
            assert (made / name).read_text() == (ROOT / "exporters/pprof" / name).read_text(), "run `make protobuf`"


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_profile_or_refused(raw: bytes) -> None:
    for content in (raw, gzip.compress(raw)):
        with suppress(GomemError):
            decode(content)


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_a_profile_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(gzip.decompress(encode(hostile())))
    for _ in range(chance.randint(1, 4)):
        content[chance.randrange(min(len(content), 300))] = chance.randrange(256)
    with suppress(GomemError):
        decode(bytes(content))


@pytest.mark.parametrize("cut", [11, 30, -9, -1])
def test_a_file_that_was_cut_is_refused(cut: int) -> None:
    with pytest.raises(GomemError, match=r"^heap\.pb\.gz is cut or damaged"):
        decode(encode(SMALL)[:cut], "heap.pb.gz")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"heap profile: 1: 2 [3: 4] @ heap/1048576", "as text: fetch it without \\?debug"),
        (b"\x7fELF\x02\x01\x01", "it is an executable"),
        (b"<!doctype html><title>404", "a page of the web"),
        (b"\x00" * 100, "is not a profile"),
    ],
)
def test_what_is_no_profile_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(GomemError, match=said):
        decode(content)


def changed(change: Callable[[pb.Profile], object]) -> bytes:
    message = pb.Profile.FromString(gzip.decompress(encode(SMALL)))
    change(message)
    content: bytes = message.SerializeToString()
    return content


LIES: dict[str, tuple[Callable[[pb.Profile], object], str]] = {
    "string": (lambda m: m.comment.append(10_000), "no string 10000"),
    "negative string": (lambda m: m.comment.append(-1), "no string -1"),
    "name": (lambda m: setattr(m.function[0], "name", 1 << 62), "no string"),
    "function": (lambda m: setattr(m.location[0].line[0], "function_id", 99), "no function 99"),
    "mapping": (lambda m: setattr(m.location[0], "mapping_id", 1 << 63), "no mapping"),
    "location": (lambda m: m.sample[0].location_id.append(0), "no location 0"),
    "twice": (lambda m: m.function.append(m.function[0]), "there twice"),
    "zero": (lambda m: m.location.add(), "is 0"),
    "too few values": (lambda m: m.sample[0].value.pop(), "3 values of 4 types"),
    "too many types": (lambda m: m.sample_type.extend([m.sample_type[0]] * 1000), "types of sample"),
    "deep": (lambda m: m.sample[0].location_id.extend([1] * 10_000), "calls in one stack"),
    "wide": (lambda m: m.location[0].line.extend([m.location[0].line[0]] * 10_000), "lines of one location"),
    "labels": (lambda m: [m.sample[0].label.add() for _ in range(10_000)], "labels of one sample"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused(lie: str) -> None:
    change, said = LIES[lie]
    with pytest.raises(GomemError, match=said):
        decode(changed(change))


def test_stacks_that_multiply_are_refused() -> None:
    def change(message: pb.Profile) -> None:
        message.location[0].line.extend([message.location[0].line[0]] * 4000)
        message.sample[0].location_id.extend([1] * 4000)
        message.sample.extend([message.sample[0]])

    with pytest.raises(GomemError, match="more than 10,000,000 frames"):
        decode(changed(change))


def test_a_file_that_unpacks_to_more_than_there_is_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "room_for_one", lambda: Room(1 << 20))
    raw = gzip.compress(b"\x32\xff\xff\xff\xff\x03" + b"\0" * (1 << 20))  # a string of a gigabyte, as it says
    with pytest.raises(GomemError, match=r"more than 32 KiB when it is unpacked"):
        decode(raw)


def test_more_than_a_million_of_a_thing_are_refused() -> None:
    with pytest.raises(GomemError, match="1,048,577 samples"):
        decode(gzip.decompress(encode(SMALL)) + b"\x12\x00" * (decoding.MOST - 1))


def test_a_file_that_cannot_be_opened_is_an_error_in_two_lines(tmp_path: Path) -> None:
    with pytest.raises(GomemError, match="No such file"):
        read_profile(str(tmp_path / "none.pb.gz"))
    with pytest.raises(GomemError, match="Is a directory"):
        read_profile(str(tmp_path))
    with pytest.raises(GomemError, match=r"/dev/zero has more than"):
        read_profile("/dev/zero")
