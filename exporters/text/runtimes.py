"""The Go runtimes of a process that has several."""

from __future__ import annotations

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.units import clean, size
from gomem.tracer.report import GoRuntime, Report

_LONGEST = 100


def runtimes(report: Report, look: PageStyle) -> RenderableType | None:
    """Return the section, None where there is one runtime, or none."""
    del look
    if not report.runtimes:
        return None
    return section(
        f"{len(report.runtimes)} Go runtimes are in this process; --module FILE chooses which one is reported",
        *(words(_line(one)) for one in report.runtimes),
    )


def _line(one: GoRuntime) -> str:
    name = f"{clean(one.module, _LONGEST)} ({clean(one.go_version or 'release not known', 30)})"
    which = "this report" if one.reported else "not reported"
    if one.heap_in_use is None or one.heap_sys is None or one.resident is None:
        return f"{name}, {which}: it could not be read: {clean(one.why_not or 'nobody knows why', 200)}"
    heap = f"HeapInuse {size(one.heap_in_use)} of HeapSys {size(one.heap_sys)}"
    return f"{name}, {which}: {heap}, {size(one.resident)} in RAM"
