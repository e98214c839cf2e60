"""Which struct layout is right for an executable: its own DWARF, its release's table, or the nearest guess."""

from __future__ import annotations

from dataclasses import dataclass, field

from tracer.binary.buildinfo import BuildInfo
from tracer.binary.executable import Executable
from tracer.errors import BinaryError, LayoutError
from tracer.layout.comparison import contradictions
from tracer.layout.dwarf_cache import cached_layout_from_dwarf
from tracer.layout.layout import Layout
from tracer.layout.tables import nearest_table, table_for
from tracer.report import Limit

_GENERATE = "generate the release's own table: python -m tracer.layout.generate --toolchain GOROOT"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """The layout to read with, None if there is none; `addresses`: the globals that DWARF names, link-time.

    A layout that is not `confirmed` has to pass the self-checks against the live process before a figure is shown.
    """

    layout: Layout | None
    addresses: dict[str, int] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()


def choose_layout(exe: Executable, build: BuildInfo | None) -> LayoutChoice:
    """Return the layout from DWARF, else the release's table, else the nearest one, with what is doubtful about it."""
    release = build.go_version if build else ""
    table = table_for(release, exe.machine)
    limits: list[Limit] = []
    if exe.has_dwarf:
        try:
            layout, addresses = cached_layout_from_dwarf(exe)
        except (LayoutError, BinaryError) as error:
            limits.append(Limit("the executable's DWARF", error.what, error.fix))
        else:
            layout.confirmed = table is not None
            return LayoutChoice(layout, addresses, _doubts_about_dwarf(layout, table, release))
    if table is not None:
        if not table.confirmed:
            limits.append(_unconfirmed(table, release))
        return LayoutChoice(table, limits=tuple(limits))
    try:
        nearest = nearest_table(release, exe.machine)
    except LayoutError as error:
        return LayoutChoice(None, limits=(*limits, Limit("the Go runtime's state", error.what, error.fix)))
    tried = (
        f"there is no layout table for it: the one of go{nearest.table_version} was tried, and figures are shown only "
        "if the runtime's own double entries agree with them"
    )
    return LayoutChoice(nearest, limits=(*limits, Limit(f"certainty about {release}", tried, _GENERATE)))


def _doubts_about_dwarf(layout: Layout, table: Layout | None, release: str) -> tuple[Limit, ...]:
    if table is None:
        why = "its struct layouts are read from its DWARF, but what its runtime does with them was never compared"
        return (Limit(f"certainty about {release or 'this Go release'}", why, "use a newer gomem if there is one"),)
    wrong = contradictions(layout, table)
    if not wrong:
        return ()
    more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    why = f"this program's DWARF contradicts it, and was used instead: {'; '.join(wrong[:_SHOWN])}{more}"
    return (Limit(f"the layout table of go{table.table_version} for {release}", why, _GENERATE),)


def _unconfirmed(table: Layout, release: str) -> Limit:
    why = (
        f"the layout table of go{table.table_version} was never measured for this very build: figures are shown only "
        "if the runtime's own double entries agree with them"
    )
    return Limit(f"certainty about {release}", why, _GENERATE)
