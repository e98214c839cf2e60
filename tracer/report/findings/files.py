"""Rules on pages of files and of shared memory: what the kernel can drop, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gomem.tracer.report import Finding, MappedFile, Report
from gomem.tracer.report.findings.base import LARGE, Evidence, holders_command, mib

SHARE: Final = 0.30  # of RSS
_SHARED: Final = ("tmpfs", "memfd", "shared_anonymous", "sysv")
_MOST_OF_PATH: Final = 100


def _much(amount: int | None, report: Report) -> bool:
    return (
        amount is not None and report.resident is not None and amount >= max(LARGE, int(SHARE * report.resident.total))
    )


def _largest(report: Report, amount: Callable[[MappedFile], int | None]) -> tuple[str, Evidence]:
    """Return which file has most of something, in words, and as evidence; nothing where that is not told."""
    row = max(report.files or (), key=lambda row: amount(row) or 0, default=None)
    size = (amount(row) or 0) if row is not None else 0
    if row is None or size < LARGE // 4:
        return "", {"largest_file": None}
    name = row.path if len(row.path) <= _MOST_OF_PATH else f"...{row.path[-_MOST_OF_PATH:]}"
    return f" {name} has {mib(size)} of it.", {"largest_file": name, "largest_bytes": size}


def shared_memory(report: Report) -> Finding | None:
    """Shared memory is much of RSS."""
    resident = report.resident
    if resident is None or resident.shmem is None or not _much(resident.shmem, report):
        return None
    words, largest = _largest(report, lambda row: row.resident if row.backing in _SHARED else None)
    return Finding(
        id="shared-memory",
        severity="warning",
        title=f"{mib(resident.shmem)} of RSS is shared memory",
        explanation="Files of tmpfs (/dev/shm), memfd_create or MAP_SHARED with MAP_ANONYMOUS: no disk is behind these "
        "pages. The kernel cannot drop them, only move them to swap, and keeps them until they are unmapped and "
        "their file is deleted. Go's heap profile, MemStats and GOMEMLIMIT do not see them." + words,
        evidence={"shmem": resident.shmem, **largest, "resident_total": resident.total},
        action="Have the owner of these mappings make them smaller; the cgroup counts them (shmem in memory.stat)."
        + (_which_files(report) or " /proc/PID/maps has them: /dev/shm, memfd, /dev/zero."),
    )


def copied_file_pages(report: Report) -> Finding | None:
    """Private copies of file pages that the program has written are much of RSS."""
    copies = next((row.anonymous for row in report.kinds or () if row.kind == "file"), None)
    resident = report.resident
    if resident is None or copies is None or not _much(copies, report):
        return None
    words, largest = _largest(report, lambda row: row.anonymous if not row.executable else None)
    return Finding(
        id="copied-file-pages",
        severity="warning",
        title=f"{mib(copies)} of RSS is private copies of pages of files",
        explanation="The program has written to files that it maps with MAP_PRIVATE. Each page written to is a copy in "
        "anonymous memory: the kernel cannot drop it, only move it to swap, and never writes it to the file." + words,
        evidence={"copies": copies, **largest, "resident_total": resident.total},
        action="Map the file read-only or with MAP_SHARED, or unmap it when it has been used." + _which_files(report),
    )


def dirty_file_pages(report: Report) -> Finding | None:
    """Pages of files that were changed and are not written yet are much of RSS."""
    resident = report.resident
    if resident is None or resident.file_dirty is None or not _much(resident.file_dirty, report):
        return None
    words, largest = _largest(report, lambda row: row.dirty if row.backing == "file" else None)
    return Finding(
        id="dirty-file-pages",
        severity="info",
        title=f"{mib(resident.file_dirty)} of RSS is changed pages of files that are not on the disk yet",
        explanation="The kernel can drop them only after it has written them. It does that by itself after some 30 s "
        "(vm.dirty_expire_centisecs), or when memory is short, and then the program may have to wait for the disk."
        + words,
        evidence={"file_dirty": resident.file_dirty, **largest, "resident_total": resident.total},
        action="Call msync or fdatasync from time to time if this memory is needed at short notice.",
    )


def locked_file_pages(report: Report) -> Finding | None:
    """Locked pages of files are much of RSS."""
    resident = report.resident
    if resident is None or resident.file_locked is None or not _much(resident.file_locked, report):
        return None
    return Finding(
        id="locked-file-pages",
        severity="warning",
        title=f"{mib(resident.file_locked)} of RSS is locked pages of files",
        explanation="mlock or mlockall keeps them in RAM: the kernel can neither drop them nor write them out and drop "
        "them.",
        evidence={"file_locked": resident.file_locked, "resident_total": resident.total},
        action="Lock only the memory that must never wait for the disk." + _which_files(report),
    )


def deleted_file(report: Report) -> Finding | None:
    """Pages of a file that has been deleted are much of RSS, and it stays on the disk while it is mapped."""
    gone = [row for row in report.files or () if row.deleted and row.backing == "file" and not row.executable]
    row = max(gone, key=lambda row: row.resident, default=None)
    if row is None or report.resident is None or not _much(row.resident, report):
        return None
    words, largest = _largest(report, lambda one: one.resident if one is row else None)
    return Finding(
        id="deleted-file",
        severity="info",
        title=f"{mib(row.resident)} of RSS is of a file that has been deleted",
        explanation="A file that is mapped stays on its disk, and its pages in RAM, until the last mapping of it and "
        "the last descriptor are gone: du does not count it, df does." + words,
        evidence={"resident": row.resident, "virtual": row.virtual, **largest, "resident_total": report.resident.total},
        action="Unmap it, or let the program open the file that has taken its place.",
    )


def clean_file_pages(report: Report) -> Finding | None:
    """Pages that the kernel can drop at once are much of RSS."""
    resident = report.resident
    if resident is None or resident.file_clean is None or not _much(resident.file_clean, report):
        return None
    return Finding(
        id="file-pages",
        severity="info",
        title=f"{mib(resident.file_clean)} of RSS is clean pages of files",
        explanation="Program text, libraries and mapped files, as they are on the disk: the kernel drops them when "
        "memory is short, and reads them again when they are used.",
        evidence={
            "file_clean": resident.file_clean,
            "file_dirty": resident.file_dirty,
            "resident_total": resident.total,
        },
        action="Nothing to do. To judge the program, look at anonymous memory instead of RSS.",
        actionable=False,
    )


def _which_files(report: Report) -> str:
    command = holders_command(report)
    return "" if command is None else f" `{command}`, where this report was taken, shows which files it is."
