"""Looking up fields: dotted paths go through named, anonymous and repeated structs alike."""

from __future__ import annotations

import pytest

from gomem.tracer.errors import LayoutError
from gomem.tracer.layout.layout import Layout, RawLayout

RAW: RawLayout = {
    "go": "1.20.6",
    "goarch": "amd64",
    "measured": ["1.20.6"],
    "constants": {"page_size": 8192, "class_to_size": [0, 8, 16]},
    "structs": {
        "mheap": {
            "size": 400,
            "fields": {
                "pages": {"offset": 8, "size": 64, "type": "runtime.pageAlloc"},
                "central": {"offset": 80, "size": 64, "type": "[2]struct { }", "count": 2, "stride": 32},
                "central[].mcentral": {"offset": 4, "size": 28, "type": "runtime.mcentral"},
            },
        },
        "pageAlloc": {
            "size": 64,
            "fields": {
                "chunks": {"offset": 16, "size": 8, "type": "[1]*[8]runtime.pallocData", "count": 1, "stride": 8},
                "scav": {"offset": 32, "size": 16, "type": "struct { }"},
                "scav.index": {"offset": 40, "size": 8, "type": "runtime.scavengeIndex"},
                "sets": {"offset": 48, "size": 16, "type": "[2]runtime.spanSet", "count": 2, "stride": 8},
            },
        },
        "scavengeIndex": {"size": 8, "fields": {"min": {"offset": 4, "size": 4, "type": "uint32"}}},
        "mcentral": {"size": 28, "fields": {"full": {"offset": 8, "size": 16, "type": "[2]runtime.spanSet"}}},
        "spanSet": {"size": 8, "fields": {"index": {"offset": 6, "size": 2, "type": "uint16"}}},
    },
    "globals": {
        "mheap_": {"type": "runtime.mheap", "size": 400},
        "debug": {"type": "struct", "size": 8, "fields": {"gctrace": {"offset": 4, "size": 4, "type": "int32"}}},
    },
}
LAYOUT = Layout(RAW, "table", "go1.20.7")


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        ("pages", 8),
        ("pages.chunks", 24),
        ("pages.scav.index", 48),
        ("pages.scav.index.min", 52),
        ("central[].mcentral", 4),
        ("central[].mcentral.full", 12),
        ("pages.sets[].index", 6),
        ("central[].mcentral.full[].index", 6),
    ],
)
def test_paths_go_through_nested_structs_and_start_anew_at_an_array_element(path: str, offset: int) -> None:
    assert LAYOUT.offset("mheap", path) == offset
    assert LAYOUT.has("mheap", path)


def test_an_array_field_keeps_its_count_and_stride_behind_a_prefix() -> None:
    field = LAYOUT.field("mheap", "pages.sets")
    assert (field.offset, field.count, field.stride) == (56, 2, 8)


def test_globals_answer_like_the_struct_that_they_are() -> None:
    assert LAYOUT.offset("debug", "gctrace") == 4
    assert LAYOUT.offset("mheap_", "pages.chunks") == 24
    assert LAYOUT.size("mheap_") == 400
    assert LAYOUT.globals["debug"].size == 8


@pytest.mark.parametrize(
    "path", ["", ".", "pages.", "pages.nothing", "pages.chunks.x", "central[].nothing", "[]", "x[]"]
)
def test_what_is_not_there_is_named_with_its_release(path: str) -> None:
    assert not LAYOUT.has("mheap", path)
    with pytest.raises(LayoutError, match=r"go1\.20\.7/amd64 has no field .* in struct mheap"):
        LAYOUT.offset("mheap", path)


def test_an_unknown_struct_is_named() -> None:
    assert not LAYOUT.has_struct("treapNode")
    with pytest.raises(LayoutError, match="has no struct treapNode"):
        LAYOUT.offset("treapNode", "left")
    with pytest.raises(LayoutError, match="treapNode"):
        LAYOUT.size("treapNode")


def test_constants_are_numbers_or_arrays_and_never_confused() -> None:
    assert LAYOUT.constant("page_size") == 8192
    assert LAYOUT.constants("class_to_size") == (0, 8, 16)
    for name in ("class_to_size", "workbuf_size"):
        with pytest.raises(LayoutError, match=name):
            LAYOUT.constant(name)
    with pytest.raises(LayoutError, match="page_size"):
        LAYOUT.constants("page_size")


def test_a_struct_that_names_itself_by_value_ends() -> None:
    raw: RawLayout = {
        **RAW,
        "structs": {"a": {"size": 8, "fields": {"a": {"offset": 0, "size": 8, "type": "runtime.a"}}}},
    }
    assert not Layout(raw, "table").has("a", ".".join(["a"] * 100) + ".b")
