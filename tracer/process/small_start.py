"""Starting a command as a child of ours that has never been as large as we are.

What wait4(2) tells of a program's peak RSS is the peak of the process, and that begins with the fork: a child of gomem,
with all that Python and NumPy have in RAM, never had less than they. So the child is not forked by us. We fork once,
execute a program of 220 bytes there, and let that clone itself with CLONE_PARENT: its clone is our child, holds some
100 KB, waits for our word, and executes the command. The one in between ends at once.

The program is made here, for amd64, and executed from memory (memfd_create(2)), so that there is no file to install.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

_BASE = 0x400000
_HEADERS = 64 + 56  # Elf64_Ehdr, one Elf64_Phdr
_MFD_EXEC = 0x10  # since Linux 6.3, where without it vm.memfd_noexec may object
_PIPES = struct.Struct("<3i")  # pid, go, failure

# Each line is one step; the numbers of the three pipes stand behind the code. rbp keeps where argc is.
_CODE = bytes.fromhex(
    "4889e5"                                                      # mov rbp, rsp
    "b838000000 bf11800000 31f6 31d2 4531d2 4531c0 0f05"          # clone(CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)
    "85c0 741f"                                                   # the child goes on at `child`
    "50 b801000000 8b3d9f000000 4889e6 ba04000000 0f05"           # write(pid pipe, pid or -errno, 4)
    "31ff b8e7000000 0f05"                                        # exit_group(0)
    "b803000000 8b3d81000000 0f05"                                # child: close(pid pipe)
    "50 31c0 8b3d7a000000 4889e6 ba01000000 0f05"                 # wait: read(go pipe, stack, 1)
    "83f8fc 74e9"                                                 # again on EINTR
    "83f801 7556"                                                 # at the pipe's end: go to `abandoned`
    "b803000000 8b3d5b000000 0f05"                                # close(go pipe)
    "b848000000 8b3d52000000 be02000000 ba01000000 0f05"          # fcntl(failure pipe, F_SETFD, FD_CLOEXEC)
    "b83b000000 488b7d08 488d7510 488b4d00 488d54cd10 0f05"       # execve(argv[0], argv + 1, envp)
    "f7d8 890424 b801000000 8b3d1e000000 4889e6 ba04000000 0f05"  # write(failure pipe, errno, 4)
    "bf7f000000 b8e7000000 0f05"                                  # abandoned: exit_group(127)
)  # fmt: skip


def start_small(
    path: str, argv: Sequence[str], environment: Mapping[str, str], go: int, failure: int, prepare: Callable[[], None]
) -> int | None:
    """Return the pid of a child that executes `path` when a byte comes from the pipe `go`; None if this fails.

    It ends with 127 if `go` is closed before, and writes 4 bytes, an errno, to the pipe `failure` if the kernel refuses
    the execve. `prepare` is called in a fork of ours.
    """
    program = -1
    told, tell = os.pipe()
    try:
        program = _memory_file(_elf(_PIPES.pack(tell, go, failure)))
        between = os.fork()
        if between == 0:
            _become(program, [path, *argv], environment, (tell, go, failure), prepare)
        os.close(tell)
        tell = -1
        answer = os.read(told, 4)
        os.waitpid(between, 0)
    except OSError:
        return None
    finally:
        for fd in (told, tell, program):
            if fd >= 0:
                os.close(fd)
    pid = int.from_bytes(answer, "little", signed=True) if len(answer) == 4 else -1
    return pid if pid > 0 else None


def _become(
    program: int, argv: list[str], environment: Mapping[str, str], pipes: Sequence[int], prepare: Callable[[], None]
) -> None:
    with suppress(BaseException):
        prepare()
        for fd in pipes:
            os.set_inheritable(fd, True)
        os.execve(program, argv, environment)
    os._exit(1)


def _memory_file(content: bytes) -> int:
    """Return a descriptor of a file in memory that can be executed. Raises OSError."""
    try:
        fd = os.memfd_create("gomem-start", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create("gomem-start", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _elf(pipes: bytes) -> bytes:
    """Return a static ELF file of one segment that is read and executed (elf(5))."""
    size = _HEADERS + len(_CODE) + len(pipes)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + _CODE + pipes
