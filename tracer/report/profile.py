"""The contract of profiles: who holds or allocates memory, by call stack; plain data, modelled on pprof's.

Source: the meaning of each part is that of perftools.profiles.Profile in pprof's proto/profile.proto.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from gomem.tracer.report.limit import Limit


class ValueType(Struct, frozen=True):
    """What a value counts: ("inuse_space", "bytes")."""

    type: str
    unit: str


class Line(Struct, frozen=True):
    """A line of source; `function` is its full name, `start_line` the line of its func keyword. 0, "": not known.

    Only profiles of others have a `column`.
    """

    function: str
    file: str = ""
    line: int = 0
    start_line: int = 0
    column: int = 0


class Location(Struct, frozen=True):
    """An address of code in the process, with the functions that are there, the innermost inlined one first.

    `address` lies within the calling instruction, so it is the return address less one; 0 for a holder of memory that
    is no code. `mapping` is an index into Profile.mappings, None where no file is mapped.
    """

    address: int
    lines: tuple[Line, ...]
    mapping: int | None = None


class ProfileMapping(Struct, frozen=True):
    """A file's code in the process: addresses [start, end), where that begins in the file, its path and build id."""

    start: int
    end: int
    offset: int
    path: str
    build_id: str
    has_functions: bool = True


Label = tuple[str, str | int] | tuple[str, int, str]
"""Its key, and text or a number; of a number with a unit that too."""


def error_label(type_: str) -> str:
    """Return the label that holds the standard error of a sample's value of this type, in its unit.

    Where no sample has it, values are counted, or nobody knows their errors.
    """
    return f"{type_}_standard_error"


class Sample(Struct, frozen=True):
    """Values, one for each of Profile.sample_types, of one call stack.

    `stack` has indices into Profile.locations, the innermost first. Of labels, "bytes" is the size of an object, and
    `error_label` of a type the standard error of that value.
    """

    stack: tuple[int, ...]
    values: tuple[int, ...]
    labels: tuple[Label, ...] = ()


class Profile(Struct, frozen=True):
    """One profile. `time_ns` since 1970, `duration_ns` 0 where it is not of a span of time.

    `samples` may be made anew each time that they are seen: whoever needs one twice keeps it.

    `period` is how many `period_type` pass between two samples. `default_type` is the type that is shown first.
    `limits` says what is missing, and why; `comments` are for people who read the file. pprof shows no function that
    the regular expression `drop_frames` is of, nor what it calls, but those of `keep_frames`.
    """

    sample_types: tuple[ValueType, ...]
    samples: Sequence[Sample]
    locations: tuple[Location, ...]
    mappings: tuple[ProfileMapping, ...] = ()
    default_type: str = ""
    period_type: ValueType | None = None
    period: int = 0
    time_ns: int = 0
    duration_ns: int = 0
    comments: tuple[str, ...] = ()
    drop_frames: str = ""
    keep_frames: str = ""
    limits: tuple[Limit, ...] = ()
