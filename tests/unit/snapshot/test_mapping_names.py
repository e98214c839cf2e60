"""Names of mappings against what gomem takes them for; no kernel that shows them is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.runtime.pages import HeapPages
from gomem.tracer.runtime.regions import Region
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.snapshot.join import AddressSpace, join
from gomem.tracer.snapshot.mapping_names import Disagreement, as_limits, disagreements
from tests.unit.snapshot.test_join import heap, maps, resident_at

ARENA = 0xC000000000
META = 0x7F0000000000


def named(start: int, end: int, name: str) -> tuple[int, int, str, str]:
    return start, end, "rw-p", f"[anon: Go: {name}]"


def space_of(mappings: Mappings, *regions: Region) -> AddressSpace:
    pages: HeapPages = heap({})
    snapshot = SimpleNamespace(pages=pages, regions=list(regions), collector=SimpleNamespace(mapped_ready=0))
    return join(mappings, resident_at([]), cast(RuntimeSnapshot, snapshot), None)


def test_names_that_say_what_we_say_are_no_disagreement() -> None:
    mappings = maps(
        named(ARENA, ARENA + (4 << 20), "heap"), named(ARENA + (4 << 20), ARENA + (64 << 20), "heap reservation"),
        named(META, META + 0x10000, "gc bits"), named(META + 0x10000, META + 0x50000, "immortal metadata"),
        named(META + 0x80000, META + 0x90000, "page summary"), named(META + 0xA0000, META + 0xB0000, "trace buffer"),
    )  # fmt: skip
    space = space_of(
        mappings,
        Region(ARENA, 64 << 20, "heap_arena", "arena"),
        Region(META, 0x10000, "heap_metadata", "gc bits"),
        Region(META + 0x10000, 0x40000, "heap_metadata", "persistentalloc chunk"),
        Region(META + 0x80000, 0x10000, "page_summary", "page summary level 0"),
    )
    assert disagreements(mappings, space) == []
    assert as_limits([]) == []


def test_what_we_took_for_something_else_is_told_in_bytes() -> None:
    mappings = maps(named(META, META + 0x20000, "gc bits"), named(META + 0x20000, META + 0x21000, "heap index"))
    space = space_of(
        mappings,
        Region(META, 0x8000, "heap_metadata", "gc bits"),
        Region(META + 0x20000, 0x1000, "page_summary", "page summary level 1"),
    )
    found = disagreements(mappings, space)
    assert found == [
        Disagreement("gc bits", "heap_metadata", "runtime_other", 0x18000),
        Disagreement("heap index", "heap_metadata", "page_summary", 0x1000),
    ]
    (limit,) = as_limits(found)
    assert "102400 bytes" in limit.why
    assert '98304 bytes that Go calls "gc bits" are counted as runtime_other, not heap_metadata' in limit.why


def test_a_name_that_we_do_not_know_is_told_too_and_a_remapped_range_may_be_anything() -> None:
    mappings = maps(named(META, META + 0x1000, "something new"), named(ARENA, ARENA + 0x2000, "used"))
    found = disagreements(mappings, space_of(mappings))
    assert found == [Disagreement("something new", None, "runtime_other", 0x1000)]


def test_other_peoples_names_are_none_of_our_business() -> None:
    mappings = maps((META, META + 0x1000, "rw-p", "[anon:libc_malloc]"), (META + 0x2000, META + 0x3000, "rw-p", ""))
    assert disagreements(mappings, space_of(mappings)) == []
