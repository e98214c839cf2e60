"""One look at a process, and the report of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gomem.tracer.kernel.view import KernelView
from gomem.tracer.machine import usage
from gomem.tracer.report import Overhead, Report
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.moments import rfc3339
from gomem.tracer.watch.session import Origin, TargetSession

if TYPE_CHECKING:  # nobody waits for what a map takes to import, unless one is asked for
    from gomem.tracer.watch.album import OnLook


_NO_EVENTS = Origin("procfs", "a snapshot needs no events", has_events=False, compares=False)


def snapshot_target(
    inspector: Inspector,
    *,
    freeze: bool = False,
    beside: Callable[[KernelView], None] | None = None,
    on_look: OnLook | None = None,
) -> Report:
    """Return the report of the state now, without watching; `freeze` stops the target while it is read.

    `beside` reads what else is to be of that moment, and `on_look` is told the look.
    """
    spent = usage.cpu_seconds()
    facts = inspector.facts()
    session = TargetSession(_NO_EVENTS, inspector.symbolize, None)
    session.on_look = on_look
    session.see(inspector.look_frozen(beside=beside) if freeze else inspector.look(beside), time.monotonic_ns())
    overhead = Overhead(
        tracer_cpu_seconds=round(usage.cpu_seconds() - spent, 4), tracer_rss=usage.resident_bytes(), probes=[],
        target_slowdown_estimate=None,
    )  # fmt: skip
    return session.report(facts, rfc3339(time.time_ns()), 0.0, overhead, [])
