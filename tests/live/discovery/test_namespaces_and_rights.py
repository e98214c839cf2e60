from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.kernel.process_events import ProcessEvents
from tests.support.builds import build
from tests.support.discovery.cgroups import cgroups, move
from tests.support.discovery.following import following
from tests.support.processes import running, wait_until, without_capabilities
from tests.support.requirements import absent

ROOT = Path(__file__).resolve().parents[3]
UID, OTHER_UID = "6f1c3c2e-9b1a-4d6e-8a53-2f0d3c9e7b11", "11111111-9b1a-4d6e-8a53-2f0d3c9e7b11"
GOMEM, APP, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4, "00112233445566778899aabbccddeeff" * 2
# Everything in the new namespace ends with the test, however it ends.
PID_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture(scope="module")
def becomes() -> Path:
    if os.geteuid() != 0:
        absent("namespaces and other users' processes need root")
    return build("becomes", "1.25.5")


def observer(
    *words: object, within: list[str] | tuple[str, ...] = (), environ: dict[str, str] | None = None
) -> dict[str, Any]:
    command = [*within, sys.executable, "-m", "tests.support.discovery.observer", *[str(word) for word in words]]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (environ or {}), capture_output=True, text=True, check=False, timeout=250
    )
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


def test_a_sidecar_knows_the_processes_of_its_pod_in_every_cgroup_namespace(becomes: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text('app="checkout"\ntier="front"\n')
    environ = {
        "GOMEM_POD_NAME": "checkout-1",
        "GOMEM_POD_NAMESPACE": "shop",
        "GOMEM_NODE_NAME": "node-1",
        "GOMEM_PODINFO": str(tmp_path),
    }
    pod, other = f"kubepods/burstable/pod{UID}", f"kubepods/burstable/pod{OTHER_UID}"
    named = {"pod": "checkout-1", "namespace": "shop", "labels": {"app": "checkout"}}
    nameless: dict[str, object] = {"pod": None, "namespace": None, "labels": {}}
    with (
        cgroups(f"{pod}/{GOMEM}", f"{pod}/{APP}", f"{other}/{OTHER}") as (gomems, apps, others),
        running(becomes, "x") as app,
        running(becomes, "x") as stranger,
    ):
        for process, into in ((app, apps), (stranger, others)):
            move(process.pid, into)
            wait_until(lambda one=process: os.path.samefile(f"/proc/{one.pid}/exe", becomes), "it is executed")  # type: ignore[misc]
        joined = ["sh", "-c", f'echo $$ > {gomems}/cgroup.procs && exec "$@"', "sh"]
        for within, hidden in ((joined, False), ([*joined, "unshare", "--cgroup"], True)):
            ours = observer("belong", app.pid, within=within, environ=environ)
            assert (f"/../{APP}" in ours["cgroups"]) is hidden
            assert {key: ours[key] for key in named} == named
            assert (ours["container_id"], ours["pod_uid"], ours["node"]) == (APP, None if hidden else UID, "node-1")
            theirs = observer("belong", stranger.pid, within=within, environ=environ)
            assert {key: theirs[key] for key in nameless} == nameless
            assert (theirs["container_id"], theirs["pod_uid"]) == (OTHER, OTHER_UID)
