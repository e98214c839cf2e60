"""What is mounted: the parser of /proc/PID/mountinfo, and whether there is a /proc. Source: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re

from msgspec import Struct

MOUNTINFO_BYTES = 16 << 20  # of the file, that are read
NO_PROCFS = "/proc is not mounted here, or is that of another PID namespace"
MOUNT_PROCFS = "mount it: mount -t proc proc /proc"
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """One mount: `root` is what of the file system is mounted, `point` where."""

    device: int
    root: str
    point: str
    options: tuple[str, ...]
    kind: str  # "cgroup2", "ext4", ...
    super_options: tuple[str, ...]
    number: str = ""  # mount id


def parse_mountinfo(text: str) -> list[Mount]:
    """Parse the text of a mountinfo file; lines that are none are passed over. Never raises."""
    mounts: list[Mount] = []
    for line in text.split("\n"):
        front, dash, back = line.partition(" - ")
        fields, tail = front.split(" "), back.split(" ")
        major, colon, minor = fields[2].partition(":") if len(fields) > 2 else ("", "", "")
        if not dash or len(fields) < 6 or not colon or not (_is_number(major) and _is_number(minor)):
            continue
        mounts.append(
            Mount(
                device=os.makedev(int(major), int(minor)),
                root=_unescape(fields[3]),
                point=_unescape(fields[4]),
                options=tuple(fields[5].split(",")),
                kind=tail[0],
                super_options=tuple(tail[2].split(",")) if len(tail) > 2 else (),
                number=fields[0],
            )
        )
    return mounts


def has_procfs() -> bool:
    """Tell whether /proc is there, and shows the processes of our own PID namespace."""
    return os.path.exists("/proc/self/stat")


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


def _unescape(word: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), word)
