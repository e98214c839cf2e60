"""The rights that the manifests give are enough, and none of them is too much: sidecar and DaemonSet without a cluster.

The securityContext comes from what kubectl renders. `gomem serve` runs in a container made of namespaces with exactly
these rights, under the project's own seccomp profile; its target is in another container (mount namespace) and has
another user.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.black_boxes import boxes
from tests.support.builds import build
from tests.support.command import executable
from tests.support.kustomize import KUSTOMIZE, built
from tests.support.pods import contained, in_sandbox, sandbox
from tests.support.processes import wait_until
from tests.support.workloads import pods

pytestmark = pytest.mark.bpf

CHURN = ("-mb", "16", "-phase", "100ms", "-seconds", "600")
PROFILE = KUSTOMIZE.parent / "seccomp" / "gomem.json"
USER = 1000
PORT = 9469  # of a network namespace of its own


@cache
def security(overlay: str) -> dict[str, Any]:
    """Return the securityContext of gomem's container in what an overlay renders."""
    (only,) = pods(built(KUSTOMIZE / "overlays" / overlay))
    context: dict[str, Any] = only.container("gomem")["securityContext"]
    return context


@dataclass
class Pod:
    """A running gomem, with its target in another container."""

    process: subprocess.Popen[str]
    log: Path
    inside: list[str]  # words that run a command in gomem's network namespace

    def get(self, path: str) -> str:
        """Return what gomem answers, "" while it does not."""
        script = (
            "import urllib.request, sys; "
            f"sys.stdout.write(urllib.request.urlopen('http://127.0.0.1:{PORT}{path}', timeout=20).read().decode())"
        )
        words = [*self.inside, sys.executable, "-c", script]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout if done.returncode == 0 else ""

    def samples(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Return the samples of one metric, [] while gomem does not answer."""
        found = []
        for family in text_string_to_metric_families(self.get("/metrics")):
            found += [(dict(one.labels), one.value) for one in family.samples
                      if one.name == name and labels.items() <= one.labels.items()]  # fmt: skip
        return found

    def state(self) -> str:
        """Return the state of the target, "" while it is not among the targets."""
        states = [labels["state"] for labels, value in self.samples("gomem_process_state", process="churn") if value]
        return states[0] if states else ""

    def until_looked_at(self, state: str, looks: int = 3) -> None:
        """Wait until the target is in a state and was looked at some times."""

        def looked() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"gomem ended with {self.process.returncode}:\n{self.log.read_text()}")
            return self.state() == state and any(value >= looks for _, value in self.samples("gomem_looks_total"))

        try:
            wait_until(looked, f"the target being {state}", 90)
        except TimeoutError as error:
            raise AssertionError(f"{error}; it is {self.state()!r}:\n{self.log.read_text()}") from None


@contextmanager
def pod(
    overlay: str,
    tmp_path: Path,
    *words: str,
    shared: bool,
    without: str | None = None,
    user: int = USER,
    volumes: Mapping[str, Path] | None = None,
) -> Iterator[Pod]:
    """Run a target and gomem as the containers of an overlay, in one pod if `shared`, else on one node."""
    confined = [sys.executable, "-m", "tests.support.under_seccomp", PROFILE]
    arguments = [*confined, executable(), "serve", "--listen", f"127.0.0.1:{PORT}", "--interval", "0.5",
                 "--cpu-budget", "1", "--exe", "churn", *words]  # fmt: skip
    log = tmp_path / "log"
    churn = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", str(visible(tmp_path)), *CHURN]
    with sandbox() as init:
        target = subprocess.Popen(in_sandbox(init, *churn), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        context = contained(
            arguments, security(overlay), init=init if shared else None, without=without, volumes=volumes
        )
        try:
            with context as command, log.open("w") as file:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True)
                try:
                    where = init if shared else process.pid
                    yield Pod(process, log, ["nsenter", f"--target={where}", "--net", "--"])
                finally:
                    process.kill()
                    process.wait()
        finally:
            target.kill()
            target.wait()


def visible(directory: Path) -> Path:
    """Return a copy of the target that another user may execute."""
    path = directory / "churn"
    path.write_bytes(build("churn", "1.25.5").read_bytes())
    path.chmod(0o755)
    for parent in (directory, *directory.parents):
        if parent == Path("/tmp"):
            break
        parent.chmod(parent.stat().st_mode | 0o055)
    return path


def drift(running: Pod) -> float:
    return sum(value for _, value in running.samples("gomem_drift_bytes_total"))


@pytest.mark.parametrize(("overlay", "shared"), [("daemonset", False), ("sidecar", True)])
def test_with_the_rights_of_the_manifest_a_process_of_another_container_is_followed(
    overlay: str, shared: bool, tmp_path: Path
) -> None:
    with pod(overlay, tmp_path, shared=shared) as running:
        running.until_looked_at("followed")
        assert drift(running) == 0
        info = running.samples("gomem_process_info", process="churn")[0][0]
        assert info["go_version"] == "go1.25.5"
        wait_until(lambda: sum(v for _, v in running.samples("gomem_tracer_events_total")) > 0, "events", 60)
        assert running.samples("gomem_tracer_info")[0][0]["backend"] == "bpf"


def test_a_black_box_is_written_into_the_volume_that_the_manifest_has_for_it(tmp_path: Path) -> None:
    (only,) = pods(built(KUSTOMIZE / "overlays" / "daemonset-black-box"))
    words = [word for word in only.container("gomem")["args"] if word.startswith("--black-box")]
    (mounted,) = only.container("gomem")["volumeMounts"]
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)  # as the kubelet makes an emptyDir
    with pod(
        "daemonset-black-box", tmp_path, *words, "--black-box-crashes", shared=False,
        volumes={mounted["mountPath"]: volume},
    ) as running:  # fmt: skip
        running.until_looked_at("followed")
        pid = int(running.samples("gomem_process_info", process="churn")[0][0]["pid"])
        os.kill(pid, signal.SIGSEGV)
        wait_until(lambda: bool(boxes(volume)) and not boxes(volume)[0].path.name.startswith("."), "a black box", 60)
        (box,) = boxes(volume)
    assert (box.pid, box.ended["ending"]["exit_code"], box.ended["process"]["process"]) == (pid, 2, "churn")
    assert volume.stat().st_mode & 0o777 == 0o700
    assert box.modes == {"drwx------", "-rw-------"}
    (missing,) = [part["missing"] for part in box.ended["parts"] if part["file"] == "heap.pb.gz"]
    assert "keeps no heap profile" in missing


def test_as_the_same_user_no_right_at_all_is_needed_to_see_states(tmp_path: Path) -> None:
    with pod("sidecar-same-user", tmp_path, "--backend", "procfs", shared=True) as running:
        running.until_looked_at("followed")
        assert running.samples("gomem_tracer_info")[0][0]["backend"] == "procfs"


@dataclass(frozen=True)
class Loss:
    """What is left without one capability: the target's state, the backend, and what gomem says of it."""

    state: str  # "": its executable may not be read, so that nobody knows that it is a Go program
    backend: str
    says: str


WITHOUT = {
    "BPF": Loss("followed", "procfs", "CAP_BPF"),
    "PERFMON": Loss("followed", "procfs", "CAP_PERFMON"),
    "SYS_PTRACE": Loss("", "bpf", "CAP_SYS_PTRACE"),
    "DAC_READ_SEARCH": Loss("kernel_only", "bpf", "CAP_DAC_READ_SEARCH"),
}


@pytest.mark.parametrize(("overlay", "shared"), [("daemonset", False), ("sidecar", True)])
@pytest.mark.parametrize("capability", WITHOUT)
def test_without_one_capability_gomem_says_what_is_missing_and_does_the_rest(
    overlay: str, shared: bool, capability: str, tmp_path: Path
) -> None:
    loss = WITHOUT[capability]
    with pod(overlay, tmp_path, shared=shared, without=capability) as running:
        if loss.state:
            running.until_looked_at(loss.state, 1)
        wait_until(lambda: loss.says in running.log.read_text() + running.get("/"), f"{loss.says!r} being said", 90)
        assert running.state() == loss.state
        assert running.samples("gomem_tracer_info")[0][0]["backend"] == loss.backend


def test_the_manifests_give_these_capabilities_and_no_other() -> None:
    assert set(security("daemonset")["capabilities"]["add"]) == set(WITHOUT)
    assert set(security("sidecar")["capabilities"]["add"]) == set(WITHOUT)
    older = set(security("daemonset-older-kernels")["capabilities"]["add"])
    assert older == {*WITHOUT, "SYS_ADMIN"}
    assert not security("sidecar-same-user")["capabilities"].get("add")
