"""A virtual machine with one of the kernels and this machine's files, of which it writes to none.

qemu interprets (tcg): /dev/kvm is not everywhere, and where this runs in a machine of its own guests may hang under it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kernels.debian import Files
from tests.kernels.initramfs import initramfs

_MEMORY = "3072"  # MB
_CPUS = "2"
_SWAP = 1 << 30  # bytes of a disk for swap, which take no room before they are used


class MachineFailed(Exception):
    """The machine could not be started, or did not end by itself."""


def boot(files: Files, script: str, results: Path, seconds: float) -> None:
    """Run a shell script as root in a machine of its own; raises MachineFailed.

    It sees this machine's files, and may write into a copy of them that is gone afterwards. `results` is
    /run/results there, and what it writes into that stays; what the kernel says is in `console` there.
    """
    qemu, busybox = (shutil.which(name) for name in ("qemu-system-x86_64", "busybox"))
    if qemu is None or busybox is None:
        raise MachineFailed("qemu or busybox is missing: apt-get install qemu-system-x86 busybox-static")
    results.mkdir(parents=True, exist_ok=True)
    (results / "run").write_text(script)
    (results / "initramfs").write_bytes(initramfs(Path(busybox), files.modules))
    with (results / "swap").open("wb") as file:
        file.truncate(_SWAP)
    command = [
        qemu, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", _CPUS, "-m", _MEMORY, "-display", "none",
        "-no-reboot", "-serial", f"file:{results / 'console'}", "-monitor", "none", "-nic", "none",
        "-kernel", str(files.image), "-initrd", str(results / "initramfs"),
        "-append", "console=ttyS0 panic=-1 quiet mitigations=off",
        "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={results},mount_tag=results,security_model=none",
        "-drive", f"file={results / 'swap'},if=virtio,format=raw",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise MachineFailed(f"it did not end within {seconds:g} s: see {results / 'console'}") from error
    finally:
        for name in ("initramfs", "swap"):
            (results / name).unlink(missing_ok=True)
    if done.returncode != 0:
        raise MachineFailed(f"qemu: {done.stderr.strip()[-300:]}")
