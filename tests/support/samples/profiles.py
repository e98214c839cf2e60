"""Profiles: a small one whose sums are plain to see, and any that hypothesis thinks of."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from gomem.tracer.report.profile import Line, Location, Profile, ProfileMapping, Sample, ValueType

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
# A bar stands for a semicolon, which ends a call here.
MARKUP = "</script><script>alert(1)</script><b onclick=x>\x1b[31m\u202e&amp|\"'"

HEAP_TYPES = (
    ValueType("alloc_objects", "count"),
    ValueType("alloc_space", "bytes"),
    ValueType("inuse_objects", "count"),
    ValueType("inuse_space", "bytes"),
)


def heap(*stacks: tuple[str, int, int], factor: int = 1) -> Profile:
    """Return a heap profile of ("main;work;make", objects, bytes) in use; twice as much was allocated."""
    names = list(dict.fromkeys(name for calls, _, _ in stacks for name in calls.split(";")))
    locations = tuple(Location(0x1000 + at, (Line(name, f"{name}.go", 10 + at),), 0) for at, name in enumerate(names))
    samples = tuple(
        Sample(
            tuple(names.index(name) for name in reversed(calls.split(";"))),
            (2 * factor * objects, 2 * factor * size, factor * objects, factor * size),
        )
        for calls, objects, size in stacks
    )
    mapping = ProfileMapping(0x1000, 0x9000, 0, "/srv/program", "abc123")
    return Profile(HEAP_TYPES, samples, locations, (mapping,), "inuse_space", ValueType("space", "bytes"), 512 << 10)


def hostile() -> Profile:
    """Return one whose functions have names that mean something to pages, terminals and folded stacks."""
    made = heap(("main;a;b| 7\nmain|c", 1, 100), (f"main;{MARKUP}", 2, 50), ("main;" + "x" * 100_000, 1, 25))
    renamed = (
        tuple(replace(line, function=line.function.replace("|", ";")) for line in each.lines) for each in made.locations
    )
    return replace(
        made, locations=tuple(replace(each, lines=lines) for each, lines in zip(made.locations, renamed, strict=True))
    )


def _values(count: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[INT64] * count)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Return any profile that keeps the contract."""
    text = st.text(max_size=20) | st.binary(max_size=9).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
    value_types = st.builds(ValueType, text, text)
    types = tuple(draw(st.lists(value_types, min_size=1, max_size=4)))
    mappings = draw(st.lists(st.builds(ProfileMapping, UINT64, UINT64, UINT64, text, text, st.booleans()), max_size=3))
    lines = st.builds(Line, text, text, INT64, INT64, INT64)
    mapping = st.none() | st.sampled_from(range(len(mappings))) if mappings else st.none()
    locations = draw(st.lists(st.builds(Location, UINT64, st.lists(lines, max_size=4).map(tuple), mapping), max_size=6))
    stack = st.lists(st.sampled_from(range(len(locations))), max_size=8) if locations else st.just([])
    labels = st.lists(
        st.tuples(text, text.filter(bool) | INT64) | st.tuples(text, INT64, text.filter(bool)), max_size=3
    )
    samples = draw(st.lists(st.builds(Sample, stack.map(tuple), _values(len(types)), labels.map(tuple)), max_size=6))
    return Profile(
        types, tuple(samples), tuple(locations), tuple(mappings), draw(text), draw(st.none() | value_types),
        draw(INT64), draw(INT64), draw(INT64), tuple(draw(st.lists(text, max_size=3))), draw(text), draw(text),
    )  # fmt: skip
