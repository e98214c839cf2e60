"""What a cgroup is charged, as rows of a table: for the page of a report and for that of `gomem pod`."""

from __future__ import annotations

from collections.abc import Iterator

from gomem.exporters.text.page import words
from gomem.exporters.text.table import Cell, Column
from gomem.exporters.units import percent, plural, size
from gomem.tracer.report import CgroupBill

COLUMNS = (Column("", left=True), Column(""), Column(""), Column("", left=True, worth=2, wraps=26))
_INDENT = "  "
_MEANS = {
    "anonymous": "heaps, stacks, C memory: in processes",
    "file pages": "the kernel takes them back when memory is short",
    "active": "used twice or more: in the working set",
    "inactive": "used once; lazily freed pages, too: not in the working set",
    "dirty": "to be written before they are taken back",
    "tmpfs": "files in memory, shared memory: only swap takes them",
    "kernel": "not in any RSS",
    "sockets": "buffers of the network",
    "swap": "not in RAM, not in the usage",
    "zswap": "compressed, of what is swapped out",
}
_KERNEL = {
    "slab_reclaimable": "slab, reclaimable",
    "slab_unreclaimable": "slab",
    "pagetables": "page tables",
    "kernel_stack": "thread stacks",
    "percpu": "per-CPU",
    "vmalloc": "vmalloc",
}


def bill_rows(bill: CgroupBill) -> Iterator[list[Cell]]:
    """Yield the rows of its parts; what is 0 or not known is left out."""
    parts, whole = bill.parts, bill.memory_current
    files = parts.get("active_file", 0) + parts.get("inactive_file", 0)
    yield from _row("anonymous", parts.get("anon"), whole)
    yield from _row("file pages", files, whole)
    yield from _row("active", parts.get("active_file"), whole, _INDENT)
    yield from _row("inactive", parts.get("inactive_file"), whole, _INDENT)
    yield from _row("dirty", parts.get("file_dirty", 0) + parts.get("file_writeback", 0), whole, _INDENT)
    yield from _row("tmpfs", parts.get("shmem"), whole)
    yield from _row("kernel", parts.get("kernel"), whole)
    for word, name in _KERNEL.items():
        yield from _row(name, parts.get(word), whole, _INDENT)
    if bill.version == 2:  # v1 has a limit of its own for them
        yield from _row("sockets", parts.get("sock"), whole)
    yield from _row("swap", parts.get("swap"), None)
    yield from _row("zswap", parts.get("zswap"), None)


def _row(name: str, amount: int | None, whole: int | None, indent: str = "") -> Iterator[list[Cell]]:
    if amount:
        share = "" if whole is None else percent(amount, whole)
        yield [indent + name, size(amount), share, words((_MEANS.get(name, ""), "dim"))]


def headline(bill: CgroupBill) -> str:
    """Return the sums of a bill in one line."""
    told = [f"working set {size(bill.working_set)} of {size(bill.memory_current)} charged"]
    told += [f"{size(bill.reclaimable)} can be reclaimed", f"{size(bill.unmapped)} in no process's RSS"]
    return "; ".join(told)


def bounds(bill: CgroupBill) -> str:
    """Return its limits and what came of them in one line."""
    told = [f"limit {size(bill.memory_max)}" if bill.memory_max is not None else "no limit of its own"]
    if bill.limit is not None and bill.limit != bill.memory_max:
        told.append(f"{size(bill.limit)} by " + (bill.limited_by or "a cgroup above that cannot be seen"))
    told += [f"memory.high {size(bill.memory_high)}"] if bill.memory_high is not None else []
    told += [f"swap up to {size(bill.swap_max)}"] if bill.swap_max is not None else []
    told += [f"peak {size(bill.memory_peak)}"] if bill.memory_peak is not None else []
    for event, what in (("high", "time above high"), ("max", "time at the limit"), ("oom_kill", "OOM kill")):
        if count := bill.events.get(event):
            told.append(plural(count, what, what.replace("time", "times") if "time" in what else ""))
    return ", ".join(told)


def pressure(bill: CgroupBill) -> str | None:
    """Return for how long its processes waited for memory; None where it is not known or not at all."""
    if bill.pressure is None or not bill.pressure.some.total:
        return None
    some, full = bill.pressure.some, bill.pressure.full
    return (
        f"waited for memory: {some.avg60:.1f} % of the last minute, all tasks {full.avg60:.1f} %; "
        f"{some.total:.1f} s since the start"
    )
