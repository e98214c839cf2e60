"""Which struct layout is right for an executable: its own DWARF, its release's table, or the nearest guess."""

from __future__ import annotations

from msgspec import Struct, field

from gomem.tracer.binary.buildinfo import BuildInfo
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError, LayoutError
from gomem.tracer.layout.comparison import contradictions
from gomem.tracer.layout.dwarf_cache import cached_layout_from_dwarf
from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.tables import (
    is_upstream,
    minor_of,
    nearest_table,
    table_for,
    tables_around,
    tables_of_format,
)
from gomem.tracer.report import Limit

_NEWER = "use a newer gomem if there is one"
_CHANGED = "nothing to do if the program is built with a changed Go; else please report it with go version -m FILE"
_SHOWN = 3


class LayoutChoice(Struct, frozen=True):
    """The layout to read with, None if there is none; `addresses`: the globals that DWARF names, link-time.

    A layout that is not `confirmed` has to pass the self-checks against the live process before a figure is shown;
    `others` may be tried where it does not.
    """

    layout: Layout | None
    others: tuple[Layout, ...] = ()
    addresses: dict[str, int] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()


def choose_layout(exe: Executable, build: BuildInfo | None, pclntab: str) -> LayoutChoice:
    """Return the layout from DWARF, else the release's table, else the nearest one, with what is doubtful about it.

    Of a program that does not say its release, all that may be are returned: those that write its version of `pclntab`.

    A patch release that nobody measured is not in doubt: its minor's table proves itself on the live process, or
    the figures are not shown. A fork or another minor release is, also then: it may mean other things by its figures.
    """
    release = build.go_version if build else ""
    table = table_for(release, exe.machine)
    limits: list[Limit] = []
    if exe.has_dwarf:
        try:
            layout, addresses = cached_layout_from_dwarf(exe)
        except (LayoutError, BinaryError) as error:
            limits.append(Limit("dwarf-unusable", "the executable's DWARF", error.what, error.fix))
        else:
            limits += _doubts_about_dwarf(layout, table, release)
            layout.confirmed = table is not None
            return LayoutChoice(layout, addresses=addresses, limits=tuple(limits))
    if table is not None:
        if not (table.confirmed or is_upstream(release)):
            limits.append(_doubt(release, f"it is a fork, an experiment or a candidate; {_tried(table)}"))
        first, *others = (*tables_around(release, exe.machine), table)
        return LayoutChoice(first, tuple(others), limits=tuple(limits))
    if minor_of(release) is None and (guesses := tables_of_format(pclntab, exe.machine)):
        why = f"{f'{release!r} names none' if release else 'nothing in the program says it'}; {_tried(None)}"
        limits.append(Limit("layout-unmeasured", "certainty about its Go release", why, "", "note"))
        return LayoutChoice(guesses[0], tuple(guesses[1:]), limits=tuple(limits))
    try:
        nearest = nearest_table(release, exe.machine)
    except LayoutError as error:
        unknown = Limit("go-state", "the Go runtime's state", error.what, error.fix)
        return LayoutChoice(None, limits=(*limits, unknown))
    limits.append(_doubt(release, f"this gomem was never compared with it; {_tried(nearest)}", _NEWER))
    return LayoutChoice(nearest, limits=tuple(limits))


def _doubts_about_dwarf(layout: Layout, table: Layout | None, release: str) -> tuple[Limit, ...]:
    if table is None:
        why = "its struct layouts are read from its DWARF, but what its runtime does with them was never compared"
        return (_doubt(release or "this Go release", why, _NEWER),)
    wrong = contradictions(layout, table)
    if not wrong or (not table.confirmed and is_upstream(release)):
        return ()
    more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    why = f"the program's own DWARF contradicts it, and is believed: {'; '.join(wrong[:_SHOWN])}{more}"
    what = f"the layout table of go{table.table_version} for {release}"
    return (Limit("layout-table-differs", what, why, _CHANGED, "note"),)


def _tried(table: Layout | None) -> str:
    which = f"go{table.table_version}, which" if table is not None else "the release that"
    return (
        f"its figures are read by the struct layouts of {which} must agree with the live process in all that the "
        "runtime notes twice"
    )


def _doubt(release: str, why: str, fix: str = "") -> Limit:
    return Limit("layout-unmeasured", f"certainty about {release}", why, fix, "note")
