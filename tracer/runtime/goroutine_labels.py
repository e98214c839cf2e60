"""The labels that programs give their goroutines: what runtime/pprof's Do and SetGoroutineLabels leave in g.labels.

Source: labelMap in runtime/pprof/label.go: a map up to Go 1.23 (hmap, bmap and evacuated in runtime/map.go), since then
a list of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, read_words
from gomem.tracer.report import Limit

Labels = tuple[tuple[str, str], ...]

_LABEL_MAP = "runtime/pprof.labelMap"
_MOST_LABELS, _MOST_TEXT = 256, 1 << 16  # of one goroutine; bytes
_MOST_SETS, _MOST_TEXT_IN_ALL = 1 << 16, 1 << 24
# A bucket of map[string]string: a byte for each slot, the keys, the values, and the next bucket.
_SLOTS = 8
_BUCKET_WORDS = 1 + 2 * 2 * _SLOTS + 1
_FIRST_USED = 5  # minTopHash
_MOST_BUCKETS = 64


class LabelReader:
    """Reads the labels that g.labels points at; those of one goroutine are shared by what it starts."""

    def __init__(self, memory: Memory, layout: Layout) -> None:
        """`layout`: tells whether they are a list, a map, or not known."""
        self._memory = memory
        self._layout = layout
        self._known: dict[int, Labels | None] = {0: None}
        self._text_left = _MOST_TEXT_IN_ALL
        self._unread = 0

    def read(self, pointer: int) -> Labels | None:
        """Return the labels, sorted; None where a goroutine has not even an empty set of them."""
        if pointer not in self._known:
            try:
                self._known[pointer] = self._read(pointer)
            except SnapshotError:
                self._known[pointer] = None
                self._unread += 1
        return self._known[pointer]

    def limits(self) -> Iterator[Limit]:
        """Yield why labels are missing, if any are."""
        if self._unread:
            why = f"{self._unread} sets of labels could not be read"
            yield Limit("goroutine-labels", "labels of goroutines", why, "")

    def _read(self, pointer: int) -> Labels:
        if len(self._known) > _MOST_SETS:
            raise SnapshotError("there are more sets of labels than a program makes")
        if self._layout.has_struct(_LABEL_MAP):
            pairs = self._of_list(pointer)
        elif self._layout.has_struct("hmap"):
            pairs = self._of_map(pointer)
        else:
            raise SnapshotError("it is not known how this release keeps labels")
        return tuple(sorted(self._texts(pairs)))

    def _of_list(self, pointer: int) -> list[list[int]]:
        """Return the pairs of strings in a []label: address and length of the key, then of the value."""
        first, length, capacity = read_words(self._memory, pointer, 3).tolist()
        if not length <= capacity or length > _MOST_LABELS:
            raise SnapshotError(f"a goroutine claims {length} labels")
        words = read_words(self._memory, first, 4 * length).tolist() if length else []
        return [words[at : at + 4] for at in range(0, len(words), 4)]

    def _of_map(self, pointer: int) -> list[list[int]]:
        """Return the pairs in a map[string]string; it does not change once it is made, but may have been made larger.

        What has gone to the new buckets is marked as gone in the old ones.
        """
        address = int(read_words(self._memory, pointer, 1)[0])
        if not address:
            return []
        raw = self._memory.read(address, self._layout.size("hmap"))

        def number(name: str) -> int:
            spot = self._layout.field("hmap", name)
            return int.from_bytes(raw[spot.offset : spot.offset + spot.size], "little")

        if number("count") > _MOST_LABELS:
            raise SnapshotError(f"a goroutine claims {number('count')} labels")
        count = min(1 << min(number("B"), 32), _MOST_BUCKETS)
        pairs = [
            pair
            for name in ("buckets", "oldbuckets")
            if number(name)
            for pair in self._of_buckets(number(name), count if name == "buckets" else max(count // 2, 1))
        ]
        if len(pairs) != number("count"):
            raise SnapshotError("a map of labels has not as many as it says")
        return pairs

    def _of_buckets(self, first: int, count: int) -> Iterator[list[int]]:
        left = [first + at * _BUCKET_WORDS * 8 for at in range(count)]
        for _ in range(2 * _MOST_BUCKETS):
            if not left:
                return
            used, *words, following = read_words(self._memory, left.pop(), _BUCKET_WORDS).tolist()
            for slot in range(_SLOTS):
                if used >> 8 * slot & 0xFF >= _FIRST_USED:
                    yield words[2 * slot : 2 * slot + 2] + words[2 * (_SLOTS + slot) : 2 * (_SLOTS + slot) + 2]
            left += [following] if following else []
        raise SnapshotError("a map of labels has buckets without end")

    def _texts(self, pairs: list[list[int]]) -> Iterator[tuple[str, str]]:
        size = sum(pair[1] + pair[3] for pair in pairs)
        if size > min(_MOST_TEXT, self._text_left):
            raise SnapshotError(f"a goroutine claims {size} bytes of labels")
        self._text_left -= size
        for key, key_size, value, value_size in pairs:
            yield self._text(key, key_size), self._text(value, value_size)

    def _text(self, address: int, size: int) -> str:
        return self._memory.read(address, size).decode("utf-8", "surrogateescape") if size else ""
