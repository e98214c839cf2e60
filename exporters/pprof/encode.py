"""A profile as a file that pprof reads: a gzipped perftools.profiles.Profile.

Source: pprof's proto/profile.proto; what the fields of a heap profile hold, Go's runtime/pprof/protomem.go (1.27).
"""

from __future__ import annotations

import gzip

from gomem.exporters.pprof import profile_pb2 as pb
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.profile import Line, Location, Profile, ProfileMapping, Sample, ValueType

_LEVEL = 6  # of gzip: 9 takes three times as long for one part in a hundred


def encode(profile: Profile) -> bytes:
    """Return the file. What the profile could not see is among its comments, which `go tool pprof -top` shows."""
    return gzip.compress(message_of(profile).SerializeToString(deterministic=True), _LEVEL, mtime=0)


def message_of(profile: Profile) -> pb.Profile:
    """Return the profile as pprof's message; ids of mappings and locations are their indices and one."""
    made = _Message()
    made.header(profile)
    for mapping in profile.mappings:
        made.mapping(mapping)
    for location in profile.locations:
        made.location(location)
    for sample in profile.samples:
        made.sample(sample)
    return made.finish()


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
        self._message = pb.Profile()
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str, int], int] = {}

    def header(self, profile: Profile) -> None:
        """Add everything that is neither a sample nor what samples lead to."""
        message = self._message
        message.sample_type.extend(self._type(each) for each in profile.sample_types)
        if profile.period_type is not None:
            message.period_type.CopyFrom(self._type(profile.period_type))
        message.period = profile.period
        message.time_nanos, message.duration_nanos = profile.time_ns, profile.duration_ns
        message.default_sample_type = self._string(profile.default_type)
        comments = (*profile.comments, *map(told, profile.limits))
        message.comment.extend(self._string(comment) for comment in comments)

    def mapping(self, mapping: ProfileMapping) -> None:
        """Add the next mapping."""
        self._message.mapping.add(
            id=len(self._message.mapping) + 1,
            memory_start=mapping.start,
            memory_limit=mapping.end,
            file_offset=mapping.offset,
            filename=self._string(mapping.path),
            build_id=self._string(mapping.build_id),
            has_functions=mapping.has_functions,
        )

    def location(self, location: Location) -> None:
        """Add the next location."""
        self._message.location.add(
            id=len(self._message.location) + 1,
            mapping_id=0 if location.mapping is None else location.mapping + 1,
            address=location.address,
            line=[pb.Line(function_id=self._function(line), line=line.line) for line in location.lines],
        )

    def sample(self, sample: Sample) -> None:
        """Add the next sample."""
        self._message.sample.add(
            location_id=[index + 1 for index in sample.stack],
            value=sample.values,
            label=[self._label(key, value) for key, value in sample.labels],
        )

    def finish(self) -> pb.Profile:
        """Return the message."""
        self._message.string_table.extend(map(to_bytes, self._strings))
        return self._message

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _type(self, of: ValueType) -> pb.ValueType:
        return pb.ValueType(type=self._string(of.type), unit=self._string(of.unit))

    def _label(self, key: str, value: str | int) -> pb.Label:
        if isinstance(value, str):
            return pb.Label(key=self._string(key), str=self._string(value))
        return pb.Label(key=self._string(key), num=value)

    def _function(self, line: Line) -> int:
        """Return the id of a line's function, which is added when it is new: Go's reader refuses lines without one."""
        key = (line.function, line.file, line.start_line)
        known = self._functions.get(key)
        if known is None:
            known = self._functions[key] = len(self._functions) + 1
            name = self._string(line.function)
            self._message.function.add(
                id=known, name=name, system_name=name, filename=self._string(line.file), start_line=line.start_line
            )
        return known
