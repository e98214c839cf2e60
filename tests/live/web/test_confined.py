"""`gomem serve` where it may write nowhere and has few capabilities, as in a hardened container."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomem.tracer.machine.capabilities import capability_names
from gomem.tracer.machine.privileges import Task, held, needed_for
from tests.support.builds import build
from tests.support.command import executable
from tests.support.processes import running
from tests.support.requirements import absent, program
from tests.support.web.clients import PATIENCE, until

LOOK = needed_for(Task.LOOK)
NONE = {frozenset[str]()}  # what the thread that speaks with the guardian keeps: it looks at nothing
# In a mount namespace of its own: every file system becomes read-only, what cannot (/proc, /dev) has nothing to write.
READ_ONLY = """
set -e
mount --make-rprivate /
for where in $(awk '{print $5}' /proc/self/mountinfo); do
    case $where in /proc*|/dev*|/sys*) ;; *) mount -o remount,bind,ro "$where" 2>/dev/null || [ "$where" != / ] ;; esac
done
if touch /tmp/gomem-can-write 2>/dev/null; then echo "still writable" >&2; exit 9; fi
exec "$@"
"""


@pytest.fixture(autouse=True)
def _capable() -> None:
    if os.getuid() != 0 or "CAP_SYS_ADMIN" not in held().permitted:
        absent("this test needs root with CAP_SYS_ADMIN for a mount namespace")


@contextmanager
def serving(*words: object, capabilities: frozenset[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `gomem serve` so confined; give the process and its port."""
    kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in sorted(capabilities))
    confined = [program("unshare", "util-linux"), "-m", "--", "sh", "-c", READ_ONLY, "sh",
                program("setpriv", "util-linux"), "--inh-caps=-all", f"--bounding-set=-all{kept}", "--"]  # fmt: skip
    command = [*confined, executable(), "serve", "--listen", "127.0.0.1:0", *map(str, words)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, text=True)
    try:
        yield process, _port(process)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"serving http://127\.0\.0\.1:([0-9]+)/", line):
            return int(found[1])
    raise AssertionError("it did not serve: " + "".join(said))


def get(port: int, path: str) -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read().decode()
    finally:
        client.close()


def test_processes_are_followed_with_a_read_only_root_and_the_capabilities_to_look() -> None:
    with running(build("census", "1.25.5")) as target:
        assert target.stdout is not None
        target.stdout.readline()
        with serving("--pid", target.pid, "--backend", "procfs", "--interval", "0.5", capabilities=LOOK) as (own, port):
            until(lambda: get(port, "/readyz")[0] == 200)
            until(lambda: f'pid="{target.pid}"' in get(port, "/metrics")[1])
            until(lambda: ">followed<" in get(port, f"/targets/{target.pid}")[1])
            assert _capabilities_of_threads(own.pid) - NONE == {LOOK}
        assert own.returncode == 0


def test_root_gives_up_what_looking_does_not_need() -> None:
    everything = held().permitted
    with (
        running(sys.executable, "-c", "input()") as target,
        serving("--pid", target.pid, "--backend", "procfs", capabilities=everything) as (own, port),
    ):
        until(lambda: get(port, "/readyz")[0] == 200)
        assert _capabilities_of_threads(own.pid) - NONE == {LOOK & everything}


def _capabilities_of_threads(pid: int) -> set[frozenset[str]]:
    """Return the sets that the threads of a process are permitted."""
    masks = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text()
        masks.add(int(text.partition("CapPrm:")[2].split()[0], 16))
    return {frozenset(capability_names(mask)) for mask in masks}
