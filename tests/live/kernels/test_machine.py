"""Virtual machines say how their script ended, and when it did not end, why."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernels.debian import KERNELS, Files, KernelMissing, fetched
from tests.kernels.machine import MachineFailed, boot
from tests.support.requirements import absent, program

ROOT = Path(__file__).parents[3]
_LONGEST = 280.0


@pytest.fixture(scope="module")
def files() -> Files:
    """Return the kernel that is tried on each change."""
    program("qemu-system-x86_64", "qemu-system-x86")
    program("busybox", "busybox-static")
    try:
        return fetched(next(kernel for kernel in KERNELS if kernel.name == "6.1"))
    except KernelMissing as missing:
        absent(str(missing))


def test_a_command_there_has_the_kernel_and_a_copy_of_the_files_and_its_status_is_ours(files: Files) -> None:
    script = f"uname -r; rm {__file__}; test ! -e {__file__} && exit 7"
    shell = [sys.executable, "-m", "tests.kernels.shell", "6.1", "--", "sh", "-c", script]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=_LONGEST, stdin=subprocess.DEVNULL, cwd=ROOT)
    assert (done.stdout, done.returncode) == (f"{files.modules.name}\n", 7), done.stderr
    assert Path(__file__).exists()


def test_a_machine_that_is_gone_before_its_script_has_ended_did_not_do_it(files: Files, tmp_path: Path) -> None:
    with pytest.raises(MachineFailed, match="ended before its script had") as told:
        boot(files, "echo so far >/run/results/begun\nbusybox poweroff -f\n", tmp_path, _LONGEST)
    assert (tmp_path / "begun").read_text() == "so far\n"
    assert "exit status 0 of qemu" in str(told.value)


def test_what_qemu_does_not_like_is_told_in_its_words(files: Files, tmp_path: Path) -> None:
    no_kernel = tmp_path / "vmlinuz"
    no_kernel.write_bytes(b"")
    with pytest.raises(MachineFailed, match=r"qemu: .*kernel"):
        boot(replace(files, image=no_kernel), "true\n", tmp_path / "results", _LONGEST)
