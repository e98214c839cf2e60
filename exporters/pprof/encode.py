"""A profile as a file that pprof reads: a gzipped perftools.profiles.Profile.

Source: pprof's proto/profile.proto; what the fields of a heap profile hold, Go's runtime/pprof/protomem.go (1.27).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from itertools import islice

from gomem.exporters.pprof import profile_pb2 as pb
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.profile import Line, Profile, ProfileMapping, Sample, ValueType

_LEVEL = 6  # of gzip: 9 takes three times as long for one part in a hundred
_SAMPLES_AT_ONCE = 1 << 9


def encode(profile: Profile) -> bytes:
    """Return the file. What the profile could not see is among its comments, which `go tool pprof -top` shows."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_LEVEL, mtime=0) as packed:
        for part in _parts(profile):
            packed.write(part.SerializeToString())
    return file.getvalue()


def _parts(profile: Profile) -> Iterator[pb.Profile]:
    """Yield messages that are pprof's message of the profile, one behind the other, as protobuf merges such.

    So it is never there as a whole. Ids of mappings and locations are their indices and one.
    """
    made = _Message()
    yield made.header(profile)
    samples = iter(profile.samples)
    while some := list(islice(samples, _SAMPLES_AT_ONCE)):
        yield made.samples(some)
    yield made.tables()


def told(limit: Limit) -> str:
    """Return a limit as a comment, in one line."""
    return f"gomem: {limit.what}: {limit.why}" + (f" ({limit.fix})" if limit.fix else "")


def to_bytes(text: str) -> bytes:
    """Return a string as it is in a file: bytes that are no UTF-8, kept by surrogateescape, as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace")


class _Message:
    """A message in the making, with the strings and functions that it has so far."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str, int], int] = {}

    def header(self, profile: Profile) -> pb.Profile:
        """Return everything but samples, functions and strings."""
        part = pb.Profile(
            sample_type=map(self._type, profile.sample_types),
            period_type=None if profile.period_type is None else self._type(profile.period_type),
            period=profile.period,
            time_nanos=profile.time_ns,
            duration_nanos=profile.duration_ns,
            default_sample_type=self._string(profile.default_type),
            comment=map(self._string, (*profile.comments, *map(told, profile.limits))),
            drop_frames=self._string(profile.drop_frames),
            keep_frames=self._string(profile.keep_frames),
        )
        for number, mapping in enumerate(profile.mappings, 1):
            self._mapping(part.mapping.add(), number, mapping)
        for number, location in enumerate(profile.locations, 1):
            part.location.add(
                id=number,
                mapping_id=0 if location.mapping is None else location.mapping + 1,
                address=location.address,
                line=map(self._line, location.lines),
            )
        return part

    def samples(self, samples: Iterable[Sample]) -> pb.Profile:
        """Return some samples."""
        part = pb.Profile()
        for sample in samples:
            part.sample.add(
                location_id=[index + 1 for index in sample.stack],
                value=sample.values,
                label=[self._label(*label) for label in sample.labels],
            )
        return part

    def tables(self) -> pb.Profile:
        """Return the functions and strings of all parts."""
        part = pb.Profile()
        for (name, file, start_line), number in self._functions.items():
            at = self._string(name)
            part.function.add(
                id=number, name=at, system_name=at, filename=self._string(file), start_line=start_line
            )  # fmt: skip
        part.string_table.extend(map(to_bytes, self._strings))
        return part

    def _mapping(self, into: pb.Mapping, number: int, mapping: ProfileMapping) -> None:
        into.id = number
        into.memory_start, into.memory_limit, into.file_offset = mapping.start, mapping.end, mapping.offset
        into.filename, into.build_id = self._string(mapping.path), self._string(mapping.build_id)
        into.has_functions = mapping.has_functions

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _type(self, of: ValueType) -> pb.ValueType:
        return pb.ValueType(type=self._string(of.type), unit=self._string(of.unit))

    def _label(self, key: str, value: str | int, unit: str = "") -> pb.Label:
        if isinstance(value, str):
            return pb.Label(key=self._string(key), str=self._string(value))
        return pb.Label(key=self._string(key), num=value, num_unit=self._string(unit))

    def _line(self, line: Line) -> pb.Line:
        """Return a line; its function is noted when it is new: Go's reader refuses lines without one."""
        key = (line.function, line.file, line.start_line)
        number = self._functions.setdefault(key, len(self._functions) + 1)
        return pb.Line(function_id=number, line=line.line, column=line.column)
