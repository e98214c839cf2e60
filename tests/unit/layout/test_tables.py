"""The tables that come with gomem, and the choice among them."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.errors import LayoutError
from gomem.tracer.layout.generate import to_text
from gomem.tracer.layout.patches import patch_of
from gomem.tracer.layout.tables import known_minors, minor_of, nearest_table, table_for
from gomem.tracer.runtime.contiguous import has_contiguous_arena

TABLES = sorted(entry.name for entry in files("gomem.tracer.layout").joinpath("tables").iterdir())
NEWEST = max(known_minors("amd64"))


def load(name: str) -> Any:
    return json.loads(files("gomem.tracer.layout").joinpath("tables", name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("version", "minor", "patch"),
    [
        ("go1.23.9", (1, 23), 9),
        ("go1.24.3-fips", (1, 24), 3),
        ("go1.25.5 X:nocoverageredesign", (1, 25), 5),
        ("go1.26.6-X:sizespecializedmalloc", (1, 26), 6),
        ("go1.27rc1", (1, 27), None),
        ("go1.20", (1, 20), 0),
        ("go1.19.8", (1, 19), 8),
        ("devel go1.28-abc123 Mon Jun 1 12:00:00 2026 +0000", (1, 28), 0),
    ],
)
def test_versions_as_the_build_info_spells_them(version: str, minor: tuple[int, int], patch: int | None) -> None:
    assert minor_of(version) == minor
    assert patch_of(version) == patch


@given(st.text(max_size=40))
def test_any_text_is_a_version_or_none(text: str) -> None:
    if minor_of(text) is None:
        with pytest.raises(LayoutError):
            nearest_table(text, "amd64")
    else:
        assert nearest_table(text, "amd64").source == "nearest"


@pytest.mark.parametrize("version", ["", "unknown", "go", "gccgo 12", "devel +abc123", "go1"])
def test_no_release_gets_no_table(version: str) -> None:
    assert table_for(version, "amd64") is None


def test_the_releases_own_table_is_preferred_and_keeps_the_targets_version() -> None:
    layout = table_for("go1.27.3", "amd64")
    assert layout is not None
    assert (layout.source, layout.go_version, layout.confirmed) == ("table", "go1.27.3", True)


def test_a_development_version_has_no_table_but_a_nearest_one() -> None:
    assert table_for("devel go1.27-abc123 Mon", "amd64") is None
    assert nearest_table("devel go1.28-abc123 Mon", "amd64").table_version.startswith("1.27")


@pytest.mark.parametrize(("version", "table"), [("go1.99.0", NEWEST), ("go1.4.3", (1, 9)), ("go2.0", NEWEST)])
def test_an_unknown_release_gets_the_nearest_table_marked_as_such(version: str, table: tuple[int, int]) -> None:
    layout = nearest_table(version, "amd64")
    assert (layout.source, layout.confirmed) == ("nearest", False)
    assert minor_of("go" + layout.table_version) == table


def test_an_architecture_without_tables_is_refused() -> None:
    assert table_for("go1.27.3", "sparc64") is None
    with pytest.raises(LayoutError, match="sparc64"):
        nearest_table("go1.27.3", "sparc64")


def test_every_release_of_the_issue_has_a_table() -> None:
    assert {(1, minor) for minor in range(9, 28)} <= known_minors("amd64")


@pytest.mark.parametrize("minor", range(11, 28))
def test_a_table_has_the_constants_that_a_snapshot_reads_with(minor: int) -> None:
    layout = table_for(f"go1.{minor}", "amd64")
    assert layout is not None
    numbers = {"arena_base_offset", "arena_l1_bits", "arena_l2_bits", "heap_arena_bytes", "persistent_chunk_size"}
    numbers |= {"buck_hash_size", "gc_bits_chunk_bytes", "class_to_size"}
    if layout.has("mheap", "pages.chunks"):
        numbers.add("palloc_chunks_l2_bits")
    assert numbers <= layout.constant_names
    assert layout.constant("arena_base_offset") == (1 << 64) - (1 << 47)


@pytest.mark.parametrize("minor", range(11, 28))
def test_size_classes_fill_their_spans_but_for_an_eighth(minor: int) -> None:
    """mksizeclasses.go bounds the tail waste by 12.5 %: the two arrays belong to each other."""
    layout = table_for(f"go1.{minor}", "amd64")
    assert layout is not None
    sizes, pages = layout.constants("class_to_size"), layout.constants("class_to_allocnpages")
    assert len(sizes) == len(pages) == layout.constant("num_size_classes")
    assert list(sizes) == sorted(set(sizes))
    for size, count in list(zip(sizes, pages, strict=True))[1:]:
        assert count * 8192 % size <= count * 8192 // 8


@pytest.mark.parametrize(
    ("release", "struct", "field", "known"),
    [
        ("go1.13.1", "mheap", "curArena.base", False),
        ("go1.13.4", "mheap", "curArena.base", True),
        ("go1.18", "mspan", "freeIndexForScan", False),
        ("go1.18.9", "mspan", "freeIndexForScan", True),
        ("go1.19", "mspan", "freeIndexForScan", False),
        ("go1.19.8", "mspan", "freeIndexForScan", True),
    ],
)
def test_patches_of_old_minors_differ_as_real_programs_do(release: str, struct: str, field: str, known: bool) -> None:
    layout = table_for(release, "amd64")
    assert layout is not None
    assert layout.confirmed
    assert layout.has(struct, field) is known


def test_patches_of_one_minor_get_the_rows_that_were_measured_for_them() -> None:
    """Go 1.24.11 has m.allpSnapshot, 24 bytes before m.alllink that 1.24.3 lacks."""
    newer, older = table_for("go1.24.11", "amd64"), table_for("go1.24.3", "amd64")
    assert newer is not None
    assert older is not None
    assert newer.confirmed
    assert older.confirmed
    assert newer.offset("m", "alllink") - older.offset("m", "alllink") == 24
    assert newer.has("m", "allpSnapshot")
    assert not older.has("m", "allpSnapshot")


def test_between_two_patches_that_differ_only_the_common_fields_are_known() -> None:
    layout = table_for("go1.24.7", "amd64")
    assert layout is not None
    assert not layout.confirmed
    assert layout.offset("m", "g0") == 0
    assert not layout.has("m", "alllink")
    assert layout.has("mheap", "pages.chunks")
    with pytest.raises(LayoutError, match="size of m"):
        layout.size("m")


def test_a_patch_newer_than_all_measured_is_served_but_not_confirmed() -> None:
    layout = table_for("go1.27.99", "amd64")
    assert layout is not None
    assert (layout.source, layout.confirmed) == ("table", False)


@pytest.mark.parametrize("name", TABLES)
class TestTable:
    """Every table by itself: what a slip in the generator or an edit by hand would break."""

    def test_it_is_spelled_as_the_generator_spells_it(self, name: str) -> None:
        text = files("gomem.tracer.layout").joinpath("tables", name).read_text(encoding="utf-8")
        assert to_text(load(name)) == text

    def test_its_name_says_what_it_is(self, name: str) -> None:
        table = load(name)
        minor = ".".join(table["go"].split(".")[:2])
        assert name == f"go{minor}-{table['goarch']}.json"
        assert table["go"] in table["measured"]
        assert set(table["provenance"]) == {"structs", "constants"}

    def test_fields_lie_within_their_struct(self, name: str) -> None:
        for struct, row in load(name)["structs"].items():
            for field, place in row["fields"].items():
                if "[]" not in field:
                    assert place["offset"] + place["size"] <= row["size"], f"{struct}.{field}"
                if place.get("count"):
                    assert place["count"] * place["stride"] == place["size"], f"{struct}.{field}"

    def test_types_that_it_names_by_value_have_the_size_of_the_field(self, name: str) -> None:
        structs = load(name)["structs"]
        for struct, row in structs.items():
            for field, place in row["fields"].items():
                named = re.fullmatch(r"runtime\.(\w+)", place["type"])
                if named and named[1] in structs:
                    assert structs[named[1]]["size"] == place["size"], f"{struct}.{field}"

    def test_what_a_snapshot_needs_is_there(self, name: str) -> None:
        layout = table_for("go" + load(name)["go"], name.split("-")[1].removesuffix(".json"))
        assert layout is not None
        if has_contiguous_arena(layout):
            places = ("arena_start", "arena_used", "arena_end", "bitmap", "bitmap_mapped", "spans")
            assert all(layout.has("mheap", field) for field in places)
            return
        wanted = {
            "mheap": ["arenas", "allspans", "spanalloc.inuse", "spanalloc.chunk", "cachealloc.inuse", "arenaHints"],
            "mspan": ["startAddr", "npages", "elemsize", "spanclass", "state", "allocCount"],
            "p": ["mcache", "id", "status"],
            "mstats": ["numgc", "pause_total_ns", "other_sys"],
            "heapArena": ["spans"],
            "mcache": ["alloc"],
            "work": ["wbufSpans.free"],
        }
        if layout.has_struct("pageAlloc"):
            wanted["mheap"] += ["pages.chunks", "pages.summary", "pages.inUse.ranges"]
            # Go 1.25 tells user arenas from the others and renamed the list.
            wanted["mheap"].append("heapArenas" if layout.has("mheap", "userArenaArenas") else "allArenas")
            wanted["pallocData"] = ["scavenged"]
        if layout.has_struct("consistentHeapStats"):
            wanted["mstats"] += ["heapStats.stats[].committed", "heapStats.stats[].smallAllocCount"]
        missing = [
            (struct, field) for struct, fields in wanted.items() for field in fields if not layout.has(struct, field)
        ]
        assert not missing
        assert {"mheap_", "memstats", "gcController", "allp", "work", "gcphase", "physPageSize"} <= set(layout.globals)

    def test_its_constants_agree_with_each_other_and_the_structs(self, name: str) -> None:
        layout = table_for("go" + load(name)["go"], name.split("-")[1].removesuffix(".json"))
        assert layout is not None
        assert layout.constant("num_span_classes") == 2 * layout.constant("num_size_classes")
        assert layout.field("mheap", "central").count == layout.constant("num_span_classes")
        assert layout.field("mcache", "alloc").count == layout.constant("num_span_classes")
        if has_contiguous_arena(layout):
            return
        pages = layout.constant("pages_per_arena")
        assert pages * layout.constant("page_size") == layout.constant("heap_arena_bytes")
        assert layout.field("heapArena", "spans").count == pages
        if layout.has_constant("palloc_chunk_pages"):
            assert layout.size("pallocData") == 2 * layout.constant("palloc_chunk_pages") // 8
            assert layout.field("mheap", "pages.chunks").count == 1 << layout.constant("palloc_chunks_l1_bits")
        if layout.has_constant("class_to_size"):
            sizes = layout.constants("class_to_size")
            assert len(sizes) == layout.constant("num_size_classes")
            assert sizes[0] == 0
            assert list(sizes) == sorted(set(sizes))
            assert sizes[-1] == layout.constant("max_small_size")
