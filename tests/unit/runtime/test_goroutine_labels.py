from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.runtime import goroutine_labels
from gomem.tracer.runtime.goroutine_labels import LabelReader
from tests.support.runtime_image import RuntimeImage

MOST = (1 << 64) - 1
TWO = {"handler": "/metrics", "é\udcff": ""}
LIST, MAP, UNKNOWN = "1.27.3", "1.23.9", "1.15.6"


class Labelled:
    """A runtime image with labels as Go keeps them."""

    def __init__(self, release: str) -> None:
        self.runtime = RuntimeImage(release)
        self.image = self.runtime.image

    def string(self, text: str) -> tuple[int, int]:
        raw = text.encode("utf-8", "surrogateescape")
        return (self.image.write(at := self.runtime.room(len(raw)), raw) and at, len(raw)) if raw else (0, 0)

    def as_list(self, labels: dict[str, str]) -> int:
        words = [word for pair in labels.items() for text in pair for word in self.string(text)]
        self.image.words(first := self.runtime.room(8 * len(words) + 8), *words)
        self.image.words(at := self.runtime.room(24), first, len(labels), len(labels))
        return at

    def as_map(self, labels: dict[str, str], *, overflows: bool = False, grows: bool = False) -> int:
        pairs = [(*self.string(key), *self.string(value)) for key, value in labels.items()]
        half = len(pairs) // 2 if overflows or grows else len(pairs)
        second = self.bucket(pairs[half:]) if overflows or grows else 0
        first = self.bucket(pairs[:half], second if overflows else 0)
        hmap = self.runtime.room(self.runtime.layout.size("hmap"))
        told = {"count": len(pairs), "B": 0, "buckets": first, "oldbuckets": second if grows else 0}
        for name, value in told.items():
            self.runtime.set("hmap", hmap, name, value)
        self.image.words(at := self.runtime.room(8), hmap)
        return at

    def bucket(self, pairs: list[tuple[int, int, int, int]], overflow: int = 0) -> int:
        used = bytes([7] * len(pairs) + [0] * (7 - len(pairs)) + [2])  # and one that has gone to another bucket
        keys = [word for pair in pairs for word in pair[:2]] + [0] * (16 - 2 * len(pairs))
        values = [word for pair in pairs for word in pair[2:]] + [0] * (16 - 2 * len(pairs))
        at = self.runtime.room(272)
        self.image.write(at, used + struct.pack("<33Q", *keys, *values, overflow))
        return at

    def reader(self) -> LabelReader:
        return LabelReader(self.image, self.runtime.layout)


def limits(reader: LabelReader) -> list[str]:
    return [limit.id for limit in reader.limits()]


@pytest.mark.parametrize("labels", [{}, {"one": "1"}, TWO])
def test_labels_are_read_as_a_list_and_as_a_map(labels: dict[str, str]) -> None:
    newer, older = Labelled(LIST), Labelled(MAP)
    expected = tuple(sorted(labels.items()))
    for image, at in ((newer, newer.as_list(labels)), (older, older.as_map(labels))):
        reader = image.reader()
        assert reader.read(at) == expected
        assert reader.read(0) is None
        assert limits(reader) == []


@pytest.mark.parametrize("shape", [{"overflows": True}, {"grows": True}])
def test_a_map_of_several_buckets_is_read(shape: dict[str, bool]) -> None:
    image = Labelled(MAP)
    assert image.reader().read(image.as_map(TWO, **shape)) == tuple(sorted(TWO.items()))


def test_a_map_that_was_never_made_is_empty() -> None:
    image = Labelled(MAP)
    assert image.reader().read(image.runtime.room(8)) == ()


def test_how_a_release_keeps_labels_is_not_guessed() -> None:
    image = Labelled(UNKNOWN)
    reader = image.reader()
    assert reader.read(image.runtime.room(24)) is None
    assert limits(reader) == ["goroutine-labels"]


@pytest.mark.parametrize(
    "forged",
    [(8, 1, 1), (0x600000, 1 << 40, 1 << 40), (0x600000, 2, 1), (0x600000, 300, 300), (MOST, MOST, MOST)],
)
def test_a_forged_list_is_told(forged: tuple[int, int, int]) -> None:
    image = Labelled(LIST)
    image.image.words(at := image.runtime.room(24), *forged)
    reader = image.reader()
    assert reader.read(at) is None
    assert limits(reader) == ["goroutine-labels"]


def test_a_map_whose_buckets_lead_back_is_told() -> None:
    image = Labelled(MAP)
    at = image.as_map({"one": "1"})
    bucket = image.bucket([(0, 0, 0, 0)])
    image.image.words(bucket + 264, bucket)
    hmap = int.from_bytes(image.image.read(at, 8), "little")
    image.runtime.set("hmap", hmap, "buckets", bucket)
    reader = image.reader()
    assert reader.read(at) is None
    assert limits(reader) == ["goroutine-labels"]


def test_no_more_text_is_read_than_a_program_labels_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goroutine_labels, "_MOST_TEXT_IN_ALL", 100)
    image = Labelled(LIST)
    reader = image.reader()
    assert reader.read(image.as_list({"one": "x" * 90})) is not None
    assert reader.read(image.as_list({"one": "x" * 90})) is None
    assert limits(reader) == ["goroutine-labels"]


@pytest.mark.parametrize("release", [LIST, MAP])
@given(words=st.lists(st.one_of(st.integers(0, MOST), st.integers(0, 300), st.just(0x7F0000000000)), max_size=60))
def test_any_labels_are_read_or_told_to_be_unread(release: str, words: list[int]) -> None:
    image = Labelled(release)
    image.image.words(at := image.runtime.room(600), *words)
    reader = image.reader()
    assert (reader.read(at) is None) == bool(limits(reader))
