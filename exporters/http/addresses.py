"""Where to listen: addresses as people write them, and the sockets for them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gomem.tracer.errors import EXIT_FAILED, GomemError, UsageError

DEFAULT_PORT = 9469
_BACKLOG = 1024  # a burst must not cost anybody the second that a lost SYN takes; the kernel caps it at somaxconn
_FIRST_PASSED_FD = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
_MOST_PASSED_FDS = 16
_SOCKET_MODE = 0o660


class ListenError(GomemError):
    """An address cannot be listened on."""

    exit_code = EXIT_FAILED


@dataclass(frozen=True, slots=True)
class Address:
    """`host` and `port` (host "": all addresses of the machine), a Unix socket's `path`, or sockets passed to us."""

    host: str = ""
    port: int = 0
    path: str = ""
    passed: bool = False

    def __str__(self) -> str:
        if self.passed:
            return "systemd:"
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (all addresses), `unix:/PATH` or `systemd:`. Raises UsageError."""
    if text == "systemd:":
        return Address(passed=True)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        # sun_path of unix(7) holds 108 bytes with the final zero.
        if not path.startswith("/") or not 1 < len(os.fsencode(path)) < 108 or "\0" in path:
            raise UsageError(f"cannot listen on {text!r}: not a path of a Unix socket", "write unix:/run/gomem.sock")
        return Address(path=path)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise UsageError(
            f"cannot listen on {text!r}: not an address",
            f"write HOST:PORT, [IPV6]:PORT, :PORT for all addresses, or unix:/PATH; the default is "
            f"127.0.0.1:{DEFAULT_PORT}",
        )
    return Address(match[1] or match[2] or "", int(match[3]))


def open_listeners(addresses: Iterable[Address]) -> list[socket.socket]:
    """Return listening, non-blocking sockets for all addresses, or none: raises ListenError."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            opened += _open(address)
    except BaseException:
        close_listeners(opened)
        raise
    if not opened:
        raise ListenError("no address to listen on", f"try --listen 127.0.0.1:{DEFAULT_PORT}")
    return opened


def close_listeners(listeners: Iterable[socket.socket]) -> None:
    """Close the sockets, and remove the files of those that were ours."""
    for listener in listeners:
        if listener.family == socket.AF_UNIX and isinstance(listener, _OwnUnixSocket):
            with contextlib.suppress(OSError):
                os.unlink(listener.getsockname())
        listener.close()


def _open(address: Address) -> list[socket.socket]:
    try:
        if address.passed:
            return _passed()
        if address.path:
            return [_open_unix(address.path)]
        if not address.host:
            return [_open_everywhere(address.port)]
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _open_all([(family, where) for family, _, _, _, where in found])
    except OSError as error:
        raise _explain(address, error) from None
    except UnicodeError:
        raise ListenError(f"cannot listen on {address}: not a host name", "write an IP address") from None


def _open_all(found: Sequence[tuple[int, tuple[object, ...]]]) -> list[socket.socket]:
    """Listen on all that a name stands for ("localhost": two), at the same port if the system chooses it."""
    opened: list[socket.socket] = []
    seen = set()
    try:
        for family, where in found:
            if (family, where) in seen:
                continue
            seen.add((family, where))
            port = opened[0].getsockname()[1] if opened else where[1]
            opened.append(_open_tcp(family, (where[0], port, *where[2:])))
    except OSError as error:
        # A machine without IPv6 still names ::1 in /etc/hosts.
        if not opened or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            close_listeners(opened)
            raise
    return opened


def _open_tcp(family: int, where: tuple[object, ...], dual: bool = False) -> socket.socket:
    with _listening(socket.socket(family, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual and where[0] != "::")
        listener.bind(where)
    return listener


@contextlib.contextmanager
def _listening(unbound: socket.socket) -> Iterator[socket.socket]:
    """Listen on the socket when the block has bound it; close it if that fails."""
    try:
        yield unbound
        unbound.listen(_BACKLOG)
        unbound.setblocking(False)
    except BaseException:
        unbound.close()
        raise


def _open_everywhere(port: int) -> socket.socket:
    try:
        return _open_tcp(socket.AF_INET6, ("::", port), dual=True)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        return _open_tcp(socket.AF_INET, ("0.0.0.0", port))


class _OwnUnixSocket(socket.socket):
    """A Unix socket whose file we made, and remove."""


def _open_unix(path: str) -> socket.socket:
    _remove_stale(path)
    with _listening(_OwnUnixSocket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        mask = os.umask(0o777 & ~_SOCKET_MODE)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on any more; whatever else has that name is left alone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _passed() -> list[socket.socket]:
    """Return the sockets that systemd opened for us. Source: sd_listen_fds(3)."""
    count = os.environ.pop("LISTEN_FDS", "")
    owner = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if owner != str(os.getpid()) or not count.isdigit() or not 0 < int(count) <= _MOST_PASSED_FDS:
        raise ListenError(
            "no sockets were passed to this process (LISTEN_FDS, LISTEN_PID)",
            "start it through a systemd .socket unit, or give an address with --listen",
        )
    listeners: list[socket.socket] = []
    try:
        for fd in range(_FIRST_PASSED_FD, _FIRST_PASSED_FD + int(count)):
            os.set_inheritable(fd, False)
            listener = socket.socket(fileno=fd)
            listeners.append(listener)
            listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listener.type != socket.SOCK_STREAM or not listening:
                raise ListenError(f"file descriptor {fd} that was passed is no listening stream socket")
            listener.setblocking(False)
    except BaseException:
        close_listeners(listeners)
        raise
    return listeners


def _explain(address: Address, error: OSError) -> GomemError:
    fix = ""
    if error.errno == errno.EADDRINUSE and address.path:
        fix = "another process listens there, or the file is no socket; choose another path with --listen"
    elif error.errno == errno.EADDRINUSE:
        fix = f"`ss -ltnp 'sport = :{address.port}'` shows who has it; choose another with --listen"
    elif error.errno in (errno.EACCES, errno.EPERM):
        fix = "ports below 1024 need CAP_NET_BIND_SERVICE" if not address.path else "its directory must be writable"
    elif error.errno == errno.EADDRNOTAVAIL:
        fix = "the address is not one of this machine's (`ip address` lists them)"
    elif isinstance(error, socket.gaierror):
        fix = "the name is not known; write an IP address"
    return ListenError(f"cannot listen on {address}: {(error.strerror or str(error)).lower()}", fix)


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    if listener.family == socket.AF_UNIX:
        return True
    return _is_loopback(str(listener.getsockname()[0]))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def exposure_warning(addresses: Iterable[Address], encrypted: bool, authenticated: bool) -> str | None:
    """Return what to warn of when others than this machine can connect without TLS or a password, else None."""
    exposed = [str(a) for a in addresses if not a.passed and not a.path and not _is_loopback(a.host)]
    if not exposed or (encrypted and authenticated):
        return None
    if not encrypted and not authenticated:
        missing = "anybody who can reach it can read the metrics of all targets"
    elif not encrypted:
        missing = "passwords and metrics cross the network in the clear"
    else:
        missing = "the connection is encrypted, but anybody may make one"
    return (
        f"listening on {', '.join(exposed)}: {missing}; "
        "a web configuration file can ask for TLS and passwords or client certificates (docs/web-config.md)"
    )
