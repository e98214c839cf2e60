"""What every test gets: the meaning of the markers, and a check that nothing is left behind.

`make test` runs those that may have company on all CPUs at a time, and then those marked `alone` one by one.
"""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import leaks, summary
from tests.support.requirements import absent, in_ci, no_bpf
from tests.support.toolchains import RELEASES

_MOMENT = 30.0  # seconds
_LEFT_BEHIND = "left behind"
# Where tests look at processes of their own only, and wait for nothing that others could hold up. The rest is marked
# `alone`: it counts what the machine does, follows all of its processes, or needs the target and gomem in step.
_IN_COMPANY = (
    "unit/", "live/binary/", "live/deploy/test_configurations.py", "live/ending/", "live/program/",
    "live/exporters/", "live/kernel/", "live/kernels/", "live/layout/", "live/profile/", "live/runtime/",
    "e2e/test_profile_of_refills.py",
    "live/test_matrix.py", "live/test_rights.py", "live/test_target.py", "live/test_thread_stacks.py",
    "live/test_c_heap.py",
    "e2e/test_broken_executables.py", "e2e/test_hostile_names.py", "e2e/test_machines_that_lack_something.py",
    "e2e/test_output.py", "e2e/test_parked_targets.py", "e2e/test_processes_that_are_no_targets.py",
    "e2e/test_real_programs.py", "e2e/test_start_up.py", "e2e/test_targets_that_change.py", "e2e/test_terminal.py",
    "e2e/test_texts.py", "e2e/test_unknown_releases.py", "e2e/test_whom.py", "live/test_address_limits.py",
    "live/test_page_kinds.py", "e2e/test_endings.py", "e2e/test_start_up_imports.py", "e2e/test_wheel.py",
    "e2e/test_profile.py", "e2e/test_profile_of_goroutines.py", "e2e/test_profile_of_resident_memory.py",
    "e2e/test_diff.py", "e2e/test_executables_that_are_never_read.py", "e2e/test_black_box.py",
    "e2e/test_benchmarks_run.py", "e2e/test_children.py", "e2e/test_debugged_targets.py", "e2e/test_guarded_targets.py",
    "e2e/test_lying_targets.py", "e2e/test_programs_for_386.py", "e2e/test_serve_profiles.py",
    "e2e/test_span_events.py", "live/bpf/test_bpf_residency.py", "live/bpf/test_bpf_syscalls.py",
    "live/bpf/test_bpf_uprobes.py", "live/bpf/test_kernel_functions.py",
    "live/bpf/test_placing.py", "live/bpf/test_shared_loading.py",
    "live/bpf/test_span_events.py", "live/deploy/test_scraping.py", "live/discovery/test_cluster.py", "live/events/",
    "live/model/test_gc_cycles_live.py", "live/model/test_mappings_against_the_kernel.py",
    "live/model/test_scavenged_bytes.py", "live/recording/", "live/test_freeze.py", "live/test_guardian.py",
    "live/test_plugins.py", "live/test_privileges.py", "live/test_time_namespaces.py",
    "live/web/test_hostile_clients.py", "live/web/test_profiling.py", "live/web/test_server.py",
    "live/web/test_tls.py", "live/web/test_with_prometheus.py",
    "e2e/test_live_heap_growth.py", "e2e/test_profile_of_servers.py", "e2e/test_goroutines.py",
    "e2e/test_why.py", "e2e/test_cases.py", "live/test_collector_cpu.py",
    "e2e/test_pods.py", "live/test_bounds.py", "e2e/test_diff_of_reports.py",
    "live/test_user_mappings.py", "live/test_finalizers_of_c_memory.py",
    "e2e/test_top.py",
)  # fmt: skip

# A run in another's environment, or beside it, must not take the other's processes for its own.
os.environ[leaks.MARK] = uuid.uuid4().hex
# A machine may be slow or stand still. New examples are looked for on people's machines, not in CI.
settings.register_profile("gomem", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=in_ci())
settings.load_profile("gomem")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies under tests/live and tests/e2e, and what has to be alone."""
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here).as_posix()
        if path.startswith(("live/", "e2e/")):
            item.add_marker(pytest.mark.live)
        if not path.startswith(_IN_COMPANY):
            item.add_marker(pytest.mark.alone)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """End a test marked `bpf` where BPF does not work: skipped for a person, failed in CI."""
    if item.get_closest_marker("bpf") and (why := _no_bpf()):
        absent(why)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests have filled in."""
    for line in summary.lines():
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over the tables of a worker of pytest-xdist; end with another status if something was left behind."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    errors = reporter.stats.get("error", []) if reporter else []
    if any(_LEFT_BEHIND in report.longreprtext for report in errors):
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR  # `make test` tries nothing again
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tables"] = summary.tables()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the tables of such a worker."""
    summary.add(getattr(node, "workeroutput", {}).get("tables", {}))


@cache
def _no_bpf() -> str | None:
    return no_bpf()


@pytest.fixture(scope="session", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Each Go release of the live matrix."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    before = leaks.traces()
    yield
    gc.collect()
    left = _still_there(lambda: leaks.traces().left_since(before))
    assert not left, f"the tests {_LEFT_BEHIND}:\n  " + "\n  ".join(left)


@pytest.fixture(autouse=True)
def _no_process_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.node.get_closest_marker("live"):
        yield
        return
    before = leaks.marked_processes()
    yield
    left = _still_there(lambda: leaks.new(leaks.marked_processes(), before))
    assert not left, f"the test {_LEFT_BEHIND}: {', '.join(left)}"


def _still_there(find: Callable[[], list[str]]) -> list[str]:
    """Return what is found and does not go away: what was killed, or let go of, takes the kernel a moment to end."""
    deadline = time.monotonic() + _MOMENT
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
