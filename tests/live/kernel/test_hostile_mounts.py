"""What a container has mounted over its own cgroup files is noticed before it is asked for anything."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.tracer.kernel.cgroup import Membership, read_figures
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.proc.beneath import open_mount_point, open_within
from gomem.tracer.proc.mounts import Mount, parse_mountinfo
from gomem.tracer.process.target import Target
from tests.support.discovery.fuse import executed_from_fuse
from tests.support.processes import sleeping, state, wait_until
from tests.support.requirements import absent, program

CGROUPS = ("cgroup2", "cgroup")


def cgroup_mount() -> Mount:
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    found = next((mount for mount in mounts if mount.kind in CGROUPS and mount.root == "/"), None)
    if found is None:
        absent("no cgroup hierarchy is mounted here")
    return found


@pytest.fixture
def mounted_over() -> Iterator[str]:
    """A mount point as we reach it in another mount namespace, of a file system that does not answer."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")
    with executed_from_fuse(Path("/bin/true"), count=0) as (server,):
        mounts = parse_mountinfo(Path(f"/proc/{server}/mountinfo").read_text())
        (point,) = (mount.point for mount in mounts if mount.kind == "fuse")
        os.kill(server, signal.SIGSTOP)
        try:
            wait_until(lambda: state(server) == "T", "the server is stopped")
            yield f"/proc/{server}/root{point}"
        finally:
            os.kill(server, signal.SIGCONT)


def test_a_file_system_that_never_answers_over_a_cgroup_mount_point_is_not_waited_for(mounted_over: str) -> None:
    real = cgroup_mount()
    hidden = Mount(real.device, "/", mounted_over.partition("/root")[2], (), "cgroup2", ())
    raised: list[OSError] = []

    def look() -> None:
        try:
            read_figures(Membership(2, "/"), hidden, mounted_over)
        except OSError as error:
            raised.append(error)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(20)
    assert [error.errno for error in raised] == [errno.ENOENT]


def test_the_cgroups_of_another_mount_namespace_are_reached() -> None:
    real = cgroup_mount()
    with sleeping() as other:
        opened = open_mount_point(f"/proc/{other.pid}/root{real.point}", real.device)
        try:
            assert os.path.samestat(os.fstat(opened), os.stat(real.point))
            os.close(open_within(opened, "cgroup.procs", os.O_RDONLY))
        finally:
            os.close(opened)


def test_what_is_mounted_below_is_not_entered() -> None:
    root = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
            open_within(root, "proc/stat", os.O_RDONLY)
    finally:
        os.close(root)


def test_no_symbolic_link_is_followed() -> None:
    root = os.open("/proc", os.O_PATH)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            open_within(root, "self/stat", os.O_RDONLY)
    finally:
        os.close(root)


_OPENS = """
import os, sys
from gomem.tracer.proc.beneath import open_mapped
try:
    opened = open_mapped(*(int(word) for word in sys.argv[1:4]), sys.argv[4])
    print(os.stat(f"/proc/self/fd/{opened}").st_ino)
except OSError as error:
    print(type(error).__name__)
"""
_WITHOUT_MAP_FILES = ("--bounding-set=-sys_admin,-checkpoint_restore", "--inh-caps=-sys_admin,-checkpoint_restore")


@pytest.mark.parametrize("less", [(), _WITHOUT_MAP_FILES])
def test_mapped_code_on_a_file_system_that_never_answers_is_not_opened_and_other_is(less: tuple[str, ...]) -> None:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")
    said = {}
    with executed_from_fuse(Path("/bin/sleep"), "1000") as (server, target):
        with Target.open(target) as opened:
            found = read_mappings(opened).mappings
        os.kill(server, signal.SIGSTOP)
        try:
            wait_until(lambda: state(server) == "T", "the server is stopped")
            for row in (found.executable & (found.inode != 0)).nonzero()[0].tolist():
                words = [str(target), str(found.start[row]), str(found.end[row]), found.name[row]]
                under = [program("setpriv", "util-linux"), *less] if less else []
                command = [*under, sys.executable, "-c", _OPENS, *words]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
                said[found.name[row]] = done.stdout.strip(), str(found.inode[row])
        finally:
            os.kill(server, signal.SIGCONT)
    (from_fuse,) = (name for name in said if name.endswith("/program"))
    assert said.pop(from_fuse)[0] in ("NotAsked", "BlockingIOError")
    assert said
    assert all(opened == inode for opened, inode in said.values())
