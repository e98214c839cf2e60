"""Pods without a cluster: containers made of namespaces, with exactly the rights of a manifest's securityContext.

A container's root file system is put together from this machine's /usr and /etc, this checkout and the Python
environment in use, all read only. What Kubernetes' runtimes do with a securityContext is done here by util-linux:
only root's added capabilities are effective, the bounding set has no others, and no_new_privs is set unless
allowPrivilegeEscalation says otherwise.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_LINKS = ("bin", "lib", "lib64", "sbin")
# Brings up the loopback interface of a new network namespace (SIOCSIFFLAGS: IFF_UP, IFF_RUNNING), then waits.
_LOOPBACK_UP = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x41))"
_INIT = f"{_LOOPBACK_UP}; print(flush=True); import signal; signal.pause()"


@contextmanager
def sandbox() -> Iterator[int]:
    """Run the process that a pod's PID and network namespaces belong to, until the block ends; yield its pid here."""
    holder = subprocess.Popen(
        ["unshare", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc",
         sys.executable, "-c", _INIT],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline(), "the sandbox did not start"
        init = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        ended = os.pidfd_open(init)
        try:
            yield init
        finally:
            # The kernel lets an init end when everybody else in its namespace has ended (zap_pid_ns_processes).
            signal.pidfd_send_signal(ended, signal.SIGKILL)
            select.select([ended], [], [], 60)
            os.close(ended)
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def in_sandbox(init: int, *command: object) -> list[str]:
    """Return the words that run a command in a sandbox, in a mount namespace of its own (another container)."""
    return [
        "nsenter", f"--target={init}", "--pid", "--net", "--ipc", "--uts", "--",
        "unshare", "--mount", "--mount-proc", "--propagation=private", "--", *map(str, command),
    ]  # fmt: skip


@contextmanager
def contained(
    command: Sequence[object],
    security: Mapping[str, Any],
    *,
    init: int | None = None,
    without: str | None = None,
    scratch: bool = False,
    volumes: Mapping[str, Path] | None = None,
) -> Iterator[list[str]]:
    """Yield the words that run `command` in a container with the rights of the securityContext `security`.

    `init`: of the sandbox whose PID and network namespaces it joins; None: the host's PID namespace (hostPID), and a
    network of its own.
    `without`: a capability to leave out. `scratch`: an empty, writable /tmp. `volumes`: directories by where it has
    them, to write into.
    """
    with tempfile.TemporaryDirectory(prefix="gomem-pod-") as directory:
        script = Path(directory) / "run"
        script.write_text(_script(directory, command, security, without, scratch, volumes or {}))
        shell = ["sh", "-e", str(script)]
        if init is None:
            yield ["unshare", "--mount", "--net", "--ipc", "--uts", "--propagation=private", "--", *shell]
        else:
            joined = ["nsenter", f"--target={init}", "--pid", "--net", "--ipc", "--uts", "--"]
            yield [*joined, "unshare", "--mount", "--propagation=private", "--", *shell]


def _script(
    directory: str,
    command: Sequence[object],
    security: Mapping[str, Any],
    without: str | None,
    scratch: bool,
    volumes: Mapping[str, Path],
) -> str:
    root = f"{directory}/root"
    python = Path(os.path.realpath(sys.executable)).parents[1]
    binds = {Path("/etc"), REPOSITORY, Path(sys.prefix), python, Path("/usr")}
    binds = {path for path in binds if path == Path("/usr") or not path.is_relative_to("/usr")}
    lines = [shlex.join([sys.executable, "-c", _LOOPBACK_UP])]
    lines += [f"mkdir {root}", f"mount -t tmpfs -o mode=755 none {root}"]
    lines += [f"ln -s usr/{link} {root}/{link}" for link in _LINKS]
    for path in sorted(binds):
        lines += [f"mkdir -p {root}{path}", f"mount --rbind {path} {root}{path}",
                  f"mount -o remount,bind,ro,nosuid {root}{path}"]  # fmt: skip
    lines += [f"mkdir -p {root}/proc {root}/sys {root}/dev {root}/tmp", f"mount -t proc proc {root}/proc",
              f"mount --rbind -o ro /sys {root}/sys"]  # fmt: skip
    lines += [f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}" for name in ("null", "urandom")]
    if scratch:
        lines.append(f"mount -t tmpfs none {root}/tmp")
    for point, path in volumes.items():
        lines += [f"mkdir -p {root}{point}", f"mount --bind {path} {root}{point}"]
    if security.get("readOnlyRootFilesystem"):
        lines.append(f"mount -o remount,ro {root}")
    user = int(security.get("runAsUser", 0))
    rights = _rights(security, without, user)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    variables = [f"{name}={value}" for name, value in environment.items()]
    words = ["chroot", root, "env", "-i", *variables, "setpriv", *rights, "--", *map(str, command)]
    lines.append("exec " + shlex.join(words))
    return "\n".join(lines) + "\n"


def _rights(security: Mapping[str, Any], without: str | None, user: int) -> list[str]:
    capabilities = security["capabilities"]
    assert capabilities["drop"] == ["ALL"], "a container starts from nothing"
    assert not security.get("privileged")
    added = [name for name in capabilities.get("add", []) if name != without]
    assert without is None or len(added) < len(capabilities["add"]), f"{without} is not among {capabilities['add']}"
    bounding = ",".join(["-all", *(f"+{name.lower()}" for name in added)])
    rights = [f"--bounding-set={bounding}", "--inh-caps=-all", "--ambient-caps=-all"]
    if user:
        rights += [f"--reuid={user}", f"--regid={security.get('runAsGroup', user)}", "--clear-groups"]
    if not security.get("allowPrivilegeEscalation", True):
        rights.append("--no-new-privs")
    return rights
