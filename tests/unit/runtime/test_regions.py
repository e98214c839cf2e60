from __future__ import annotations

from itertools import pairwise

import pytest

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.runtime import regions as regions_module
from gomem.tracer.runtime.regions import Region, arena_bases, owned_regions
from gomem.tracer.runtime.structs import follow_list
from tests.support.runtime_image import ARENA, RuntimeImage

RELEASES = ["1.19.8", "1.21.13", "1.27.3"]
MB = 1 << 20


def found(runtime: RuntimeImage, what: str) -> list[tuple[int, int]]:
    regions, missed = owned_regions(runtime.roots())
    assert missed == []
    return [(region.start, region.size) for region in regions if region.what == what]


def chain(runtime: RuntimeImage, struct: str, field: str, count: int, size: int) -> list[int]:
    """Link `count` structs, the last of them to none."""
    made = [runtime.room(size) for _ in range(count)]
    for one, following in pairwise(made):
        runtime.set(struct, one, field, following)
    return made


def offset(runtime: RuntimeImage, name: str, field: str) -> int:
    return runtime.globals[name] + runtime.layout.offset(name, field)


def mheap(runtime: RuntimeImage, field: str) -> int:
    return runtime.globals["mheap_"] + runtime.layout.offset("mheap", field)


@pytest.mark.parametrize("release", RELEASES)
def test_a_runtime_that_owns_nothing_has_no_regions(release: str) -> None:
    runtime = RuntimeImage(release)
    assert owned_regions(runtime.roots()) == ([], [])


@pytest.mark.parametrize("release", RELEASES)
def test_arenas_their_metadata_and_the_index_that_leads_to_it(release: str) -> None:
    runtime = RuntimeImage(release)
    runtime.arenas(ARENA + (64 << 20), ARENA)
    assert arena_bases(runtime.roots()) == [ARENA, ARENA + (64 << 20)]
    assert found(runtime, "arena") == [(ARENA, 64 << 20), (ARENA + (64 << 20), 64 << 20)]
    assert [size for _, size in found(runtime, "heap index")] == [32 << 20]
    assert next(size for _, size in found(runtime, "heapArena")) == runtime.layout.size("heapArena")


def test_the_index_and_the_arenas_are_not_in_the_runtimes_own_count() -> None:
    runtime = RuntimeImage()
    runtime.arenas(ARENA)
    regions, _ = owned_regions(runtime.roots())
    assert {region.what: region.counted for region in regions} == {
        "arena": False, "heap index": False, "heapArena": True
    }  # fmt: skip


def test_arenas_of_user_arenas_are_owned_too() -> None:
    runtime = RuntimeImage("1.27.3")
    size = runtime.layout.constant("heap_arena_bytes")
    runtime.arenas(ARENA)
    index = (ARENA + size - runtime.layout.constant("arena_base_offset") & (1 << 64) - 1) // size
    runtime.slice("userArenaArenas", [index])
    regions, _ = owned_regions(runtime.roots())
    assert [(region.start, region.what) for region in regions if region.kind == "heap_arena"] == [
        (ARENA, "arena"), (ARENA + size, "user arena")
    ]  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
def test_page_summaries_are_as_large_as_their_capacity(release: str) -> None:
    runtime = RuntimeImage(release)
    spot = runtime.layout.field("mheap", "pages.summary")
    for level in range(5):
        at = runtime.globals["mheap_"] + spot.offset + 24 * level
        runtime.image.words(at, 0x7E0000000000 + (level << 32), 1, 1000 << level)
    levels = [found(runtime, f"page summary level {level}") for level in range(5)]
    assert levels == [[(0x7E0000000000 + (level << 32), 8000 << level)] for level in range(5)]


@pytest.mark.parametrize(("release", "width"), [("1.19.8", 1), ("1.27.3", 8)])
def test_the_scavenge_index_has_a_bit_or_a_struct_for_each_chunk(release: str, width: int) -> None:
    runtime = RuntimeImage(release)
    runtime.image.words(mheap(runtime, "pages.scav.index.chunks"), 0x7E0000000000, 8, 8192)
    assert found(runtime, "scavenge index") == [(0x7E0000000000, 8192 * width)]


def test_page_bitmaps_come_in_second_level_tables() -> None:
    runtime = RuntimeImage()
    runtime.grow(ARENA, [[1]], [[]])
    runtime.grow(ARENA + (64 << 30), [[1]], [[]])
    runtime.finish()
    assert [size for _, size in found(runtime, "page bitmaps")] == [MB, MB]


def test_persistentalloc_chunks_are_a_list_through_their_first_words() -> None:
    runtime = RuntimeImage()
    made = [runtime.room(256 << 10) for _ in range(3)]
    runtime.image.words(runtime.globals["persistentChunks"], made[2])
    runtime.image.words(made[2], made[0])
    runtime.image.words(made[0], made[1])
    assert found(runtime, "persistentalloc chunk") == [(one, 256 << 10) for one in made]


def test_all_four_lists_of_gc_bits_are_walked() -> None:
    runtime = RuntimeImage()
    size = runtime.layout.constant("gc_bits_chunk_bytes")
    made = []
    for name, count in (("free", 1), ("next", 2), ("current", 3), ("previous", 0)):
        arenas = chain(runtime, "gcBitsArena", "next", count, size)
        runtime.image.words(offset(runtime, "gcBitsArenas", name), arenas[0] if arenas else 0)
        made += arenas
    assert found(runtime, "gc bits") == [(one, size) for one in made]


def test_the_span_list_is_a_region_by_its_capacity_and_so_are_large_arena_lists() -> None:
    runtime = RuntimeImage()
    spans = runtime.slice("allspans", [], capacity=4096)
    assert found(runtime, "allspans array") == [(spans, 32768)]
    runtime = RuntimeImage()
    arenas = runtime.slice("heapArenas", [], capacity=8192)
    assert found(runtime, "heapArenas") == [(arenas, 65536)]
    runtime.slice("heapArenas", [], capacity=8191)  # persistentalloc's own
    assert found(runtime, "heapArenas") == []


def test_the_profilers_hash_table_is_a_region_once_it_is_there() -> None:
    runtime = RuntimeImage()
    runtime.image.words(runtime.globals["buckhash"], 0x7E0000000000)
    assert found(runtime, "profiler hash buckets") == [(0x7E0000000000, 179999 * 8)]


def test_span_queues_of_the_green_tea_collector_are_walked_where_there_are_any() -> None:
    assert not RuntimeImage("1.25.5").layout.has("work", "spanSPMCs.list.obj")
    runtime = RuntimeImage("1.27.3")
    queues = chain(runtime, "spanSPMC", "allnode.next", 2, runtime.layout.size("spanSPMC"))
    for number, queue in enumerate(queues):
        runtime.set("spanSPMC", queue, "ring", 0x7E0000000000 + number * MB)
        runtime.set("spanSPMC", queue, "cap", 256)
    runtime.image.words(offset(runtime, "work", "spanSPMCs.list.obj"), queues[0])
    assert found(runtime, "GC span queue") == [(0x7E0000000000 + number * MB, 2048) for number in range(2)]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_list_that_returns_to_itself_is_missed_and_the_rest_is_still_found(length: int) -> None:
    runtime = RuntimeImage()
    runtime.arenas(ARENA)
    made = [runtime.room(256 << 10) for _ in range(length)]
    for one, following in zip(made, [*made[1:], made[length // 2]], strict=True):
        runtime.image.words(one, following)
    runtime.image.words(runtime.globals["persistentChunks"], made[0])
    bits = runtime.room(64)
    runtime.set("gcBitsArena", bits, "next", bits)
    runtime.image.words(offset(runtime, "gcBitsArenas", "current"), bits)
    regions, missed = owned_regions(runtime.roots())
    assert sorted(line.partition(":")[0] for line in missed) == ["gc bits", "persistent chunks"]
    assert [region.what for region in regions if region.kind == "heap_arena"] == ["arena"]


def test_an_endless_list_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions_module, "MOST_ELEMENTS", 10)
    runtime = RuntimeImage()
    made = chain(runtime, "gcBitsArena", "next", 11, 64)
    with pytest.raises(SnapshotError, match="does not end within 10"):
        follow_list(runtime.image, runtime.layout, "gcBitsArena", "next", made[0], 10)
    assert follow_list(runtime.image, runtime.layout, "gcBitsArena", "next", made[1], 10) == made[1:]
    assert follow_list(runtime.image, runtime.layout, "gcBitsArena", "next", 0, 10) == []


@pytest.mark.parametrize("name", ["persistentChunks", "gcBitsArenas", "buckhash", "work"])
def test_a_global_that_could_not_be_found_is_missed_by_its_name(name: str) -> None:
    runtime = RuntimeImage()
    del runtime.globals[name]
    _, missed = owned_regions(runtime.roots())
    assert [line for line in missed if f"the global {name} " in line] == missed
    assert missed


@pytest.mark.parametrize(("start", "capacity"), [((1 << 64) - 4096, 1), (1 << 57, 1), (0x7E0000000000, 1 << 61)])
def test_regions_outside_the_address_space_are_missed(start: int, capacity: int) -> None:
    runtime = RuntimeImage()
    runtime.image.words(mheap(runtime, "pages.summary"), start, 1, capacity)
    regions, missed = owned_regions(runtime.roots())
    assert regions == []
    assert [line.partition(":")[0] for line in missed] == ["page summaries"]


@pytest.mark.parametrize("words", [[1 << 22], [1 << 60], [(1 << 64) - 1]])
def test_arenas_outside_the_address_space_are_missed(words: list[int]) -> None:
    runtime = RuntimeImage()
    runtime.slice("heapArenas", words)
    regions, missed = owned_regions(runtime.roots())
    assert not regions
    assert {line.partition(":")[0] for line in missed} == {"arenas", "arena metadata"}


def test_more_arenas_than_a_heap_has_are_missed() -> None:
    runtime = RuntimeImage()
    runtime.slice("heapArenas", [])
    runtime.image.words(mheap(runtime, "heapArenas") + 8, 1 << 40, 1 << 40)
    _, missed = owned_regions(runtime.roots())
    assert any(f"claims {1 << 40} arenas" in line for line in missed)


def test_of_regions_that_overlap_the_first_is_kept() -> None:
    runtime = RuntimeImage()
    spot = runtime.layout.field("mheap", "pages.summary")
    for level, (start, words) in enumerate(((0x7E0000001000, 512), (0x7E0000000000, 1024), (0x7E0000002000, 512))):
        runtime.image.words(runtime.globals["mheap_"] + spot.offset + 24 * level, start, 1, words)
    regions, _ = owned_regions(runtime.roots())
    assert [(region.start, region.end) for region in regions] == [
        (0x7E0000000000, 0x7E0000002000), (0x7E0000002000, 0x7E0000003000)
    ]  # fmt: skip


def test_a_region_ends_with_its_last_os_page() -> None:
    assert Region(0x10000, 4097, "heap_metadata", "x").end == 0x12000
    assert Region(0x10000, 4096, "heap_metadata", "x").end == 0x11000


def test_a_field_that_the_release_lacks_is_a_layout_error() -> None:
    runtime = RuntimeImage()
    with pytest.raises(LayoutError):
        runtime.record("mheap_").slice("no.such.field")
