"""A virtual machine with one of the kernels and this machine's files, of which it writes to none.

qemu interprets (tcg): /dev/kvm is not everywhere, and where this runs in a machine of its own guests may hang under it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kernels.debian import Files
from tests.kernels.initramfs import DONE, initramfs

_MEMORY = "3072"  # MB
_CPUS = "2"
_SWAP = 1 << 30  # bytes of a disk for swap, which take no room before they are used
# qemu's own clock is the host's, and asking any other leaves the interpreter; four levels of page tables are walked
# faster than five.
_ALWAYS = "console=ttyS0 panic=-1 quiet loglevel=5 mitigations=off tsc=reliable clocksource=tsc no5lvl"
_SAID = 500  # characters of what qemu and the kernel said last


class MachineFailed(Exception):
    """The machine could not be started, or did not end by itself."""


def boot(
    files: Files, script: str, results: Path, seconds: float | None, *, boot_with: str = "", terminal: bool = False
) -> int:
    """Run a shell script as root in a machine of its own, and return its exit status; raises MachineFailed.

    It sees this machine's files, and may write into a copy of them that is gone afterwards. `results` is
    /run/results there, and what it writes into that stays; what the kernel says is in `console` there.
    `seconds` is how long it may take; `boot_with` are more words for the kernel. With `terminal`, /dev/ttyS1 there is
    our own standard input and output.
    """
    qemu, busybox = (shutil.which(name) for name in ("qemu-system-x86_64", "busybox"))
    if qemu is None or busybox is None:
        raise MachineFailed("qemu or busybox is missing: apt-get install qemu-system-x86 busybox-static")
    results.mkdir(parents=True, exist_ok=True)
    (results / DONE).unlink(missing_ok=True)
    (results / "run").write_text(script)
    (results / "initramfs").write_bytes(initramfs(Path(busybox), files.modules))
    with (results / "swap").open("wb") as file:
        file.truncate(_SWAP)
    command = [
        qemu, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", _CPUS, "-m", _MEMORY, "-display", "none",
        "-no-reboot", "-serial", f"file:{results / 'console'}", "-monitor", "none", "-nic", "none",
        *(("-chardev", "stdio,id=terminal,signal=off", "-serial", "chardev:terminal") if terminal else ()),
        "-kernel", str(files.image), "-initrd", str(results / "initramfs"),
        "-append", f"{_ALWAYS} {boot_with}".rstrip(),
        "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={results},mount_tag=results,security_model=none",
        "-drive", f"file={results / 'swap'},if=virtio,format=raw",
    ]  # fmt: skip
    try:
        with (results / "qemu").open("wb") as said:
            streams = {} if terminal else {"stdin": subprocess.DEVNULL, "stdout": said}
            done = subprocess.run(command, stderr=said, timeout=seconds, check=False, **streams)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired as error:
        raise MachineFailed(f"it did not end within {seconds:g} s: see {results / 'console'}") from error
    finally:
        for name in ("initramfs", "swap"):
            (results / name).unlink(missing_ok=True)
    status = _text(results / DONE)
    if not status.isdigit():
        raise MachineFailed(_why(done.returncode, results))
    return int(status)


def _why(status: int, results: Path) -> str:
    """Tell of a machine that was gone before its script had ended: what qemu said, or else the kernel's last words."""
    ended = f"signal {-status}" if status < 0 else f"exit status {status}"
    said = _text(results / "qemu")
    last = f"qemu: {said}" if said else f"the kernel's last words: {_text(results / 'console') or 'none'}"
    return f"it ended before its script had ({ended} of qemu); {last}"


def _text(path: Path) -> str:
    """Return the end of what is in a file, "" if it is not there."""
    return path.read_text(errors="replace").strip()[-_SAID:] if path.exists() else ""
