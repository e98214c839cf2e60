"""Pure parsers of the small files of /proc/PID: stat, status, and the bounded read that they share."""

from __future__ import annotations

import os

from msgspec import Struct

PF_KTHREAD = 0x0020_0000  # include/linux/sched.h
PF_EXITING = 0x4
CHUNK = 1 << 18
_KIB = 1024


def read_bounded(fd: int, limit: int) -> tuple[bytes, bool]:
    """Read `fd` from where it stands to its end, at most `limit` bytes; return (bytes, was it cut)."""
    parts: list[bytes] = []
    left = limit
    while left > 0:
        part = os.read(fd, min(CHUNK, left))
        if not part:
            return b"".join(parts), False
        parts.append(part)
        left -= len(part)
    return b"".join(parts), bool(os.read(fd, 1))


def printable(raw: bytes) -> str:
    """Decode a name that the target chose: never fails, and gives no lone surrogates to JSON."""
    return raw.decode("utf-8", errors="backslashreplace")


class Stat(Struct, frozen=True):
    """The fields of /proc/PID/stat that gomem needs (proc_pid_stat(5))."""

    pid: int
    comm: str
    state: str
    flags: int
    threads: int
    cpu_ticks: int  # clock ticks used by all threads, user and system
    start_ticks: int  # clock ticks after boot
    start_code: int  # address; 0 without memory of its own and early in an execve, 1 without ptrace permission
    start_stack: int  # 0 without ptrace permission
    start_break: int  # where [heap] begins, or would; 0 without ptrace permission

    @property
    def is_kernel_thread(self) -> bool:
        """Whether the kernel made it for itself: no address space, no executable."""
        return bool(self.flags & PF_KTHREAD)

    @property
    def is_dead(self) -> bool:
        """Whether it is a zombie or about to vanish."""
        return self.state in "ZXx"

    @property
    def is_ending(self) -> bool:
        """Whether it has ended, or is about to: its memory and its executable may be gone by now."""
        return self.is_dead or bool(self.flags & PF_EXITING)


def parse_stat(raw: bytes) -> Stat:
    """Parse /proc/PID/stat; the comm may hold spaces, parentheses and newlines. Raises ValueError."""
    opened, closed = raw.find(b"("), raw.rfind(b")")
    if opened < 0 or closed < opened:
        raise ValueError("no comm in stat")
    fields = raw[closed + 1 :].split()
    if len(fields) < 45:  # counted from field 3, up to start_brk, field 47
        raise ValueError(f"stat has only {len(fields) + 2} fields")
    return Stat(
        pid=int(raw[:opened]),
        comm=printable(raw[opened + 1 : closed]),
        state=fields[0].decode("ascii"),
        flags=int(fields[6]),
        threads=int(fields[17]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_ticks=int(fields[19]),
        start_code=int(fields[23]),
        start_stack=int(fields[25]),
        start_break=int(fields[44]),
    )


class Status(Struct, frozen=True):
    """What gomem reads of /proc/PID/status; sizes in bytes, None where this kernel has no such line.

    VmSize is exact; VmRSS and its parts are per-CPU counters and may be off by some pages per CPU.
    """

    tgid: int | None
    uid: int | None  # real user id
    threads: int | None
    ns_pids: tuple[int, ...]  # from our PID namespace inwards
    vm_size: int | None  # None: no address space
    vm_rss: int | None
    rss_anon: int | None
    rss_file: int | None
    rss_shmem: int | None
    vm_swap: int | None
    hugetlb: int | None
    cap_effective: int | None
    vm_lck: int | None = None  # address space locked in RAM (mlock)
    vm_data: int | None = None  # private writable address space: what RLIMIT_DATA is held against
    thp_enabled: int | None = None  # 0: no transparent huge pages, by prctl(PR_SET_THP_DISABLE)


def colon_fields(raw: bytes) -> dict[str, str]:
    """Split lines "Name:  value" into a dict; lines without a colon are skipped, the first of a name counts."""
    fields: dict[str, str] = {}
    for line in raw.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(printable(name.strip()), printable(value.strip()))
    return fields


def decimal(word: str) -> int | None:
    """Return the number of at most 20 digits that `word` is, or None."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 20 else None


def kib_field(fields: dict[str, str], name: str) -> int | None:
    """Return a "123 kB" field in bytes, or None when it is missing or no number."""
    number = decimal(fields.get(name, "").split(" ")[0])
    return None if number is None else number * _KIB


def parse_status(raw: bytes) -> Status:
    """Parse /proc/PID/status. Never raises: an odd or missing line is None."""
    fields = colon_fields(raw)

    def numbers(name: str) -> tuple[int, ...]:
        return tuple(number for word in fields.get(name, "").split() if (number := decimal(word)) is not None)

    def first(name: str) -> int | None:
        return next(iter(numbers(name)), None)

    return Status(
        tgid=first("Tgid"),
        uid=first("Uid"),
        threads=first("Threads"),
        ns_pids=numbers("NSpid"),
        vm_size=kib_field(fields, "VmSize"),
        vm_rss=kib_field(fields, "VmRSS"),
        rss_anon=kib_field(fields, "RssAnon"),
        rss_file=kib_field(fields, "RssFile"),
        rss_shmem=kib_field(fields, "RssShmem"),
        vm_swap=kib_field(fields, "VmSwap"),
        hugetlb=kib_field(fields, "HugetlbPages"),
        cap_effective=_hex_field(fields, "CapEff"),
        vm_lck=kib_field(fields, "VmLck"),
        vm_data=kib_field(fields, "VmData"),
        thp_enabled=first("THP_enabled"),
    )


def parse_limits(raw: bytes) -> dict[str, int | None]:
    """Parse /proc/PID/limits: the soft limits by name ("Max address space"), in the kernel's units; None: unlimited.

    Never raises: a line that is none of the kernel's is left out.
    """
    limits: dict[str, int | None] = {}
    for line in raw.splitlines()[1:]:
        # Columns of fixed width, as proc_pid_limits() prints them (fs/proc/base.c): "%-25s %-20s %-20s %-10s".
        name, soft = printable(line[:25]).strip(), printable(line[26:46]).strip()
        if soft == "unlimited" or decimal(soft) is not None:
            limits[name] = decimal(soft)
    return limits


def _hex_field(fields: dict[str, str], name: str) -> int | None:
    try:
        return int(fields[name], 16)
    except (KeyError, ValueError):
        return None
