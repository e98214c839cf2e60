"""How the kernel is set that decides what becomes of memory.

Sources: Documentation/admin-guide/mm/transhuge.rst, ksm.rst, zswap.rst, multigen_lru.rst, damon/; proc_meminfo(5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from gomem.tracer.errors import GomemError, TargetGone
from gomem.tracer.kernel.smaps import Rollup, read_smaps
from gomem.tracer.proc.small_files import Status, colon_fields, decimal, kib_field, printable
from gomem.tracer.process.target import Target
from gomem.tracer.report import HugePages, MemorySettings

_PAGE = os.sysconf("SC_PAGESIZE")
_MM = Path("/sys/kernel/mm")
_THP = _MM / "transparent_hugepage"
_CHOSEN = re.compile(r"\[([a-z_+]{1,40})\]")
_BYTES = 1 << 17
_MOST_MAPPINGS = 10_000  # as file_pages.py: more take too long
_MOST_KDAMONDS = 64
_KSM: dict[str, Literal["off", "on", "unmerging"]] = {"0": "off", "1": "on", "2": "unmerging"}


def chosen(text: str) -> str | None:
    """Return the word in brackets of "always [madvise] never", None where there is none."""
    found = _CHOSEN.search(text)
    return found[1] if found else None


def read_settings(target: Target, status: Status, rollup: Rollup | None, mappings: int) -> MemorySettings:
    """Return how the machine and the process are set now; what this kernel has not is None. Raises TargetGone."""
    machine = colon_fields(_text("/proc/meminfo").encode())
    merged = decimal(worded(_of(target, "ksm_stat")).get("ksm_merging_pages", ""))
    stolen = decimal(worded(_text("/proc/vmstat")).get("pgsteal_proactive", ""))
    return MemorySettings(
        huge_pages=_huge_pages(target, status, rollup, mappings),
        swap_total=kib_field(machine, "SwapTotal"),
        swap_free=kib_field(machine, "SwapFree"),
        swappiness=decimal(_text("/proc/sys/vm/swappiness")),
        zswap={"Y": True, "N": False}.get(_text("/sys/module/zswap/parameters/enabled")),
        ksm=_KSM.get(_text(_MM / "ksm/run")),
        ksm_merged=None if merged is None else merged * _PAGE,
        lru_gen=_lru_gen(_text(_MM / "lru_gen/enabled")),
        damon=_damon(),
        proactively_reclaimed=None if stolen is None else stolen * _PAGE,
    )


def worded(text: str) -> dict[str, str]:
    """Return a file of "name number" lines as a dict."""
    pairs = (line.partition(" ") for line in text.split("\n"))
    return {name: value.strip() for name, _, value in pairs}


def _huge_pages(target: Target, status: Status, rollup: Rollup | None, mappings: int) -> HugePages:
    advised, refused, within = _advice(target, rollup, mappings)
    return HugePages(
        enabled=chosen(_text(_THP / "enabled")),
        defrag=chosen(_text(_THP / "defrag")),
        shmem_enabled=chosen(_text(_THP / "shmem_enabled")),
        max_ptes_none=decimal(_text(_THP / "khugepaged/max_ptes_none")),
        disabled=None if status.thp_enabled is None else status.thp_enabled == 0,
        advised=advised,
        refused=refused,
        in_advised=within,
    )


def _advice(target: Target, rollup: Rollup | None, mappings: int) -> tuple[int | None, int | None, int | None]:
    """Return the bytes of mappings with each advice; to read them takes a walk of the page tables."""
    if rollup is None or not rollup.anon_huge_pages or mappings > _MOST_MAPPINGS:
        return None, None, None
    try:
        smaps = read_smaps(target)
    except TargetGone:
        raise
    except (GomemError, OSError):
        return None, None, None
    sizes = smaps.end - smaps.start
    within = smaps.column("AnonHugePages")[smaps.advised]
    return int(sizes[smaps.advised].sum()), int(sizes[smaps.refused].sum()), int(within.sum())


def _lru_gen(word: str) -> bool | None:
    try:
        return bool(int(word, 16) & 1) if word else None
    except ValueError:
        return None


def _damon() -> list[str]:
    modules = ("reclaim", "lru_sort")
    active = [name for name in modules if _text(f"/sys/module/damon_{name}/parameters/enabled") == "Y"]
    daemons = _MM / "damon/admin/kdamonds"
    count = min(decimal(_text(daemons / "nr_kdamonds")) or 0, _MOST_KDAMONDS)
    if any(_text(daemons / str(number) / "state") == "on" for number in range(count)):
        active.append("kdamond")
    return active


def _of(target: Target, name: str) -> str:
    try:
        return printable(target.read(name))
    except TargetGone:
        raise
    except (GomemError, OSError):
        return ""


def _text(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            return printable(file.read(_BYTES)).strip()
    except OSError:
        return ""
