"""How the kernel is set that decides what becomes of memory: huge pages, swap, merging, reclaim."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count


class HugePages(Struct, frozen=True):
    """Transparent huge pages, as they are set for the machine, for the process, and for its mappings.

    `enabled`, `defrag` and `shmem_enabled` are the chosen words of /sys/kernel/mm/transparent_hugepage, `max_ptes_none`
    khugepaged's: how many of the 512 pages of a huge page may be missing when it makes one.
    `advised` and `refused` are bytes of mappings with MADV_HUGEPAGE and MADV_NOHUGEPAGE, `in_advised` of anonymous huge
    pages in the former; they are read only where the process has huge pages.
    """

    enabled: str | None
    defrag: str | None
    shmem_enabled: str | None
    max_ptes_none: Count | None
    disabled: Annotated[bool | None, Meta(description="for this process, by prctl(PR_SET_THP_DISABLE)")]
    advised: Bytes | None
    refused: Bytes | None
    in_advised: Bytes | None


class MemorySettings(Struct, frozen=True):
    """Of the machine, but for `ksm_merged` and what is said of the process in `huge_pages`. None: no such thing here.

    `damon`: what of DAMON is active, "reclaim", "lru_sort" or "kdamond". `proactively_reclaimed`: by memory.reclaim of
    any cgroup since the machine began, pgsteal_proactive of /proc/vmstat.
    """

    huge_pages: HugePages
    swap_total: Bytes | None
    swap_free: Bytes | None
    swappiness: Count | None
    zswap: Annotated[bool | None, Meta(description="whether it compresses what is swapped out")]
    ksm: Annotated[
        Literal["off", "on", "unmerging"] | None,
        Meta(description="whether equal pages are merged, where advised"),
    ]
    ksm_merged: Annotated[Bytes | None, Meta(description="of the process, merged with others")]
    lru_gen: Annotated[bool | None, Meta(description="the multi-generational LRU")]
    damon: list[str]
    proactively_reclaimed: Bytes | None
