"""Sections on limits that are near, the CPU quota, how the kernel is set, and calls for memory that failed."""

from __future__ import annotations

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, flowing, section, words
from gomem.exporters.text.table import Cell, Column, table
from gomem.exporters.units import clean, number, percent, seconds, size
from gomem.tracer.report import Bound, Report

_SHOWN = 0.5  # of a limit: what is farther from it is in JSON
_MOST_CALLS = 8
_LONGEST_NAME = 100
_BOUNDS = (
    Column("limits", left=True), Column("used"), Column("limit"), Column("left"),
    Column("", left=True, worth=1, wraps=20),
)  # fmt: skip
_CALLS = (
    Column("call", left=True), Column("error", left=True), Column("count"), Column("bytes"),
    Column("largest", worth=3), Column("last", worth=2), Column("by", left=True, worth=4, wraps=24, below="by "),
)  # fmt: skip


def bounds(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the limits that are used to a half and more, and GOMAXPROCS beside a quota."""
    near = [one for one in report.bounds or () if one.limit and (one.used or 0) >= _SHOWN * one.limit]
    body = [table(_BOUNDS, [_cells(one) for one in near], look)] if near else []
    quota = _quota(report)
    if quota is not None:
        body.append(words(quota))
    return section("Limits", *body) if body else None


def _cells(bound: Bound) -> list[Cell]:
    told = [
        size(amount) if bound.unit == "bytes" else number(amount) for amount in (bound.used, bound.limit, bound.left)
    ]
    return [bound.name, *told, words((bound.cgroup or "", "dim"))]


def _quota(report: Report) -> str | None:
    cpu = report.cpu
    if cpu is None or cpu.quota is None:
        return None
    procs = f"GOMAXPROCS {cpu.gomaxprocs}, " if cpu.gomaxprocs is not None else ""
    throttled = ""
    if cpu.throttled:
        waited = f", {seconds(cpu.throttled_seconds)} of waiting" if cpu.throttled_seconds is not None else ""
        throttled = f"; throttled in {percent(cpu.throttled, cpu.periods)} of its periods{waited}"
    return f"{procs}CPU quota {cpu.quota:g}{throttled}"


def settings(report: Report, look: PageStyle) -> RenderableType | None:
    """Show how the kernel is set where that has something to do with this process's memory."""
    found, resident = report.settings, report.resident
    if found is None or resident is None:
        return None
    huge, pairs = found.huge_pages, []
    if resident.huge_pages or huge.disabled:
        pairs += [("huge pages", "off for this process" if huge.disabled else huge.enabled or "?")]
        pairs += [("defrag", huge.defrag or "?"), ("max_ptes_none", number(huge.max_ptes_none))]
        pairs += [("of those asked for", size(huge.in_advised))] if huge.in_advised is not None else []
    if resident.swap:
        pairs += [("swap", f"{size(found.swap_free)} of {size(found.swap_total)} free")]
        pairs += [("swappiness", number(found.swappiness)), ("zswap", "on" if found.zswap else "off")]
    if found.ksm_merged:
        pairs += [("merged with equal pages (KSM)", size(found.ksm_merged))]
    if pairs and found.damon:
        pairs += [("DAMON", ", ".join(found.damon))]
    if pairs and found.proactively_reclaimed:
        pairs += [("reclaimed ahead of need", size(found.proactively_reclaimed))]
    return section("How the kernel is set", flowing(pairs, look)) if pairs else None


def failed_calls(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the memory system calls that failed, with who made them."""
    if not report.failed_calls:
        return None
    rows: list[list[Cell]] = [
        [
            one.call, clean(one.error, 20), number(one.count), size(one.bytes) if one.bytes is not None else "",
            size(one.largest) if one.largest is not None else "", f"{seconds(one.last)} before the end",
            words(((one.function or "")[:_LONGEST_NAME], "dim")),
        ]
        for one in report.failed_calls[:_MOST_CALLS]
    ]  # fmt: skip
    more = len(report.failed_calls) - _MOST_CALLS
    title = "Memory calls that failed" + (
        f", the most frequent {_MOST_CALLS} of {len(report.failed_calls)}" if more > 0 else ""
    )
    return section(title, table(_CALLS, rows, look))
