"""The section on what was allocated: by size class, by type, and by call site."""

from __future__ import annotations

from rich.console import Group, RenderableType

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import UNKNOWN, clean, number, percent, plural, seconds, size
from gomem.tracer.report import AllocationClass, Allocations, AllocationSite, AllocationType, Estimate, Report

_TOP_CLASSES, _TOP_TYPES, _TOP_SITES = 8, 10, 10
_LONGEST_NAME = 60
_CLASSES = [
    Column("class", left=True),
    Column("object"),
    Column("objects"),
    Column("bytes"),
    Column("seen"),
    Column("scan", worth=3),
    Column("noscan", worth=2),
    Column("tiny", worth=1),
    Column("estimated", worth=4),
]
_TYPES = [
    Column("bytes"),
    Column("objects"),
    Column("seen", worth=2),
    Column("95 %", worth=1),
    Column("type", left=True, wraps=20),
]
_SITES = [
    Column("bytes"),
    Column("objects"),
    Column("seen", worth=2),
    Column("95 %", worth=1),
    Column("call site", left=True, wraps=20),
]


def allocations(report: Report, look: PageStyle) -> RenderableType | None:
    """Show what was allocated, the most bytes first."""
    seen = report.allocations
    if seen is None:
        return None
    classes = sorted(seen.classes, key=_class_bytes, reverse=True)[:_TOP_CLASSES]
    parts: list[RenderableType] = [words((_watched(seen), "dim"))]
    if classes:
        parts.append(table(_CLASSES, [_class_cells(row) for row in classes], look))
    if seen.types:
        parts += [
            words(("the types with the most bytes", "dim")),
            table(_TYPES, [_type_cells(row) for row in seen.types[:_TOP_TYPES]], look),
        ]
    if seen.sites:
        parts += [
            words(("the call sites with the most bytes", "dim")),
            table(_SITES, [_site_cells(row) for row in seen.sites[:_TOP_SITES]], look),
        ]
    if rest := _rest(seen):
        parts.append(words((rest, "dim")))
    return section(_heading(seen), Group(*parts))


def _heading(seen: Allocations) -> str:
    if seen.runtime_objects is None:
        return f"Allocations {number(seen.objects)} seen"
    held = "" if seen.runtime_bytes is None else f", {size(seen.runtime_bytes)}"
    return f"Allocations {number(seen.runtime_objects)}{held}"


def _watched(seen: Allocations) -> str:
    """Return how they were counted, and what the figures below are worth."""
    if seen.complete:
        said = "all were counted"
        if seen.coverage is not None and seen.coverage < 1:
            said = f"{percent(seen.coverage, 1)} of them were counted"
        return said
    share = "" if seen.coverage is None else f", {_small(seen.coverage)} of all objects"
    price = "" if seen.hit_seconds is None else f"; counting one costs {1e9 * seen.hit_seconds:.0f} ns here"
    return (
        f"{number(seen.objects)} counted in {plural(seen.bursts, 'burst')} of {seconds(seen.watched_seconds)} together"
        f"{share}, within a budget of {100 * seen.budget:g}%{price}. The runtime itself counts objects and bytes by "
        "size class; figures of types and call sites are estimates from the bursts, with 95 % confidence intervals"
    )


def _small(share: float) -> str:
    """Return a share that may be tiny, in per cent, with two digits."""
    return f"{100 * share:.2g}%" if share < 0.0995 else percent(share, 1)


def _class_bytes(row: AllocationClass) -> int:
    return row.asked if row.runtime_bytes is None else row.runtime_bytes


def _class_cells(row: AllocationClass) -> list[str]:
    seen = row.scan + row.noscan + row.tiny
    estimated = row.estimated_objects
    return [
        str(row.size_class),
        f"{row.object_size} B" if row.size_class else "large",
        UNKNOWN if row.runtime_objects is None else number(row.runtime_objects),
        UNKNOWN if row.runtime_bytes is None else size(row.runtime_bytes),
        number(seen),
        number(row.scan),
        number(row.noscan),
        number(row.tiny) if row.tiny else "",
        "" if estimated is None else number(round(estimated.value)) + _reach(estimated),
    ]


def _type_cells(row: AllocationType) -> list[str]:
    return [*_figures(row), _name(row)]


def _site_cells(row: AllocationSite) -> list[str]:
    return [*_figures(row), _place(row)]


def _figures(row: AllocationType | AllocationSite) -> list[str]:
    objects, held = row.estimated_objects, row.estimated_bytes
    return [
        size(row.bytes if held is None else round(held.value)),
        number(row.objects if objects is None else round(objects.value)),
        "" if objects is None else number(row.objects),
        "" if held is None else _reach(held).strip(),
    ]


def _place(row: AllocationSite) -> str:
    if row.function is None:
        return f"? (code at {row.address:#x})"
    name = clean(row.function, _LONGEST_NAME)
    if row.file is None:
        return name
    return f"{name} {clean(row.file.rpartition('/')[2], _LONGEST_NAME)}:{row.line or UNKNOWN}"


def _name(row: AllocationType) -> str:
    if row.name is not None:
        return clean(row.name, _LONGEST_NAME)
    if row.address is None:
        return "no type (strings, and slices that grow, without pointers)"
    return f"? (type at {row.address:#x})"


def _reach(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None or not estimate.value:
        return ""
    return f" +-{percent((estimate.high - estimate.value) / estimate.value, 1)}"


def _rest(seen: Allocations) -> str:
    parts = []
    if seen.more_types:
        parts.append(f"{plural(seen.more_types, 'more type')}: {number(seen.more_objects)} seen")
    if seen.more_sites:
        parts.append(f"{plural(seen.more_sites, 'more call site')}: {number(seen.more_site_objects)} seen")
    if seen.unsited_objects:
        parts.append(f"{number(seen.unsited_objects)} seen whose call stack found no room in the kernel's table")
    if seen.untold_objects:
        parts.append(f"{number(seen.untold_objects)} seen whose type found no room in the kernel's table")
    if seen.unseen_classes:
        parts.append(f"{number(seen.unseen_classes)} of size classes that no burst saw")
    if seen.zero_size:
        parts.append(f"{number(seen.zero_size)} of nothing, which take no memory")
    return "; ".join(parts)
