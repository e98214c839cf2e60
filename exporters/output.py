"""Where a report or a profile goes: standard output, or a file that is replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from typing import TextIO

from gomem.tracer.errors import GomemError


def write_output(text: str | bytes, path: str | None = None, stream: TextIO | None = None) -> None:
    """Write `text` to the file `path`, or to `stream` (default: standard output) where path is None or "-".

    A regular file is replaced atomically and keeps its permissions; devices, FIFOs and /dev/stdout
    are written to as they are. So are bytes. Raises GomemError; the old file is then untouched.
    """
    if path is None or path == "-":
        _write_stream(text, stream or sys.stdout)
        return
    content = _encoded(text, "utf-8")
    try:
        descriptor = _own_descriptor(path)
        if descriptor is not None:
            sys.stdout.flush()
            _write_all(descriptor, content)
        elif _is_special(path):
            _write_special(path, content)
        else:
            _replace(os.path.realpath(path), content)
    except OSError as error:
        raise GomemError(f"cannot write {path}: {error.strerror}", _fix(error)) from error


def goes_to_stdout(path: str | None) -> bool:
    """Tell whether `write_output` would write to standard output."""
    if path is None or path == "-":
        return True
    try:
        return _own_descriptor(path) == 1
    except OSError:
        return False


def check_output(path: str | None) -> None:
    """Raise GomemError now if `write_output` is bound to fail, before minutes are spent on tracing."""
    if path is None or path == "-":
        return
    if os.path.isdir(path):
        raise GomemError(f"cannot write {path}: is a directory", "name a file")
    try:
        if _own_descriptor(path) is not None or _is_special(path):
            return
    except OSError as error:
        raise GomemError(f"cannot write {path}: {error.strerror}", _fix(error)) from error
    directory = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(directory):
        raise GomemError(f"cannot write {path}: no directory {directory}", "create it first")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise GomemError(f"cannot write {path}: permission denied", f"needs write permission for {directory}")


def _encoded(text: str | bytes, encoding: str) -> bytes:
    return text if isinstance(text, bytes) else text.encode(encoding, "backslashreplace")


def _write_stream(text: str | bytes, stream: TextIO) -> None:
    try:
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(text if isinstance(text, str) else text.decode())
        else:
            stream.flush()
            buffer.write(_encoded(text, stream.encoding or "utf-8"))
        stream.flush()
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough. Python flushes once more at exit: let it do so in peace.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(null, stream.fileno())
            os.close(null)
    except OSError as error:
        raise GomemError(f"cannot write to standard output: {error.strerror}", _fix(error)) from error


def _own_descriptor(path: str) -> int | None:
    """Return N where `path` leads to our own descriptor N (/dev/stdout, /dev/fd/N): reopening would start at 0."""
    ours = (f"/proc/{os.getpid()}/fd", f"/proc/{os.getpid()}/task/{os.getpid()}/fd")
    for _ in range(8):
        directory, name = os.path.split(os.path.abspath(path))
        directory = os.path.realpath(directory)
        if directory in ours and name.isdigit():
            os.fstat(int(name))
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(directory, os.readlink(path))
    return None


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _write_special(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _replace(path: str, content: bytes) -> None:
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name[:200]}.{secrets.token_hex(6)}.tmp")
    # Opened by hand, not by tempfile: the umask then gives a new file the mode that any other file gets.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            _take_over_ownership(descriptor, path)
            _write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def _take_over_ownership(descriptor: int, path: str) -> None:
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_directory(directory: str) -> None:
    # Best effort: the file is in place already, and some file systems cannot sync a directory.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _fix(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "choose a file in a directory that you may write to"
    if isinstance(error, FileNotFoundError):
        return "create the directory first"
    if isinstance(error, IsADirectoryError):
        return "name a file"
    return "free some space or choose another place; an old file is untouched"
