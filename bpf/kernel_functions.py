"""Functions of the kernel that programs can be run at: the ids that the kernel's own BTF gives them.

Format: Documentation/bpf/btf.rst. Types have no number in the file, so that all before one are passed over.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
from collections.abc import Collection
from pathlib import Path

from gomem.bpf import syscalls
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.machine.rights import Own, newer_kernel, own

BTF = Path("/sys/kernel/btf/vmlinux")
_MOST_BYTES = 64 << 20  # 5 MB are usual
_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_FUNCTION = 12  # BTF_KIND_FUNC
_MORE = {1: 4, 3: 12, 14: 4, 17: 4}  # bytes behind the 12 of each type, by kind: int, array, variable, tag
_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # for each of its parts: struct, union, enum, ...
_RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")
_NO_FUNCTION = 1  # the first type is none
TRUSTED_SINCE = (6, 1)  # docs/decisions/memory-calls.md: "Not on older kernels"
_NEEDS = "needs BPF trampolines: CONFIG_DEBUG_INFO_BTF, CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS (Linux 5.5)"


def ensure_wanted(me: Own | None = None) -> None:
    """Raise BackendUnavailable if this kernel takes no programs at its functions, whichever: that is soon known.

    It is also raised on kernels whose trampolines we do not trust, which is nothing to be found out by trying. `me`:
    what this process is; found out if not given.
    """
    me = me or own()
    if me.release < TRUSTED_SINCE:
        raise BackendUnavailable("BPF trampolines are not used on this kernel", newer_kernel(TRUSTED_SINCE, me=me))
    try:
        kind, attach_type = syscalls.BPF_PROG_TYPE_TRACING, syscalls.BPF_TRACE_FEXIT
        os.close(syscalls.load_program(kind, _RETURN_0, attach_type=attach_type, function=_NO_FUNCTION))
    except OSError as error:
        # EPERM is no word about functions: before Linux 5.11 the memory that all of us have locked may be too much.
        if error.errno == errno.EPERM or (error.errno == errno.EINVAL and BTF.exists()):
            return
        why = error.strerror if error.errno != errno.EINVAL else f"it has no {BTF}"
        raise BackendUnavailable(f"this kernel takes no programs at its functions: {why}", _NEEDS) from error


@functools.cache
def ids_of(names: frozenset[str]) -> dict[str, int]:
    """Return the ids of functions, those that this kernel has. Raises BackendUnavailable without BTF of its own."""
    try:
        with BTF.open("rb") as file:
            return find(file.read(_MOST_BYTES), names)
    except (OSError, ValueError) as error:
        raise BackendUnavailable(f"the kernel's types cannot be read: {error}", _NEEDS) from error


def find(raw: bytes, names: Collection[str]) -> dict[str, int]:
    """Return the ids of those functions that are among the types. Raises ValueError for what is no BTF."""
    if len(raw) < _HEADER.size:
        raise ValueError(f"BTF of {len(raw)} bytes")
    magic, _, _, header, types_at, types, strings_at, strings = _HEADER.unpack_from(raw)
    if magic != _MAGIC or header + max(types_at + types, strings_at + strings) > len(raw):
        raise ValueError("its header is not that of BTF")
    text = raw[header + strings_at :][:strings]
    places = {text.find(f"\0{name}\0".encode()) + 1: name for name in names}
    places.pop(0, None)
    found: dict[str, int] = {}
    at, end, number = header + types_at, header + types_at + types, 1
    unpack = struct.Struct("<II").unpack_from
    while at + 12 <= end and len(found) < len(places):
        name, words = unpack(raw, at)
        kind = words >> 24 & 31
        if kind == _FUNCTION and name in places:
            found.setdefault(places[name], number)
        at += 12 + _MORE.get(kind, 0) + _MEMBER.get(kind, 0) * (words & 0xFFFF)
        number += 1
    return found
