"""What a report means: pure rules from figures to statements that a tired person can act on.

Every rule is a function Report -> Finding | None. A rule whose figures are missing stays silent
(`limits` says what is missing). Severity is "info" for what looks alarming but is harmless or merely
good to know, "warning" for what costs memory or will, "critical" for what is about to kill.
"""

from __future__ import annotations

from typing import Final

from tracer import finding_limits, finding_log, finding_memory, finding_trust
from tracer.finding_base import Rule
from tracer.report import Finding, Report, Severity

RULES: Final[dict[str, Rule]] = {
    "cgroup": finding_limits.near_cgroup_limit,
    "memory-high": finding_limits.over_memory_high,
    "oom-kills": finding_limits.oom_kills,
    "near-gomemlimit": finding_limits.near_gomemlimit,
    "gomemlimit": finding_limits.gomemlimit_and_cgroup,
    "collector-off": finding_limits.collector_off,
    "swapped": finding_limits.swapped,
    "goal": finding_limits.goal_far_above_live,
    "lazily-freed": finding_memory.lazily_freed,
    "scavenged-but-resident": finding_memory.scavenged_but_resident,
    "outside": finding_memory.outside_the_go_heap,
    "stacks": finding_memory.goroutine_stacks,
    "metadata": finding_memory.runtime_metadata,
    "fragmentation": finding_memory.fragmentation,
    "retained": finding_memory.retained_idle_heap,
    "huge-pages": finding_memory.huge_pages,
    "file-pages": finding_memory.file_pages,
    "reserved": finding_memory.reserved_address_space,
    "ready": finding_memory.ready_not_resident,
    "looks-like-go": finding_log.looks_like_go,
    "lost-events": finding_trust.lost_events,
    "drift": finding_trust.drift,
    "inexact": finding_trust.inexact_snapshot,
    "unexplained": finding_trust.unexplained_ready,
}

_ORDER: Final[dict[Severity, int]] = {"critical": 0, "warning": 1, "info": 2}


def find(report: Report) -> list[Finding]:
    """Return what the report's figures say, the worst first, else in the order of RULES."""
    found = [finding for rule in RULES.values() if (finding := rule(report)) is not None]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])
