"""What a kernel starts with: busybox, the modules that it takes to see this machine's files, and what runs first.

Format: Documentation/driver-api/early-userspace/buffer-format.rst, a cpio archive in the "newc" format.
"""

from __future__ import annotations

import lzma
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import zstandard

DONE = "done"  # where the machine writes the script's exit status, when that has ended
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
# Of those that are no modules of a kernel, it is taken that they are built in.
_WANTED = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk")
_DIRECTORY, _FILE, _PROGRAM = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFREG | 0o755
_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /new /low /up
$b mount -t proc none /proc
for module in {modules}; do $b insmod /modules/$module.ko; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,ro,cache=loose root /low
$b mount -t tmpfs none /up
$b mkdir /up/upper /up/work
$b mount -t overlay -o lowerdir=/low,upperdir=/up/upper,workdir=/up/work none /new
$b mount -t proc none /new/proc
$b mount -t sysfs none /new/sys
$b mount -t devtmpfs none /new/dev
$b mkdir -p /new/dev/shm /new/dev/pts
for at in dev/shm run tmp; do $b mount -t tmpfs none /new/$at; done
$b mount -t devpts none /new/dev/pts
$b ln -sf /proc/self/fd /new/dev/fd
$b mount -t cgroup2 none /new/sys/fs/cgroup
$b mkdir /new/run/results
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=none results /new/run/results
$b ip link set lo up
$b chroot /new /bin/sh /run/results/run
echo $? >/new/run/results/{done}
$b sync
$b poweroff -f
"""


def initramfs(busybox: Path, modules: Path) -> bytes:
    """Return the archive. `busybox`: linked statically; `modules`: the directory of a kernel's."""
    found = in_order(modules, _WANTED)
    init = _INIT.format(modules=" ".join(name for name, _ in found), done=DONE).encode()
    return archive(
        [
            ("bin", _DIRECTORY, b""),
            ("modules", _DIRECTORY, b""),
            ("bin/busybox", _PROGRAM, busybox.read_bytes()),
            *((f"modules/{name}.ko", _FILE, raw) for name, raw in found),
            ("init", _PROGRAM, init),
        ]
    )


def in_order(modules: Path, wanted: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return modules and those that they depend on, each behind those, with what is in their files."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    found: dict[str, bytes] = {}

    def take(name: str) -> None:
        if name in found or name not in files:
            return
        raw = _unpacked(files[name])
        depends = _DEPENDS.search(raw)
        for other in depends[1].decode().replace("-", "_").split(",") if depends else ():
            take(other)
        found[name] = raw

    for name in wanted:
        take(name)
    return list(found.items())


def _unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(raw)
    return zstandard.ZstdDecompressor().decompressobj().decompress(raw) if path.suffix == ".zst" else raw


def archive(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return a cpio archive of (name, mode, contents)."""
    parts = []
    for number, (name, mode, contents) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(contents), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        parts += [_padded(header), _padded(contents)]
    return b"".join(parts)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
