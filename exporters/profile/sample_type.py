"""Which of a profile's values is meant, what they add up to, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass

from gomem.exporters.units import number, seconds, size
from gomem.tracer.errors import UsageError
from gomem.tracer.report.profile import Profile, Sample

# The label of samples that belong to the profile that another one is held against; their values are negated.
# Source: fetchProfiles in pprof's internal/driver/fetch.go.
BASE = ("pprof::base", "true")


def index_of(profile: Profile, name: str | None) -> int:
    """Return the index of the sample type `name`, by default of the one that the profile shows first.

    As pprof does it: without a default that is there, the last one. Raises UsageError.
    """
    names = [each.type for each in profile.sample_types]
    if name is None:
        return names.index(profile.default_type) if profile.default_type in names else len(names) - 1
    if name not in names:
        raise UsageError(f"the profile has no sample type {name!r}", f"it has {', '.join(names)}")
    return names.index(name)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of one of a profile's values: `before` of the base, as it was, and `after` of all other samples.

    `whole` is what shares are of: the sum of the values without their signs; of a difference, what the base had.
    """

    before: int
    after: int
    whole: int
    is_difference: bool


def sums_of(profile: Profile, index: int) -> Sums:
    """Return the sums of one of a profile's values."""
    signed, absolute, is_difference = [0, 0], [0, 0], False
    for sample in profile.samples:
        base, value = is_base(sample), sample.values[index]
        is_difference |= base
        signed[base] += value
        absolute[base] += abs(value)
    return Sums(-signed[True], signed[False], absolute[True] or absolute[False], is_difference)


def is_base(sample: Sample) -> bool:
    """Tell whether the sample belongs to the profile that another one is held against."""
    return BASE in sample.labels


def is_difference(profile: Profile) -> bool:
    """Tell whether the profile is the difference of two."""
    return any(map(is_base, profile.samples))


def shown(value: int, unit: str, *, signed: bool = False) -> str:
    """Return a value in its unit; `signed`: with a sign also where it grew."""
    plus = "+" if signed and value > 0 else ""
    if unit == "bytes":
        return plus + size(value)
    if unit == "nanoseconds":
        return ("-" if value < 0 else plus) + seconds(abs(value) / 1e9)
    return plus + number(value)
