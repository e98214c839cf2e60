"""The difference of two profiles, as `go tool pprof -diff_base` makes it: a profile with the base's values negated.

Source: fetchProfiles in pprof's internal/driver/fetch.go, Merge and CompatibilizeSampleTypes in its profile/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from gomem.exporters.profile.sample_type import BASE
from gomem.tracer.errors import GomemError
from gomem.tracer.report.profile import Location, Profile, ProfileMapping, Sample, ValueType


def difference(base: Profile, later: Profile) -> Profile:
    """Return what `later` has more than `base`, of the sample types that both have.

    Samples of the base have the label BASE. Raises GomemError where the two have no sample type in common.
    """
    types = tuple(each for each in later.sample_types if each in base.sample_types)
    if not types:
        raise GomemError(
            f"the profiles have no sample type in common: {_told(base.sample_types)}, and {_told(later.sample_types)}",
            "compare profiles of one kind",
        )
    merged = _Merged()
    samples = (*merged.take(later, types, 1), *merged.take(base, types, -1))
    return replace(
        later,
        sample_types=types,
        samples=samples,
        locations=tuple(merged.locations),
        mappings=tuple(merged.mappings),
        comments=tuple(dict.fromkeys((*later.comments, *base.comments))),
        limits=tuple(dict.fromkeys((*later.limits, *base.limits))),
    )


def other_program(base: Profile, later: Profile) -> str | None:
    """Return in words that the two profiles are of different programs, or None: of one, or not known."""
    if not (base.mappings and later.mappings):
        return None
    one, other = base.mappings[0], later.mappings[0]
    if one.build_id and other.build_id:
        differ = one.build_id != other.build_id
        return f"build id {one.build_id} of {one.path}, and {other.build_id} of {other.path}" if differ else None
    return f"{one.path}, and {other.path}" if one.path != other.path else None


def _told(types: Iterable[ValueType]) -> str:
    return ", ".join(f"{each.type} ({each.unit})" if each.unit else each.type for each in types)


@dataclass(slots=True)
class _Merged:
    """Locations and mappings of several profiles, each once, with the index of each."""

    locations: dict[Location, int] = field(default_factory=dict)
    mappings: dict[ProfileMapping, int] = field(default_factory=dict)

    def take(self, profile: Profile, types: Sequence[ValueType], sign: int) -> list[Sample]:
        """Return the samples of a profile with values of those types, times `sign`; with -1 they are the base's."""
        mappings = [self.mappings.setdefault(each, len(self.mappings)) for each in profile.mappings]
        locations = [self._location(each, mappings) for each in profile.locations]
        columns = [profile.sample_types.index(each) for each in types]
        return [
            Sample(
                tuple(locations[index] for index in sample.stack),
                tuple(_bounded(sign * sample.values[column]) for column in columns),
                (*sample.labels, BASE) if sign < 0 else sample.labels,
            )
            for sample in profile.samples
            if any(sample.values[column] for column in columns)
        ]

    def _location(self, of: Location, mappings: Sequence[int]) -> int:
        moved = of if of.mapping is None else replace(of, mapping=mappings[of.mapping])
        return self.locations.setdefault(moved, len(self.locations))


def _bounded(value: int) -> int:
    """Return a value that a file can hold: the negative of the lowest does not."""
    return min(value, 2**63 - 1)
