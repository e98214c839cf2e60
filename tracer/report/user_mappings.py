"""What a program has mapped for itself: not the Go runtime's, its file, libraries, C's heap or threads."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Address, Bytes, Count


class MappingSums(Struct, frozen=True):
    """Mappings, or parts of them. `no_access` of `virtual` may not be read, written or executed (PROT_NONE)."""

    mappings: Count
    virtual: Bytes
    no_access: Bytes
    resident: Bytes
    swap: Bytes


class CallerMappings(Struct, frozen=True):
    """What the same callers have mapped while watching, and is still mapped.

    `function` wanted it: the innermost that does not only make system calls. None: code without a name, such as C.
    """

    function: str | None
    callers: Annotated[list[str], Meta(description="of the mmap or mremap, innermost first")]
    sums: MappingSums


class UserMapping(Struct, frozen=True):
    """One range of memory: neighbouring mappings with the same callers; `no_access` bytes of it are PROT_NONE."""

    start: Address
    size: Bytes
    no_access: Bytes
    resident: Bytes
    swap: Bytes
    name: Annotated[str, Meta(description="the path of its file, or a name that the kernel shows; empty: none")]
    function: Annotated[str | None, Meta(description="who mapped it; null: not seen, or code without a name")]


class UserMappings(Struct, frozen=True):
    """Mappings of kinds `other` and `file`.

    `by_caller`: those that were seen to be mapped, by RAM and then by size; `unseen`: all others of `sums`, most of
    which were there before. Both are None where nothing was watched. `largest`: the 10 largest ranges.
    """

    sums: MappingSums
    by_caller: list[CallerMappings] | None
    unseen: MappingSums | None
    largest: list[UserMapping]
