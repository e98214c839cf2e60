from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.discovery.following import following
from tests.support.builds import build
from tests.support.processes import running, wait_until, without_capabilities
from tests.support.requirements import absent
from tracer.discovery.discovery import Discovery
from tracer.discovery.process_events import ProcessEvents
from tracer.errors import BackendUnavailable

ROOT = Path(__file__).resolve().parents[3]
# Everything in the new namespace ends with the test, however it ends.
PID_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture(scope="module")
def becomes() -> Path:
    if os.geteuid() != 0:
        absent("namespaces and other users' processes need root")
    return build("becomes", "1.25.5")


def observer(*words: object, within: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    command = [*within, sys.executable, "-m", "tests.live.discovery.observer", *[str(word) for word in words]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_the_initial_namespaces_hear_of_events(becomes: Path) -> None:
    try:
        ProcessEvents.open().close()
    except BackendUnavailable as why:
        absent(str(why))
    said = observer("watch", becomes, "x")
    assert (said["mode"], said["reason"], said["name"]) == ("process connector", "", "becomes")


def test_a_pid_namespace_is_scanned_and_only_its_own_processes_are_seen(becomes: Path) -> None:
    with running(becomes, "x"):
        said = observer("watch", becomes, "x", within=PID_NAMESPACE)
    assert said["mode"] == "scan"
    assert "not the initial pid namespace" in said["reason"]
    assert "hostPID" in said["reason"]
    assert said["everybody"] == [said["pid"]]
    assert said["own_pid"] < 10


def test_a_user_namespace_is_scanned(becomes: Path) -> None:
    said = observer("watch", becomes, "x", within=["unshare", "--user", "--map-root-user"])
    assert said["mode"] == "scan"
    assert "not the initial user namespace" in said["reason"]


def test_a_network_namespace_is_scanned(becomes: Path) -> None:
    said = observer("watch", becomes, "x", within=["unshare", "--net"])
    assert said["mode"] == "scan"
    assert "not in this network namespace" in said["reason"]
    assert "hostNetwork" in said["reason"]


def test_a_process_in_an_inner_pid_namespace_has_our_pid_for_it(becomes: Path) -> None:
    with (
        running("unshare", "--pid", "--fork", "--kill-child", becomes, "x") as outside,
        following(Discovery(settle=0.0, scan_every=0.1, listen=None)) as seen,
    ):
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        wait_until(lambda: children.read_text().strip() != "", "unshare forks")
        pid = int(children.read_text())
        assert seen.until_found(pid).name == "becomes"
        status = Path(f"/proc/{pid}/status").read_text()
        assert [line.split()[-1] for line in status.splitlines() if line.startswith("NSpid")] == ["1"]
        os.kill(pid, signal.SIGKILL)
        outside.wait()  # it waits for its child


def test_another_process_with_the_same_pid_is_another_process(becomes: Path) -> None:
    said = observer("reuse", becomes, "x", within=PID_NAMESPACE)
    assert said == {"same_pid": True, "gone_first": True, "other": True, "own_pid": said["own_pid"]}


def test_processes_that_may_not_be_read_are_counted_and_shown_only_if_they_are_asked_for(becomes: Path) -> None:
    with running(becomes, "x") as process:
        wait_until(lambda: os.path.samefile(f"/proc/{process.pid}/exe", becomes), "it is executed")
        said = observer("look", process.pid, within=list(without_capabilities()))
    assert said["unreadable"] >= 1
    assert said["found"] is None
    assert said["asked"] == {"kind": "unreadable", "name": "becomes", "exe": "", "uid": 0}


def test_with_the_right_to_trace_they_are_read(becomes: Path) -> None:
    with running(becomes, "x") as process:
        wait_until(lambda: os.path.samefile(f"/proc/{process.pid}/exe", becomes), "it is executed")
        said = observer("look", process.pid)
    assert said["found"] == said["asked"] == {"kind": "go", "name": "becomes", "exe": str(becomes), "uid": 0}
