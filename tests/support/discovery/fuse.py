"""A FUSE file system with one executable in it, in a mount namespace of its own, and processes that execute it.

Run as a script: `python -m tests.support.discovery.fuse COUNT PROGRAM ARGUMENTS`. It prints the pids of the process
that serves and of the COUNT that execute the program, until its standard input ends. Stop the first (SIGSTOP), and
whoever looks at the executable has to wait, though a signal ends that. Send it SIGUSR1, and it takes reads and never
answers them, until SIGUSR2: no signal ends that wait. Source: include/uapi/linux/fuse.h, protocol 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOKUP, FORGET, GETATTR, OPEN, READ = 1, 2, 3, 14, 15
STATFS, RELEASE, INIT, INTERRUPT, BATCH_FORGET = 17, 18, 26, 36, 42
ROOT, PROGRAM = 1, 2  # node ids
_IN = struct.Struct("=IIQQIIII")
_ATTRIBUTES = struct.Struct("=6Q3I7I")
_BUFFER = 1 << 21
_MS_PRIVATE, _MS_REC = 1 << 18, 1 << 14


class Served:
    """Answers the kernel's requests; no attribute may be kept, so that every stat(2) asks again."""

    def __init__(self, device: int, program: str) -> None:
        self.device = device
        self.file = os.open(program, os.O_RDONLY)
        self.size = os.fstat(self.file).st_size
        self.withheld: list[tuple[int, int, bytes]] | None = None  # requests that were taken
        signal.signal(signal.SIGUSR1, lambda number, frame: setattr(self, "withheld", self.withheld or []))
        signal.signal(signal.SIGUSR2, lambda number, frame: self._answer_withheld())

    def run(self) -> None:
        """Serve until the file system is unmounted."""
        while True:
            try:
                raw = os.read(self.device, _BUFFER)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.EBADF):
                    return
                continue
            _, operation, unique, node, *_ = _IN.unpack_from(raw)
            if operation in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            body = raw[_IN.size :]
            if operation == READ and self.withheld is not None:
                self.withheld.append((unique, node, body))
            else:
                self._reply(unique, self._answer(operation, node, body))

    def _answer_withheld(self) -> None:
        withheld, self.withheld = self.withheld, None
        for unique, node, body in withheld or []:
            self._reply(unique, self._answer(READ, node, body))

    def _reply(self, unique: int, answer: bytes | int) -> None:
        failed, body = (answer, b"") if isinstance(answer, int) else (0, answer)
        os.write(self.device, struct.pack("=IiQ", 16 + len(body), -failed, unique) + body)

    def _answer(self, operation: int, node: int, body: bytes) -> bytes | int:
        if operation == INIT:
            return struct.pack("=IIIIHHIIHHI", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 32, 0, 0).ljust(64, b"\0")
        if operation == LOOKUP:
            found = node == ROOT and body.rstrip(b"\0") == b"program"
            return struct.pack("=QQQQII", PROGRAM, 0, 0, 0, 0, 0) + self._attributes(PROGRAM) if found else errno.ENOENT
        if operation == GETATTR:
            return struct.pack("=QII", 0, 0, 0) + self._attributes(node)
        if operation == OPEN:
            return struct.pack("=QII", 0, 0, 0)
        if operation == READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            return os.pread(self.file, size, offset)
        if operation == STATFS:
            return bytes(80)
        return b"" if operation == RELEASE else errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR | 0o755, 0) if node == ROOT else (stat.S_IFREG | 0o755, self.size)
        return _ATTRIBUTES.pack(node, size, -(-size // 512), 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def mount(device: int, directory: str) -> None:
    """Mount the file system, where nobody outside of this mount namespace sees it. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    for words in (
        (b"none", b"/", None, _MS_REC | _MS_PRIVATE, None),
        (b"test", directory.encode(), b"fuse", 0, options),
    ):
        if libc.mount(*words) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(count: int, program: str, arguments: list[str]) -> None:
    """Serve the program and run it so many times."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    with tempfile.TemporaryDirectory() as directory:
        mount(device, directory)
        # A process of its own: this one waits in the kernel while its child executes the program.
        server = os.fork()
        if server == 0:
            Served(device, program).run()
            os._exit(0)
        os.close(device)
        targets: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(count):
                command = [f"{directory}/program", *arguments]
                # What it prints must not come between what is printed here.
                targets.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
            os.stat(f"{directory}/program")  # who answers this has its handlers of signals
            print(server, *(target.pid for target in targets), flush=True)
            sys.stdin.read()
        finally:
            os.kill(server, signal.SIGKILL)  # which ends every wait for an answer, too
            os.waitpid(server, 0)
            for target in targets:
                target.kill()
                target.wait()
            ctypes.CDLL(None).umount2(directory.encode(), 2)  # MNT_DETACH


@contextmanager
def deaf(server: int) -> Iterator[None]:
    """Have the server take reads and not answer them until the block ends: who waits for one is ended by no signal."""
    os.kill(server, signal.SIGUSR1)
    try:
        yield
    finally:
        os.kill(server, signal.SIGUSR2)


@contextmanager
def executed_from_fuse(program: Path, *arguments: str, count: int = 1) -> Iterator[tuple[int, ...]]:
    """Run `program` from such a file system until the block ends; gives the pids of (server, program, ...)."""
    script = [sys.executable, "-m", "tests.support.discovery.fuse", str(count), str(program), *arguments]
    command = ["unshare", "--mount", *script]
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield tuple(map(int, process.stdout.readline().split()))
    finally:
        process.communicate()  # it ends at the end of its standard input


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
