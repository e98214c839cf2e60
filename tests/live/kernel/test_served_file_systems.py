"""Which executables are on file systems that others serve, told without asking these."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError
from gomem.tracer.proc.mounts import parse_mountinfo
from gomem.tracer.proc.served import server_of
from tests.support.builds import build
from tests.support.discovery.fuse import executed_from_fuse
from tests.support.liar import silenced
from tests.support.processes import running, sleeping, wait_until
from tests.support.requirements import absent, program

SLEEP = Path("/bin/sleep")
_STACK = (
    'set -e; mount -t tmpfs none "$1"; mkdir "$1"/low "$1"/up "$1"/work "$1"/seen; cp /bin/sleep "$1"/low/program; '
    'mount -t overlay none -o lowerdir="${2:-$1/low}",upperdir="$1"/up,workdir="$1"/work "$1"/seen; '
    'exec "$1"/seen/program 1000'
)


@pytest.fixture
def mounts() -> None:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")


def mount_point(server: int) -> str:
    """Return where a process that serves a FUSE file system has mounted it."""
    mounted = parse_mountinfo(Path(f"/proc/{server}/mountinfo").read_text())
    (point,) = (one.point for one in mounted if one.kind == "fuse")
    return point


def kind(pid: int) -> str | None:
    opened = os.open(f"/proc/{pid}/exe", os.O_PATH)
    try:
        return server_of(opened, f"/proc/{pid}")
    finally:
        os.close(opened)


@contextmanager
def stacked(directory: Path, *under: object, lower: str = "") -> Iterator[int]:
    """Execute a program from an overlay file system; gives its pid."""
    with running(*under, "sh", "-c", _STACK, "sh", directory, lower) as process:

        def executes() -> bool:
            assert process.poll() is None, "it could not be mounted"
            return os.readlink(f"/proc/{process.pid}/exe").endswith("/program")

        wait_until(executes, "the program runs")
        yield process.pid


def test_a_program_on_a_disk_and_one_in_memory_are_local() -> None:
    with sleeping() as process:
        assert kind(process.pid) is None
    held = os.memfd_create("program", 0)
    try:
        os.write(held, SLEEP.read_bytes())
        with subprocess.Popen([f"/proc/self/fd/{held}", "1000"], pass_fds=(held,)) as process:
            wait_until(lambda: "memfd:" in os.readlink(f"/proc/{process.pid}/exe"), "the program runs")
            assert kind(process.pid) is None
            process.kill()
    finally:
        os.close(held)


@pytest.mark.usefixtures("mounts")
def test_a_program_of_fuse_is_served_also_when_its_server_says_nothing_and_when_it_is_mounted_no_more() -> None:
    with executed_from_fuse(SLEEP, "1000") as (server, pid), silenced(server):
        assert kind(pid) == "fuse"
        point = mount_point(pid)
        enter = [program("nsenter", "util-linux"), f"--mount=/proc/{pid}/ns/mnt"]
        subprocess.run([*enter, "umount", "-l", point], check=True)
        assert kind(pid) == "unknown"


@pytest.mark.usefixtures("mounts")
def test_an_overlay_is_what_its_layers_are(tmp_path: Path) -> None:
    unshare = program("unshare", "util-linux")
    with stacked(tmp_path, unshare, "--mount") as pid:
        assert kind(pid) is None
    with executed_from_fuse(SLEEP, count=0) as (server,):
        point = mount_point(server)
        enter = (program("nsenter", "util-linux"), f"--mount=/proc/{server}/ns/mnt")
        with stacked(tmp_path, *enter, unshare, "--mount", lower=point) as pid, silenced(server):
            assert kind(pid) == "overlay on fuse"


@pytest.mark.usefixtures("mounts")
def test_an_overlay_of_a_user_namespace_is_not_trusted(tmp_path: Path) -> None:
    shutil.chown(tmp_path, 0)
    with stacked(tmp_path, program("unshare", "util-linux"), "--user", "--map-root-user", "--mount") as pid:
        assert kind(pid) == "overlay"


@pytest.mark.usefixtures("mounts")
def test_an_executable_whose_server_has_gone_is_an_error_and_can_be_closed() -> None:
    program = build("churn", "1.25.5")
    with executed_from_fuse(program, "-seconds", "600") as (server, pid):
        path = f"/proc/{server}/root{mount_point(server)}/program"
        # As on kernels that do not tell what a file lies on: opened here, so that the kernel asks the server when it is
        # closed, too.
        with Executable(path, os.open(path, os.O_RDONLY)) as plain, Executable.open(f"/proc/{pid}/exe") as apart:
            os.close(os.open(path, os.O_RDONLY))  # which drops what is cached of it
            os.kill(server, signal.SIGKILL)
            for exe in (plain, apart):
                with pytest.raises(BinaryError, match=r"reading failed|looking at it failed"):
                    exe.read_at(0, exe.file_size)
        with pytest.raises(BinaryError):
            Executable.open(f"/proc/{pid}/exe")
