"""A small Go runtime that tests write into an image, by the struct layouts of a release."""

from __future__ import annotations

from collections.abc import Iterable

from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.tables import table_for
from gomem.tracer.runtime.regions import Roots
from gomem.tracer.runtime.snapshot import RuntimeReader
from gomem.tracer.runtime.spans import IN_USE
from gomem.tracer.runtime.structs import Record, read_record
from tests.support.image import Image

PAGE = 8192
CHUNK = 4 << 20
ARENA = 0xC000000000
STRUCTS = {"mheap_": "mheap", "memstats": "mstats", "gcController": "gcControllerState", "work": "workType"}
SMALL = ("allp", "gcphase", "persistentChunks", "gcBitsArenas", "buckhash", "allfin")


def table(release: str) -> Layout:
    """Return the layout table of a release on amd64."""
    layout = table_for(f"go{release}", "amd64")
    assert layout is not None
    return layout


class RuntimeImage:
    """An empty runtime: no span, no chunk, no P, until a test adds them; `finish` before reading it."""

    def __init__(self, release: str = "1.27.3") -> None:
        self.layout = table(release)
        self.image = Image()
        self.globals: dict[str, int] = {}
        self.spans: list[int] = []
        self.ps: list[int] = []
        self.ranges: list[tuple[int, int]] = []
        self._next = 0x7F0000000000
        at = 0x600000
        for name, struct in STRUCTS.items():
            # Up to Go 1.18 the type of the global work has no name.
            size = self.layout.size(struct if self.layout.has_struct(struct) else name)
            self.globals[name] = self.image.reserve(at, size)
            at += size + 4096 & -4096
        for name in SMALL:
            self.globals[name] = self.image.reserve(at, 256)
            at += 256
        if self.layout.has("gcControllerState", "memoryLimit"):
            self.set("gcControllerState", self.globals["gcController"], "memoryLimit", (1 << 63) - 1)
            self.set("gcControllerState", self.globals["gcController"], "triggered", (1 << 64) - 1)

    def room(self, size: int) -> int:
        """Return the address of fresh zeroed memory."""
        address = self.image.reserve(self._next, size)
        self._next += size + 15 & -16
        return address

    def set(self, struct: str, address: int, field: str, value: int) -> None:
        """Write an integer field."""
        spot = self.layout.field(struct, field)
        size = min(spot.size, 8)
        self.image.write(address + spot.offset, (value & (1 << size * 8) - 1).to_bytes(size, "little"))

    def controller(self, **fields: int) -> Record:
        """Write fields of gcController, and return it as read."""
        for name, value in fields.items():
            self.set("gcControllerState", self.globals["gcController"], name, value)
        return self.record("gcController")

    def slice(self, field: str, words: Iterable[int], capacity: int | None = None) -> int:
        """Write a slice of words into a field of mheap, and return the address of its array."""
        values = list(words)
        address = self.room(8 * max(len(values), 1))
        self.image.words(address, *values)
        offset = self.globals["mheap_"] + self.layout.offset("mheap", field)
        self.image.words(offset, address, len(values), len(values) if capacity is None else capacity)
        return address

    def span(
        self, start: int = ARENA, pages: int = 1, state: int = IN_USE, span_class: int = 10, size: int = 48,
        capacity: int = 170, objects: int = 0, before: int = 0, padding: int = 0,
    ) -> int:  # fmt: skip
        """Add an mspan, `padding` bytes behind the last one, and return its address."""
        self._next += padding
        address = self.room(self.layout.size("mspan"))
        fields = {
            "startAddr": start, "npages": pages, "state": state, "spanclass": span_class, "elemsize": size,
            "nelems": capacity, "allocCount": objects, "allocCountBeforeCache": before,
        }  # fmt: skip
        for name, value in fields.items():
            if self.layout.has("mspan", name) or value:
                self.set("mspan", address, name, value)
        self.spans.append(address)
        return address

    def grow(self, base: int, allocated: Iterable[Iterable[int]], scavenged: Iterable[Iterable[int]]) -> None:
        """Add neighbouring chunks at `base`: for each the numbers of its allocated and of its scavenged pages."""
        bits = list(zip(map(bitmap, allocated), map(bitmap, scavenged), strict=True))
        l2_bits = self.layout.constant("palloc_chunks_l2_bits")
        size = self.layout.size("pallocData")
        first = (base - self.layout.constant("arena_base_offset") & (1 << 64) - 1) // CHUNK
        table_at = self.globals["mheap_"] + self.layout.offset("mheap", "pages.chunks")
        for number, (used, gone) in enumerate(bits, first):
            slot = table_at + (number >> l2_bits) * 8
            l2 = int.from_bytes(self.image.read(slot, 8), "little") or self.room(size << l2_bits)
            self.image.words(slot, l2)
            at = l2 + (number & (1 << l2_bits) - 1) * size
            self.image.write(at, used)
            self.image.write(at + self.layout.offset("pallocData", "scavenged"), gone)
        self.ranges.append((base, base + len(bits) * CHUNK))

    def p(self, *cached: int, cache: tuple[int, int, int] = (0, 0, 0), tiny: int = 0) -> int:
        """Add a P whose mcache holds the mspans `cached`, and with a page cache (base, free, scavenged)."""
        address, mcache = self.room(self.layout.size("p")), self.room(self.layout.size("mcache"))
        self.set("p", address, "mcache", mcache)
        for name, value in zip(("base", "cache", "scav"), cache, strict=True) if any(cache) else ():
            offset = self.layout.offset("p", "pcache") + self.layout.offset("pageCache", name)
            self.image.words(address + offset, value)
        spot = self.layout.field("mcache", "alloc")
        slots = [0x777000] * (spot.size // 8)  # emptymspan
        for number, span in enumerate(cached, 4):
            slots[number] = span
        self.image.words(mcache + spot.offset, *slots)
        name = "tinyAllocs" if self.layout.has("mcache", "tinyAllocs") else "local_tinyallocs"
        self.set("mcache", mcache, name, tiny)
        self.ps.append(address)
        return address

    def arenas(self, *bases: int) -> None:
        """Tell mheap of arenas, each with its heapArena."""
        size = self.layout.constant("heap_arena_bytes")
        index = [(base - self.layout.constant("arena_base_offset") & (1 << 64) - 1) // size for base in bases]
        self.slice("heapArenas" if self.layout.has("mheap", "heapArenas") else "allArenas", index)
        second = self.room(8 << self.layout.constant("arena_l2_bits"))
        self.image.words(self.globals["mheap_"] + self.layout.offset("mheap", "arenas"), second)
        for one in index:
            self.image.words(second + one * 8, self.room(4096))

    def delta(self, number: int, **fields: int) -> None:
        """Write fields of one of heapStats' three deltas."""
        at = self.globals["memstats"] + self.layout.offset("mstats", "heapStats.stats")
        for name, value in fields.items():
            self.set("heapStatsDelta", at + number * self.layout.size("heapStatsDelta"), name, value)

    def by_class(self, number: int, field: str, size_class: int, value: int) -> None:
        """Write one element of an array of a heapStats delta."""
        at = self.globals["memstats"] + self.layout.offset("mstats", "heapStats.stats")
        at += number * self.layout.size("heapStatsDelta") + self.layout.offset("heapStatsDelta", field)
        self.image.words(at + 8 * size_class, value)

    def finish(self) -> RuntimeImage:
        """Write the slices of what was added."""
        self.slice("allspans", self.spans)
        if self.layout.has("mheap", "pages.inUse.ranges"):
            self.slice("pages.inUse.ranges", [edge for pair in self.ranges for edge in pair])
            spot = self.globals["mheap_"] + self.layout.offset("mheap", "pages.inUse.ranges")
            self.image.words(spot + 8, len(self.ranges), len(self.ranges))
        self.image.words(self.globals["allp"], self.room(8 * max(len(self.ps), 1)), len(self.ps), len(self.ps))
        address = int.from_bytes(self.image.read(self.globals["allp"], 8), "little")
        self.image.words(address, *self.ps)
        return self

    def record(self, name: str) -> Record:
        """Return one of the global structs as read."""
        return read_record(self.image, self.layout, STRUCTS[name], self.globals[name])

    def roots(self) -> Roots:
        """Return what the walk over owned regions starts from."""
        return Roots(self.image, self.layout, self.record("mheap_"), self.globals)

    def reader(self) -> RuntimeReader:
        """Return a reader of this runtime."""
        return RuntimeReader(self.image, self.layout, self.globals)


def bitmap(pages: Iterable[int]) -> bytes:
    """Return 512 bits, those of `pages` set."""
    return sum(1 << page for page in set(pages)).to_bytes(64, "little")
