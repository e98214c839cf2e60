"""What a report means: pure rules from figures to statements that a tired person can act on.

Every rule is a function Report -> Finding | None. A rule whose figures are missing stays silent
(`limits` says what is missing). Severity is "info" for what looks alarming but is harmless or merely
good to know, "warning" for what costs memory or will, "critical" for what is about to kill.
"""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Finding, Report, Severity
from gomem.tracer.report.findings import address_space as finding_address_space
from gomem.tracer.report.findings import bounds as finding_bounds
from gomem.tracer.report.findings import cgroup as finding_cgroup
from gomem.tracer.report.findings import files as finding_files
from gomem.tracer.report.findings import finalizers as finding_finalizers
from gomem.tracer.report.findings import gomemlimit as finding_gomemlimit
from gomem.tracer.report.findings import growth as finding_growth
from gomem.tracer.report.findings import holders as finding_holders
from gomem.tracer.report.findings import limits as finding_limits
from gomem.tracer.report.findings import log as finding_log
from gomem.tracer.report.findings import memory as finding_memory
from gomem.tracer.report.findings import native as finding_native
from gomem.tracer.report.findings import trust as finding_trust
from gomem.tracer.report.findings import user_mappings as finding_user_mappings
from gomem.tracer.report.findings.base import Rule

RULES: Final[dict[str, Rule]] = {
    "cgroup": finding_limits.near_cgroup_limit,
    "memory-high": finding_limits.over_memory_high,
    "oom-kills": finding_limits.oom_kills,
    "memory-pressure": finding_cgroup.memory_pressure,
    "near-gomemlimit": finding_gomemlimit.near_gomemlimit,
    "gomemlimit-ahead": finding_gomemlimit.gomemlimit_ahead,
    "gomemlimit": finding_limits.gomemlimit_and_cgroup,
    "collector-off": finding_limits.collector_off,
    "live-heap-grows": finding_growth.live_heap_grows,
    "goroutines-grow": finding_growth.goroutines_grow,
    "outside-grows": finding_growth.outside_grows,
    "finalizers-wait-for-gc": finding_finalizers.finalizers_wait_for_gc,
    "swapped": finding_limits.swapped,
    "near-address-space-limit": finding_address_space.near_address_space_limit,
    "near-data-limit": finding_address_space.near_data_limit,
    "near-commit-limit": finding_address_space.near_commit_limit,
    "memory-calls-failed": finding_bounds.memory_calls_failed,
    "near-mapping-limit": finding_bounds.near_mapping_limit,
    "near-thread-limit": finding_bounds.near_thread_limit,
    "near-memlock-limit": finding_bounds.near_memlock_limit,
    "gomaxprocs": finding_bounds.gomaxprocs_above_quota,
    "goal": finding_limits.goal_far_above_live,
    "lazily-freed": finding_memory.lazily_freed,
    "scavenged-but-resident": finding_memory.scavenged_but_resident,
    "c-heap-free": finding_native.c_heap_free,
    "outside": finding_native.outside_the_go_heap,
    "user-mappings": finding_user_mappings.user_mappings,
    "thread-stacks": finding_native.thread_stacks,
    "stacks": finding_memory.goroutine_stacks,
    "ended-goroutines": finding_memory.ended_goroutines,
    "metadata": finding_memory.runtime_metadata,
    "fragmentation": finding_memory.fragmentation,
    "fragmented-free-heap": finding_holders.fragmented_free_heap,
    "barely-used-huge-pages": finding_holders.barely_used_huge_pages,
    "large-objects": finding_holders.large_objects,
    "many-timers": finding_holders.many_timers,
    "waiting-finalizers": finding_holders.waiting_finalizers,
    "profile-buckets": finding_holders.profile_buckets,
    "retained": finding_memory.retained_idle_heap,
    "huge-pages": finding_memory.huge_pages,
    "cgroup-tmpfs": finding_cgroup.cgroup_tmpfs,
    "cgroup-kernel-memory": finding_cgroup.cgroup_kernel_memory,
    "working-set-page-cache": finding_cgroup.working_set_page_cache,
    "cgroup-other-processes": finding_cgroup.other_processes,
    "shared-memory": finding_files.shared_memory,
    "copied-file-pages": finding_files.copied_file_pages,
    "locked-file-pages": finding_files.locked_file_pages,
    "dirty-file-pages": finding_files.dirty_file_pages,
    "deleted-file": finding_files.deleted_file,
    "file-pages": finding_files.clean_file_pages,
    "ready": finding_address_space.ready_not_resident,
    "reserved": finding_address_space.reserved_address_space,
    "looks-like-go": finding_log.looks_like_go,
    "lost-events": finding_trust.lost_events,
    "drift": finding_trust.drift,
    "inexact": finding_trust.inexact_snapshot,
    "unexplained": finding_trust.unexplained_ready,
}

_ORDER: Final[dict[Severity, int]] = {"critical": 0, "warning": 1, "info": 2}


def find(report: Report) -> list[Finding]:
    """Return what the report's figures say: the worst first, what can be acted on before the rest, else as in RULES.

    RULES has what is said of limits and RSS before what is said of address space.
    """
    found = [finding for rule in RULES.values() if (finding := rule(report)) is not None]
    return sorted(found, key=lambda finding: (_ORDER[finding.severity], not finding.actionable))
