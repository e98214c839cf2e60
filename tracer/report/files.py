"""What a process has mapped of files, of shared memory and of devices, by path."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count

FileBacking = Literal["file", "tmpfs", "memfd", "shared_anonymous", "sysv", "hugetlb", "device", "kernel"]


class MappedFile(Struct, frozen=True):
    """All mappings of one file. What of it is in RAM is `anonymous`, which no file backs, or `clean` or `dirty`.

    `clean`, `dirty` and `shared` are smaps' and None where that was not read: it is for files of 16 MiB and more in RAM
    beside programs and libraries. The kernel can drop clean pages of a "file", dirty ones after writing them; what is
    in tmpfs, memfd, shared_anonymous, sysv it can only move to swap.
    """

    path: str
    deleted: bool
    backing: FileBacking
    executable: Annotated[bool, Meta(description="a part of it is program text")]
    mappings: Count
    virtual: Bytes
    resident: Bytes
    anonymous: Annotated[Bytes | None, Meta(description="private copies of pages that were written to")]
    swap: Bytes
    hugetlb: Annotated[Bytes, Meta(description="of reserved huge pages, which are not in RSS")]
    clean: Bytes | None
    dirty: Bytes | None
    shared: Annotated[Bytes | None, Meta(description="of resident: mapped more than once, by others or itself")]
