"""Each byte of a look has a holder: by what is mapped, by what the runtime owns, and by whose stack it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.kernel.file_pages import FilePages
from gomem.tracer.kernel.mapping_kinds import Program
from gomem.tracer.kernel.maps import Mappings, parse_maps
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.kernel.smaps import parse_smaps
from gomem.tracer.native.c_memory import NativeRange
from gomem.tracer.profile import goroutine_stacks
from gomem.tracer.profile.goroutine_stacks import of_stacks
from gomem.tracer.profile.holders import Holder, Path, merged, of_heap, of_runtime
from gomem.tracer.profile.in_use import NO_CALLS, of_spans
from gomem.tracer.profile.mapped import Mapped, of_the_rest
from gomem.tracer.profile.slots import PagesIn, slots_of
from gomem.tracer.profile.stacks import Stacks
from gomem.tracer.runtime.goroutines import Goroutines
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.snapshot.join import join
from tests.support.looks import look
from tests.support.runtime_image import ARENA, PAGE

KB, OS_PAGE = 1024, 4096
MAPS = """\
00400000-00500000 r-xp 00000000 08:01 77    /srv/program
00500000-00600000 rw-p 00100000 08:01 77    /srv/program
00600000-00610000 rw-p 00000000 00:00 0
00700000-00800000 rw-p 00000000 00:00 0     [heap]
7f0000000000-7f0000100000 r-xp 00000000 08:01 78    /lib/libc.so.6
7f0000100000-7f0000110000 rw-p 00000000 00:00 0
7f0000200000-7f0000300000 rw-s 00000000 00:01 79    /memfd:cache (deleted)
7f0000300000-7f0000400000 rw-s 00000000 08:01 80    /srv/table
7f0000400000-7f0000500000 rw-p 00000000 00:00 0
7f0000500000-7f0000600000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00100000 rw-p 00000000 00:00 0     [stack]
7ffc00200000-7ffc00202000 r-xp 00000000 00:00 0     [vdso]
"""
PLACE = Program(0x801, 77, ((0x400000, 0x610000),))
NATIVES = [NativeRange(0x7F0000400000, 0x7F0000500000, "c_heap")]
SMAPS = b"""\
7f0000300000-7f0000400000 rw-s 00000000 08:01 80 /srv/table
Shared_Dirty: 4 kB
Private_Dirty: 0 kB
"""


def residency(maps: Mappings) -> Residency:
    """Return the first pages of each mapping; those of files are of the file, but for the first page of the data."""
    start = np.concatenate([maps.start, maps.start + np.uint64(OS_PAGE)])
    start.sort()
    size = np.full(len(start), OS_PAGE, np.uint64)
    of_file = (maps.inode[maps.find(start)] != 0) & (start != np.uint64(0x500000))
    flags = np.where(of_file, Page.PRESENT | Page.FILE, Page.PRESENT).astype(np.uint8)
    return Residency(Ranges(start, start + size), flags, size, size - size, "pagemap_scan", exact=True)


def found(*, pages: FilePages | None = None, smaps: bytes = b"", told: bool = True) -> dict[Path, int]:
    maps = parse_maps(MAPS.encode())
    resident = residency(maps)
    space = join(maps, resident, None, PLACE, NATIVES)
    anonymous = space.resident - np.minimum(resident.file_in(space.start, space.end), space.resident)
    mapped = Mapped(maps, anonymous if told else None, (0x1,), pages, parse_smaps(smaps) if smaps else None)
    rows = list(of_the_rest(space, mapped))
    assert sum(row.resident for row in rows) == resident.rss_bytes
    assert sum(row.virtual for row in rows) == maps.virtual_bytes
    return {row.path: row.resident for row in merged(rows) if row.resident}


class TestMapped:
    def test_each_kind_of_memory_has_its_name(self) -> None:
        program, libc = ("executable", "/srv/program"), ("shared libraries", "/lib/libc.so.6")
        assert found(pages=FilePages(1, 0, 0)) == {
            (*program, "program: code, clean"): 8 * KB,
            (*program, "program: data, private copies"): 4 * KB,
            (*program, "program: data, clean"): 4 * KB,
            (*program, "program: bss"): 8 * KB,
            (*libc, "libc.so.6: code, clean"): 8 * KB,
            (*libc, "libc.so.6: bss"): 8 * KB,
            ("C heap", "main arena of malloc, by brk"): 8 * KB,
            ("C heap", "arenas and mapped chunks of malloc"): 8 * KB,
            ("shared memory", "/memfd:cache (deleted)", "memfd:cache: data"): 8 * KB,
            ("mapped files", "/srv/table", "table: data, clean"): 8 * KB,
            ("thread stacks", "stack of the main thread"): 8 * KB,
            ("pages of the kernel", "[vdso]"): 8 * KB,
            ("unknown", "anonymous memory of no known owner"): 8 * KB,
        }

    def test_dirty_pages_are_told_by_mapping(self) -> None:
        told = found(pages=FilePages(20480, 4096, 0), smaps=SMAPS)
        table = ("mapped files", "/srv/table")
        assert told[*table, "table: data, dirty"] == 4 * KB
        assert told[*table, "table: data, clean"] == 4 * KB

    def test_pages_whose_state_is_not_known_are_not_called_clean(self) -> None:
        names = {path[-1] for path in found()}
        assert "table: data, clean or dirty" in names
        assert not any(name.endswith(", clean") for name in names)

    def test_without_their_kinds_pages_of_files_are_not_told_from_copies(self) -> None:
        assert "program: data, of the file or private copies" in {path[-1] for path in found(told=False)}


def of_look() -> tuple[list[Holder], int]:
    seen = look()
    assert seen.runtime is not None
    space, resident = seen.space, seen.kernel.residency
    anonymous = space.resident - np.minimum(resident.file_in(space.start, space.end), space.resident)
    rows = [
        *of_heap(space),
        *of_runtime(space, seen.runtime.regions),
        *of_the_rest(space, Mapped(seen.kernel.mappings, anonymous)),
        *of_stacks(PagesIn(space, resident, PageState.STACK), None, lambda stacks: []),
        *of_spans(slots_of(seen.runtime.spans, space, resident), seen.runtime, NO_CALLS),
    ]
    return merged(rows), resident.rss_bytes


def test_all_of_a_look_has_one_holder() -> None:
    """3 pages in use, 4 of a stack, 4 of a work buffer, 2 in a page cache; the chunk's first 20 are in RAM."""
    rows, rss = of_look()
    assert sum(row.resident for row in rows) == rss
    sums: dict[Path, int] = defaultdict(int)
    for row in rows:
        sums[row.path[:2]] += row.resident
    assert sums["Go heap", "spans in use"] == 3 * PAGE
    assert sums["Go runtime", "GC work buffers"] == 4 * PAGE
    assert sums["Go heap", "free and retained"] == 9 * PAGE
    assert sums["goroutine stacks", "stacks that are not told apart"] == 4 * PAGE
    elsewhere = sum(size for path, size in sums.items() if path[0] not in ("Go heap", "goroutine stacks", "executable"))
    assert elsewhere == 4 * PAGE + 0x8000 + 0x2000


def goroutines(rows: Iterable[tuple[int, int, int, int, int]]) -> Goroutines:
    """Return goroutines of (status, stack.lo, stack.hi, startpc, gopc)."""
    columns = np.array(list(rows), np.uint64).reshape(-1, 5).T
    names = ("atomicstatus", "stack.lo", "stack.hi", "startpc", "gopc")
    return Goroutines(np.arange(len(columns[0]), dtype=np.uint64), dict(zip(names, columns, strict=True)))


class Calls:
    """Takes stacks for what they are: the index of a location is an address."""

    def __call__(self, stacks: Stacks) -> list[tuple[int, ...]]:
        edges = stacks.first.tolist()
        return [tuple(stacks.pcs[low:high].tolist()) for low, high in pairwise(edges)]


@cache
def stack_pages() -> PagesIn:
    seen = look()
    return PagesIn(seen.space, seen.kernel.residency, PageState.STACK)


STACK = ARENA + 3 * PAGE  # where the look has four pages of stacks


class TestStacks:
    def test_stacks_are_of_who_created_their_goroutine(self) -> None:
        gs = goroutines(
            [
                (4, STACK, STACK + 2048, 100, 200),
                (4, STACK + PAGE, STACK + PAGE + 4096, 100, 200),
                (4, STACK + 4096, STACK + 4096 + 2048, 100, 300),
                (6, STACK + 2 * PAGE, STACK + 2 * PAGE + 2048, 0, 0),
                (6, 0, 0, 0, 0),
            ]
        )
        rows = {(row.path[1:], row.stack): row.resident for row in merged(of_stacks(stack_pages(), gs, Calls()))}
        assert rows == {
            (("stacks of goroutines",), (101, 200)): 6 * KB,
            (("stacks of goroutines",), (101, 300)): 2 * KB,
            (("stacks kept with ended goroutines",), ()): 2 * KB,
            (("free stacks, and those of threads",), ()): 22 * KB,
        }

    def test_only_so_many_calls_are_named_those_with_the_largest_stacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(goroutine_stacks, "_MOST_CALLS", 1)
        gs = goroutines([(4, STACK, STACK + 2048, 100, 200), (4, STACK + 4096, STACK + 8192, 300, 400)])
        rows = {row.path[1:]: (row.stack, row.resident) for row in merged(of_stacks(stack_pages(), gs, Calls()))}
        assert rows["stacks of goroutines",] == ((301, 400), 4 * KB)
        assert rows["stacks of goroutines", "of further functions and calls"] == ((), 2 * KB)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([4, 6, 99]),
                st.integers(0, 1 << 63) | st.integers(STACK - PAGE, STACK + 5 * PAGE),
                st.integers(0, 1 << 63) | st.integers(STACK - PAGE, STACK + 5 * PAGE),
                st.integers(0, 2) | st.just((1 << 64) - 1),
                st.integers(0, 2),
            ),
            max_size=6,
        )
    )
    def test_whatever_goroutines_claim_all_sums_to_the_pages_of_stacks(
        self, rows: list[tuple[int, int, int, int, int]]
    ) -> None:
        pages = stack_pages()
        told = list(of_stacks(pages, goroutines(rows), Calls()))
        assert (sum(row.virtual for row in told), sum(row.resident for row in told)) == pages.all().total()
        assert all(row.virtual >= row.resident >= 0 for row in told)
