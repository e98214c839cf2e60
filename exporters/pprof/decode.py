"""A file that pprof reads as a profile. Files come from anywhere: everything in them is bounded and checked.

Source: pprof's proto/profile.proto, and what Go's own reader refuses (profile.CheckValid).
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from google.protobuf.message import DecodeError

from gomem.exporters.pprof import profile_pb2 as pb
from gomem.tracer.errors import GomemError
from gomem.tracer.machine.room import room_for_one
from gomem.tracer.report.profile import Label, Line, Location, Profile, ProfileMapping, Sample, ValueType

# Of the unpacked file: 30,000 stacks of 64 calls have 7 MB.
LARGEST = 32 << 20
# Of ours for a byte of the file: an empty sample takes two bytes there, and 48 as a message.
_EACH = 32
# Of samples, locations, functions, mappings, strings: each is an object of ours.
MOST = 1 << 20
MOST_TYPES = 64
DEEPEST = 4096  # locations of a sample, and lines of a location
MOST_FRAMES = 10_000_000  # of all samples, with inlined functions
_GZIP = b"\x1f\x8b"


def read_profile(path: str) -> Profile:
    """Return the profile in the file `path`. Raises GomemError: what is wrong, with which file."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise GomemError(f"cannot read {path}: {error.strerror}", "give a profile that pprof reads") from error
    return decode(raw, path)


def decode(raw: bytes, name: str = "the profile") -> Profile:
    """Return the profile in the bytes of a file, gzipped or not; `name` says in errors which file it is.

    Of functions it keeps one name, of mappings what they are of. Raises GomemError.
    """
    unpacked = _unpacked(raw, name)
    try:
        message = pb.Profile.FromString(unpacked)
    except DecodeError as error:
        raise _none(name, _kind(unpacked)) from error
    if not message.sample_type:
        raise _none(name, _kind(unpacked))
    return _Reader(message, name).profile()


def _unpacked(raw: bytes, name: str) -> bytes:
    """Return what may be a message, at most as much as there is room for."""
    most = min(LARGEST, room_for_one().size // _EACH)
    file: BinaryIO = io.BytesIO(raw)
    if raw.startswith(_GZIP):
        file = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
    try:
        unpacked = file.read(most + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise GomemError(f"{name} is cut or damaged: {error}", "take or copy the profile again") from error
    if len(unpacked) > most:
        raise GomemError(
            f"{name} has more than {most >> 10:,} KiB when it is unpacked, more than gomem may hold",
            f"gomem reads up to {LARGEST >> 20} MiB where it has memory for them; go tool pprof reads larger ones",
        )
    return unpacked


def _kind(content: bytes) -> str:
    """Return what a file that is no profile seems to be, to say it."""
    start = content[:512].lstrip()
    if not start:
        return "it is empty"
    if start.startswith((b"heap profile:", b"goroutine profile:", b"goroutine ", b"threadcreate profile:")):
        return "it is a profile as text: fetch it without ?debug"
    if start.startswith(b"\x7fELF"):
        return "it is an executable"
    return "it is a page of the web" if start.startswith((b"<", b"HTTP/")) else ""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _none(name: str, why: str) -> GomemError:
    what = f"{name} is not a profile that pprof reads" + (f": {why}" if why else "")
    return GomemError(what, "give one of gomem profile, of /debug/pprof/heap, or of another tool in pprof's format")


class _Reader:
    """A message whose parts are checked as they are read."""

    def __init__(self, message: pb.Profile, name: str) -> None:
        self._message = message
        self._name = name
        self._few("samples", message.sample)
        self._few("types of sample", message.sample_type, MOST_TYPES)
        self._few("strings", message.string_table)
        self._strings: list[str] = [_text(raw) for raw in message.string_table] or [""]
        self._mappings = self._by_id("mapping", message.mapping)
        self._functions = self._by_id("function", message.function)
        self._locations = self._by_id("location", message.location)

    def profile(self) -> Profile:
        """Return the profile."""
        message = self._message
        locations = tuple(map(self._location, message.location))
        return Profile(
            sample_types=tuple(map(self._type, message.sample_type)),
            samples=tuple(self._samples(locations)),
            locations=locations,
            mappings=tuple(map(self._mapping, message.mapping)),
            default_type=self._string(message.default_sample_type),
            period_type=self._type(message.period_type) if message.HasField("period_type") else None,
            period=message.period,
            time_ns=message.time_nanos,
            duration_ns=message.duration_nanos,
            comments=tuple(self._string(index) for index in message.comment),
            drop_frames=self._string(message.drop_frames),
            keep_frames=self._string(message.keep_frames),
        )

    def _wrong(self, what: str) -> GomemError:
        return GomemError(f"{self._name} is damaged, or made to mislead: {what}", "take the profile again")

    def _few(self, what: str, some: Sequence[object], most: int = MOST) -> None:
        if len(some) > most:
            raise GomemError(
                f"{self._name} has {len(some):,} {what}: gomem reads up to {most:,}", "go tool pprof may read it"
            )

    def _by_id(self, what: str, some: Sequence[pb.Mapping | pb.Function | pb.Location]) -> dict[int, int]:
        """Return the index of each by its id."""
        self._few(f"{what}s", some)
        indices = {each.id: index for index, each in enumerate(some)}
        if 0 in indices or len(indices) < len(some):
            raise self._wrong(f"the id of a {what} is 0, or there twice")
        return indices

    def _string(self, index: int) -> str:
        if not 0 <= index < len(self._strings):
            raise self._wrong(f"there is no string {index}")
        return self._strings[index]

    def _type(self, of: pb.ValueType) -> ValueType:
        return ValueType(self._string(of.type), self._string(of.unit))

    def _mapping(self, of: pb.Mapping) -> ProfileMapping:
        return ProfileMapping(
            of.memory_start, of.memory_limit, of.file_offset, self._string(of.filename), self._string(of.build_id),
            of.has_functions,
        )  # fmt: skip

    def _location(self, of: pb.Location) -> Location:
        self._few("lines of one location", of.line, DEEPEST)
        mapping = None if of.mapping_id == 0 else self._index("mapping", self._mappings, of.mapping_id)
        return Location(of.address, tuple(map(self._line, of.line)), mapping)

    def _line(self, of: pb.Line) -> Line:
        if of.function_id == 0:
            return Line("", "", of.line, column=of.column)
        function = self._message.function[self._index("function", self._functions, of.function_id)]
        # Some writers know only what the linker calls it.
        name = self._string(function.name) or self._string(function.system_name)
        return Line(name, self._string(function.filename), of.line, function.start_line, of.column)

    def _index(self, what: str, by_id: dict[int, int], of: int) -> int:
        index = by_id.get(of)
        if index is None:
            raise self._wrong(f"there is no {what} {of}")
        return index

    def _samples(self, locations: Sequence[Location]) -> Iterable[Sample]:
        depths = [max(len(location.lines), 1) for location in locations]
        left = MOST_FRAMES
        for of in self._message.sample:
            sample = self._sample(of)
            left -= sum(depths[index] for index in sample.stack)
            if left < 0:
                raise self._wrong(f"its stacks have more than {MOST_FRAMES:,} frames")
            yield sample

    def _sample(self, of: pb.Sample) -> Sample:
        if len(of.value) != len(self._message.sample_type):
            raise self._wrong(f"a sample has {len(of.value)} values of {len(self._message.sample_type)} types")
        self._few("calls in one stack", of.location_id, DEEPEST)
        self._few("labels of one sample", of.label, DEEPEST)
        try:
            stack = tuple(map(self._locations.__getitem__, of.location_id))
        except KeyError as missing:
            raise self._wrong(f"there is no location {missing}") from None
        return Sample(stack, tuple(of.value), tuple(map(self._label, of.label)))

    def _label(self, of: pb.Label) -> Label:
        key, unit = self._string(of.key), self._string(of.num_unit)
        if of.str:
            return key, self._string(of.str)
        return (key, of.num, unit) if unit else (key, of.num)
