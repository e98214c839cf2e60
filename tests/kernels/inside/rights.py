"""With which capabilities, and no others, events are seen."""

from __future__ import annotations

import json

import pytest

from tests.support.builds import build
from tests.support.command import Outcome, gomem
from tests.support.processes import running

pytestmark = pytest.mark.bpf

CHURN = ("-mb", "24", "-phase", "200ms", "-seconds", "600")
LEAST, WITH_ADMIN = ("bpf", "perfmon", "sys_ptrace"), ("sys_admin", "sys_ptrace")


def traced(pid: int, *capabilities: str) -> Outcome:
    """Trace a process with these capabilities only."""
    kept = ",".join(f"+{name}" for name in capabilities)
    under = ("setpriv", f"--bounding-set=-all,{kept}", f"--inh-caps=-all,{kept}", "--")
    words = ("trace", "--pid", pid, "--duration", "2", "--backend", "bpf", "--format", "json")
    return gomem(*words, under=under)


def has_links() -> bool:
    """Whether this kernel has uprobe_multi links, with all rights."""
    checks = json.loads(gomem("doctor", "--format", "json").stdout)["checks"]
    return any(check["name"] == "uprobe_multi" and check["ok"] for check in checks)


def test_events_are_seen_with_the_least_rights_or_the_one_that_is_missing_is_named() -> None:
    with running(build("churn", "1.27.3"), *CHURN) as process:
        done = traced(process.pid, *LEAST)
        if done.status != 0 and not has_links():
            assert "CAP_SYS_ADMIN" in done.refusal(77)
            done = traced(process.pid, *WITH_ADMIN)
        report = done.report()
        assert report["event_loss"] == {"lost": 0, "resyncs": 0, "drift_bytes": 0}
        assert report["events"]["unused"]["count"] > 0


@pytest.mark.parametrize("missing", LEAST[:2])
def test_without_one_of_them_it_is_named(missing: str) -> None:
    with running(build("churn", "1.27.3"), *CHURN) as process:
        said = traced(process.pid, *(name for name in LEAST if name != missing)).refusal(77)
    assert f"CAP_{missing.upper()}" in said
