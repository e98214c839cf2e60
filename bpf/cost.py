"""What a hit of a probe costs the target, to estimate its slowdown from hit counts.

Measured on the 2-core virtual machine that gomem is tested on. They say whether a trace was heavy, not more.

Hits one after the other, whose code and data stay in the CPU's caches, cost less than the first three say
(`make bench-probes`: 1.6, 1.4 and 2.6 us). Programs do something in between: of the one that fills and scavenges memory
(`make bench-overhead`) a hit of role used took 4.2 us, and all others together what these figures make of them: 0.5 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import SPAN_ROLES, EventKind
from gomem.tracer.events.source import ProbeStatus

EMULATED = 5e-6  # seconds; the kernel emulates the probed instruction
WITHOUT_STACK = 4.2e-6  # seconds; the same, with its record and at most a few callers
SYSCALL = 4e-6  # seconds; both tracepoints, record and stack
SINGLE_STEPPED = 17e-6  # seconds; two traps into the kernel
PAGE_FAULT = 0.3e-6  # seconds; counted by region
RSS_CHANGE = 0.4e-6  # seconds; most of it for the kernel's own record
SWITCH = 1e-3  # seconds; to put some uprobes on, or to take them off
_UNSURE = 0.02  # seconds; the ticks of CPU time at both ends, and as long as it takes to put the probes on
_ABSOLUTE_ERROR, _RELATIVE_ERROR = 0.001, 0.5  # shares; an estimate that may miss by more is none
_TRACEPOINTS = {
    "exceptions:page_fault_user": PAGE_FAULT,
    "exceptions:page_fault_kernel": PAGE_FAULT,
    "kmem:rss_stat": RSS_CHANGE,
}


def hit(spec: UprobeSpec) -> float:
    """Return what a hit of a uprobe costs, seconds."""
    if not spec.emulated:
        return SINGLE_STEPPED
    return WITHOUT_STACK if spec.kind in SPAN_ROLES or spec.kind is EventKind.USED else EMULATED


def slowdown(
    probes: Iterable[ProbeStatus],
    placed: Iterable[UprobeSpec],
    cpu_seconds: float | None,
    seconds: float,
    measured: Mapping[str, float] | None = None,
) -> float | None:
    """Return the share of its time that the probes took from the target; None where nobody can tell.

    `measured`: what a hit costs, by symbol, where that was found out on this machine.

    Of a target that computes all the time that is a share of its CPU time, of an idle one of the time watched. Nobody
    can tell where the CPU time is unknown, or where the error of the estimate (twice its standard deviation) is more
    than a thousandth and more than half of the estimate: the time was too short.
    """
    if cpu_seconds is None or seconds <= 0:
        return None
    prices = dict(_TRACEPOINTS) | {spec.symbol: hit(spec) for spec in placed} | dict(measured or {})
    paid = [(probe.hits, prices.get(probe.symbol, SYSCALL)) for probe in probes]
    time = max(cpu_seconds, seconds)
    share = sum(hits * price for hits, price in paid) / time
    # Hits come as they like: the variance of their number is the number, and one more might have come.
    # CPU time is told in ticks, so that the time in which they came may be the shorter one.
    least = max(seconds, time - _UNSURE)
    of_hits = (sum(hits * price**2 for hits, price in paid) + EMULATED**2) ** 0.5 / least
    of_time = share * _UNSURE / time
    if 2 * (of_hits**2 + of_time**2) ** 0.5 > max(_ABSOLUTE_ERROR, _RELATIVE_ERROR * share):
        return None
    return min(share, 1.0)
