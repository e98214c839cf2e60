"""How the machine and a process are set, against the files of the kernel and what it does with huge pages."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gomem.tracer.kernel.view import read_kernel_view
from gomem.tracer.process.target import Target
from gomem.tracer.report import MemorySettings
from tests.support.builds import build
from tests.support.occupant import HUGE, Occupant, occupant
from tests.support.processes import sleeping
from tests.support.requirements import absent
from tests.support.seen import findings, look_at, told

_THP = Path("/sys/kernel/mm/transparent_hugepage")
_WITHOUT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(41, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
_COLLAPSE, _PROCESS_MADVISE = 25, 440


def settings_of(pid: int) -> MemorySettings:
    with Target.open(pid) as target:
        found = read_kernel_view(target).settings
    assert found is not None
    return found


def kib(path: str, name: str) -> int:
    """Return the sum of a field of a file of "Name: 12 kB" lines, in bytes."""
    lines = [line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:")]
    return sum(int(line.split()[1]) for line in lines) * 1024


@contextmanager
def without_huge_pages() -> Iterator[int]:
    """Run a process for which they are off; gives its pid."""
    words = [sys.executable, "-c", _WITHOUT, "/bin/cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        try:
            assert one.stdin is not None
            assert one.stdout is not None
            one.stdin.write(b"\n")
            one.stdin.flush()
            one.stdout.readline()  # cat runs
            yield one.pid
        finally:
            one.kill()


def test_what_the_machine_is_set_to_is_what_its_files_say() -> None:
    with sleeping() as process:
        found = settings_of(process.pid)
    if found.huge_pages.enabled is None:
        absent("this kernel has no huge pages")
    for name, word in (("enabled", found.huge_pages.enabled), ("defrag", found.huge_pages.defrag)):
        assert f"[{word}]" in (_THP / name).read_text()
    assert found.huge_pages.max_ptes_none == int((_THP / "khugepaged/max_ptes_none").read_text())
    assert found.swap_total == kib("/proc/meminfo", "SwapTotal")
    assert found.swappiness == int(Path("/proc/sys/vm/swappiness").read_text())
    ksm = Path("/sys/kernel/mm/ksm/run")
    assert found.ksm == (("off", "on", "unmerging")[int(ksm.read_text())] if ksm.exists() else None)
    assert (found.huge_pages.advised, found.huge_pages.in_advised) == (None, None), "it has no huge pages"


def test_huge_pages_that_are_off_for_a_process_are_said_to_be() -> None:
    with without_huge_pages() as pid, sleeping() as other:
        assert settings_of(pid).huge_pages.disabled is True
        assert settings_of(other.pid).huge_pages.disabled is False


def advice_on(process: Occupant) -> tuple[int, int, int]:
    """Return what is advised, refused, and the huge pages in the former, all known."""
    found = settings_of(process.pid).huge_pages
    assert found.advised is not None
    assert found.refused is not None
    assert found.in_advised is not None
    return found.advised, found.refused, found.in_advised


def test_huge_pages_that_the_program_asked_for_are_told_from_those_that_it_did_not() -> None:
    if "[never]" in (_THP / "enabled").read_text():
        absent("huge pages are off")
    with occupant("huge_pages") as process:
        advised, _, within = advice_on(process)
        assert within == kib(f"/proc/{process.pid}/smaps", "AnonHugePages") == HUGE
        assert advised == process.said["size"]
    with occupant("unadvised") as process:
        if not collapsed(process.pid, process.said["written"], HUGE):
            absent("this kernel makes no huge page of others' memory")
        advised, _, within = advice_on(process)
        assert kib(f"/proc/{process.pid}/smaps", "AnonHugePages") >= HUGE
        assert (advised, within) == (0, 0)


def test_no_advice_is_given_to_set_what_is_set() -> None:
    freed = ("env", "GOGC=off", str(build("charged", "1.25.5")), "freed", 160 << 20)
    with told(*freed) as (process, _):
        if not made_huge(process.pid):
            absent("this kernel makes no huge page of others' memory")
        _, report = look_at(process)
    action = findings(report)["huge-pages"].action
    assert ("enabled is madvise already" in action) == ("[madvise]" in (_THP / "enabled").read_text())
    with told(sys.executable, "-c", _WITHOUT, "/usr/bin/env", *freed[1:]) as (process, _):
        assert not made_huge(process.pid), "the kernel makes none where they are off"
        _, report = look_at(process)
    assert "huge-pages" not in findings(report)
    assert report.settings is not None
    assert report.settings.huge_pages.disabled is True


def made_huge(pid: int) -> int:
    """Have the kernel make huge pages of a process's writable memory; return how many it made."""
    made = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, rights, *_ = line.split()
        start, end = (int(word, 16) for word in place.split("-"))
        if rights == "rw-p":
            made += sum(collapsed(pid, at, HUGE) for at in range(-(-start // HUGE) * HUGE, end - HUGE + 1, HUGE))
    return made


def collapsed(pid: int, start: int, size: int) -> bool:
    """Have the kernel make huge pages of another process's memory (Linux 6.1); return whether it could."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    vector = (ctypes.c_size_t * 2)(start, size)
    done = libc.syscall(_PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, _COLLAPSE, 0)
    os.close(pidfd)
    return bool(done == size)
