"""The system calls that neither Python nor bcc offers: bpf(2), perf_event_open(2) and the mount API.

Thin and typed: each raises OSError with the kernel's errno. Structures are those of the uapi headers
linux/bpf.h and linux/perf_event.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Sequence

_NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298},
    "aarch64": {"bpf": 280, "perf_event_open": 241},
}

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every architecture
_FSCONFIG_CMD_CREATE = 6

BPF_PROG_TYPE_KPROBE = 2
BPF_PROG_TYPE_TRACING = 26
_BPF_MAP_CREATE = 0
_BPF_MAP_LOOKUP_ELEM = 1
_BPF_MAP_UPDATE_ELEM = 2
_BPF_MAP_DELETE_ELEM = 3
_BPF_PROG_LOAD = 5
_BPF_MAP_LOOKUP_BATCH = 24
_BPF_OBJ_GET_INFO_BY_FD = 15
_BPF_RAW_TRACEPOINT_OPEN = 17
_BPF_LINK_CREATE = 28
BPF_TRACE_FENTRY = 24
BPF_TRACE_FEXIT = 25
BPF_PERF_EVENT = 41
BPF_TRACE_UPROBE_MULTI = 48

_M_ARENA_MAX = -8  # malloc.h

_PERF_TYPE_TRACEPOINT = 2
_PERF_ATTR_SIZE = 72  # PERF_ATTR_SIZE_VER1: up to config2
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_EVENT_IOC_ENABLE = 0x2400
_PERF_EVENT_IOC_SET_BPF = 0x40042408
_MAP_INFORMATION = struct.Struct("<6I")  # struct bpf_map_info, up to the flags
_LICENSE = b"GPL\0"
_VERIFIER_LOG = 1 << 20  # bytes

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | bytes | None) -> int:
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _number(name: str) -> int:
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise OSError(38, f"system call numbers of {machine} are unknown")
    return _NUMBERS[machine][name]


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    return _call(_number("bpf"), command, attributes, ctypes.sizeof(attributes))


def map_create(name: str, kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int) -> int:
    """Make a map; return its fd. `kind`: enum bpf_map_type."""
    attributes = struct.pack("<7I16s", kind, key_bytes, value_bytes, entries, flags, 0, 0, _object_name(name))
    return _bpf(_BPF_MAP_CREATE, ctypes.create_string_buffer(attributes, len(attributes)))


def map_information(map_fd: int) -> tuple[int, int, int, int, int]:
    """Return how a map was made: kind, bytes of a key and of a value, entries, flags."""
    information = ctypes.create_string_buffer(_MAP_INFORMATION.size)
    attributes = struct.pack("<IIQ", map_fd, len(information), ctypes.addressof(information))
    _bpf(_BPF_OBJ_GET_INFO_BY_FD, ctypes.create_string_buffer(attributes, len(attributes)))
    kind, _, key_bytes, value_bytes, entries, flags = _MAP_INFORMATION.unpack(information.raw)
    return kind, key_bytes, value_bytes, entries, flags


def _object_name(name: str) -> bytes:
    """Return what the kernel calls a map or a program: 15 characters at the most."""
    return name.encode()[:15]


def map_lookup(map_fd: int, key: int | bytes, value_bytes: int) -> bytes:
    """Return a value of a map, or of a per-CPU map those of all possible CPUs. A number is a key of 4 bytes.

    Raises FileNotFoundError if a hash does not have it.
    """
    packed = struct.pack("<I", key) if isinstance(key, int) else key
    key_buffer = ctypes.create_string_buffer(packed, len(packed))
    value = ctypes.create_string_buffer(value_bytes)
    attributes = struct.pack("<IIQQQ", map_fd, 0, ctypes.addressof(key_buffer), ctypes.addressof(value), 0)
    _bpf(_BPF_MAP_LOOKUP_ELEM, ctypes.create_string_buffer(attributes, len(attributes)))
    return value.raw


def map_update(map_fd: int, key: int, value: bytes) -> None:
    """Set the value of a map with 4-byte keys."""
    key_buffer = ctypes.create_string_buffer(struct.pack("<I", key), 4)
    value_buffer = ctypes.create_string_buffer(value, len(value))
    attributes = struct.pack("<IIQQQ", map_fd, 0, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), 0)
    _bpf(_BPF_MAP_UPDATE_ELEM, ctypes.create_string_buffer(attributes, len(attributes)))


def map_entries(map_fd: int, value_bytes: int, most: int, key_bytes: int = 8) -> tuple[bytes, bytes]:
    """Return all keys and all values of a hash map that has room for `most` (Linux >= 5.6)."""
    keys = ctypes.create_string_buffer(key_bytes * most)
    values = ctypes.create_string_buffer(value_bytes * most)
    before, after = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    found = 0
    first = True
    while found < most:
        where = (0 if first else ctypes.addressof(before), ctypes.addressof(after))
        room = (ctypes.addressof(keys) + key_bytes * found, ctypes.addressof(values) + value_bytes * found)
        packed = struct.pack("<QQQQIIQQ", *where, *room, most - found, map_fd, 0, 0)
        attributes = ctypes.create_string_buffer(packed, len(packed))
        done = False
        try:
            _bpf(_BPF_MAP_LOOKUP_BATCH, attributes)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            done = True
        found += struct.unpack_from("<I", attributes, 32)[0]
        if done:
            break
        first = False
        before, after = after, before
    return keys.raw[: key_bytes * found], values.raw[: value_bytes * found]


def map_delete(map_fd: int, key: int) -> None:
    """Remove a key of 4 bytes from a hash. Raises FileNotFoundError if it is not there."""
    key_buffer = ctypes.create_string_buffer(struct.pack("<I", key), 4)
    attributes = struct.pack("<IIQQQ", map_fd, 0, ctypes.addressof(key_buffer), 0, 0)
    _bpf(_BPF_MAP_DELETE_ELEM, ctypes.create_string_buffer(attributes, len(attributes)))


def link_uprobe_multi(program: int, path: str, offsets: Sequence[int], cookies: Sequence[int], pid: int) -> int:
    """Attach a program to many file offsets of `path` at once; return the link's fd (Linux >= 6.6).

    pid 0 means every process. Closing the fd detaches.
    """
    path_buffer = ctypes.create_string_buffer(os.fsencode(path))
    count = len(offsets)
    offset_array = (ctypes.c_uint64 * count)(*offsets)
    cookie_array = (ctypes.c_uint64 * count)(*cookies)
    attributes = struct.pack(
        "<IIIIQQQQIIII",
        program,
        0,
        BPF_TRACE_UPROBE_MULTI,
        0,
        ctypes.addressof(path_buffer),
        ctypes.addressof(offset_array),
        0,
        ctypes.addressof(cookie_array),
        count,
        0,
        pid,
        0,
    )
    return _bpf(_BPF_LINK_CREATE, ctypes.create_string_buffer(attributes, len(attributes)))


def load_program(
    program_type: int, code: bytes, log: ctypes.Array[ctypes.c_char] | None = None, *, attach_type: int = 0,
    name: str = "", function: int = 0,
) -> int:  # fmt: skip
    """Load a program; return its fd. `code`: its instructions, 8 bytes each; `log` gets what the verifier says.

    `function`: the id in the kernel's BTF of the function that one of the type TRACING is for (Linux >= 5.5).
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    license_buffer = ctypes.create_string_buffer(_LICENSE)
    words = (0, 0, 0) if log is None else (1, len(log), ctypes.addressof(log))
    attributes = struct.pack(
        "<IIQQIIQII16sIIIIQIIQIII",
        program_type,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_buffer),
        *words,
        0,
        0,
        _object_name(name),
        0,
        attach_type,
        *[0] * 7,  # BTF of the program itself
        function,
        0,
    )
    return _bpf(_BPF_PROG_LOAD, ctypes.create_string_buffer(attributes, len(attributes)))


def verifier_log(program_type: int, code: bytes, attach_type: int = 0, function: int = 0) -> str:
    """Return what the verifier says to a program that it refuses: the beginning, if it is long."""
    log = ctypes.create_string_buffer(_VERIFIER_LOG)
    with contextlib.suppress(OSError):
        os.close(load_program(program_type, code, log, attach_type=attach_type, function=function))
    return log.value.decode(errors="replace")


def run_at_perf_event(program: int, perf_fd: int) -> list[int]:
    """Run a program that asks for no cookie at a perf event; return what has to stay open beside that.

    By a link, which a kernel before 5.15 has not: there the event itself keeps the program.
    """
    try:
        return [link_perf_event(program, perf_fd, 0)]
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    set_program(perf_fd, program)
    return []


def set_program(perf_fd: int, program: int) -> None:
    """Run a program at a perf event as long as that is open."""
    fcntl.ioctl(perf_fd, _PERF_EVENT_IOC_SET_BPF, program)


def link_perf_event(program: int, perf_fd: int, cookie: int) -> int:
    """Attach a program with a cookie to a perf event; return the link's fd (Linux >= 5.15)."""
    attributes = struct.pack("<IIIIQ", program, perf_fd, BPF_PERF_EVENT, 0, cookie)
    return _bpf(_BPF_LINK_CREATE, ctypes.create_string_buffer(attributes, len(attributes)))


def open_raw_tracepoint(program: int, name: str) -> int:
    """Run a program at every hit of a tracepoint of the kernel, until the returned fd is closed."""
    name_buffer = ctypes.create_string_buffer(name.encode())
    attributes = struct.pack("<QI", ctypes.addressof(name_buffer), program)
    return _bpf(_BPF_RAW_TRACEPOINT_OPEN, ctypes.create_string_buffer(attributes, len(attributes)))


def run_at_function(program: int) -> int:
    """Run a program for a function of the kernel there, until the returned fd is closed."""
    attributes = struct.pack("<QI", 0, program)
    return _bpf(_BPF_RAW_TRACEPOINT_OPEN, ctypes.create_string_buffer(attributes, len(attributes)))


def open_tracepoint(tracepoint_id: int) -> int:
    """Open a tracepoint as a perf event. A program that is linked to it runs at every hit, on all CPUs."""
    attributes = struct.pack("<IIQQQQQIIQQ", _PERF_TYPE_TRACEPOINT, _PERF_ATTR_SIZE, tracepoint_id, *[0] * 8)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _call(_number("perf_event_open"), buffer, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)


def open_kprobe(pmu_type: int, function: str, *, returns: bool) -> int:
    """Open a kprobe at a function of the kernel, or at its return, as a perf event of the "kprobe" PMU.

    A program that is linked to it runs at every hit on any CPU. Raises FileNotFoundError if there is no such function.
    """
    name = ctypes.create_string_buffer(function.encode())
    attributes = struct.pack(
        "<IIQQQQQIIQQ", pmu_type, _PERF_ATTR_SIZE, int(returns), 1, 0, 0, 0, 1, 0, ctypes.addressof(name), 0
    )
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _call(_number("perf_event_open"), buffer, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)


def open_uprobe(pmu_type: int, path: str, offset: int, pid: int) -> int:
    """Open a uprobe as a perf event of the "uprobe" PMU; pid 0 means every process.

    A program that is linked to it runs at every hit on any CPU, whichever the event is bound to.
    """
    who, cpu = (pid, -1) if pid else (-1, 0)
    path_buffer = ctypes.create_string_buffer(os.fsencode(path))
    attributes = struct.pack(
        "<IIQQQQQIIQQ", pmu_type, _PERF_ATTR_SIZE, 0, 1, 0, 0, 0, 1, 0, ctypes.addressof(path_buffer), offset
    )
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _call(_number("perf_event_open"), buffer, who, cpu, -1, _PERF_FLAG_FD_CLOEXEC)


def enable(perf_fd: int) -> None:
    """Start a perf event."""
    fcntl.ioctl(perf_fd, _PERF_EVENT_IOC_ENABLE, 0)


def detached_mount(filesystem: str) -> int:
    """Make an instance of a file system that is mounted nowhere; return a directory fd of its root.

    It vanishes with the fd. Needs CAP_SYS_ADMIN (Linux >= 5.2).
    """
    context = _call(_FSOPEN, filesystem.encode() + b"\0", 1)
    try:
        _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(_FSMOUNT, context, 1, 0)
    finally:
        os.close(context)


def use_one_heap() -> None:
    """Let all threads that begin from now on share the C heap (glibc; a no-op elsewhere).

    Each would get an arena of its own, in which what it once needed stays. Python's threads take turns anyway.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def return_free_memory() -> None:
    """Give the C heap's free pages back to the kernel (glibc; a no-op elsewhere)."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
