"""The kernel's process connector: which process executed a program and which has exited, on the whole machine.

A socket filter lets only two kinds of event through, exec and the exit of a whole process: threads come and go by the
thousand in Go programs, and a fork alone starts no program. Events that came faster than they were read are reported
as an overrun, after which only a scan tells what there is.

Source: drivers/connector/cn_proc.c, include/uapi/linux/cn_proc.h, include/uapi/linux/connector.h. pyroute2 opens and
binds the socket; its message classes would cost some 50 us an event, so that events are read as what they are: two
numbers at fixed places.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.machine.rights import INITIAL_NAMESPACES, Right, remedy

# include/linux/proc_ns.h: the inode numbers of the namespaces that the kernel starts with
_NLMSG_DONE = 3
_NETLINK_CONNECTOR, _CN_IDX_PROC = 11, 1  # include/uapi/linux/netlink.h, connector.h
_LISTEN, _IGNORE = 1, 2
_PROC_EVENT_NONE, _PROC_EVENT_EXEC, _PROC_EVENT_EXIT = 0, 0x2, 0x8000_0000
# nlmsghdr, cn_msg (idx, val, seq, ack, len, flags), the operation
_CONTROL = struct.Struct("=IHHIIIIIIHHI")
_ACK_AT, _WHAT_AT, _PID_AT, _TGID_AT = 28, 36, 52, 56
_EVENT = struct.Struct(f"={_WHAT_AT}xI{_PID_AT - _WHAT_AT - 4}xII")
_STATUS = struct.Struct(f"={_TGID_AT + 4}xI")  # exit_code of an exit
_ACK = struct.Struct(f"={_ACK_AT}xI{_WHAT_AT - _ACK_AT - 4}xI{_PID_AT - _WHAT_AT - 4}xI")
_DATAGRAM = 4096
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33  # include/uapi/asm-generic/socket.h
RECEIVE_BUFFER = 8 << 20  # some 10,000 events
_ANSWER_WITHIN = 2.0
MOST_AT_ONCE = 8192

_INITIAL_ONLY = (
    "the kernel tells process events only to the initial PID and user namespaces; in a pod: hostPID: true. "
    "gomem scans /proc instead"
)


class _Instruction(ctypes.Structure):
    """struct sock_filter of include/uapi/linux/filter.h."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order in which they happened: (pid, True for exec or False for exit)."""

    events: tuple[tuple[int, bool], ...]
    overrun: bool  # the kernel dropped some
    more: bool  # some are left


class _Connector(Protocol):
    """What is used of pyroute2's ProcEventSocket, which has no types."""

    def fileno(self) -> int: ...
    def bind(self) -> None: ...
    def close(self) -> None: ...


class ProcessEvents:
    """An open connector. Not for several threads. Use `open`; close it."""

    def __init__(self, owner: _Connector, receiver: socket.socket) -> None:
        self._owner = owner
        self._receiver = receiver
        self._buffer = bytearray(_DATAGRAM)
        self.statuses_of: set[int] = set()  # the pids whose wait statuses are to be kept
        self.statuses: dict[int, int] = {}

    @classmethod
    def open(cls, receive_buffer: int = RECEIVE_BUFFER) -> ProcessEvents:
        """Begin to listen, with a buffer of so many bytes. Raises BackendUnavailable, which says why we can't."""
        _check_namespaces()
        owner = _connector()
        try:
            receiver = socket.socket(fileno=os.dup(owner.fileno()))
        except BaseException:
            owner.close()
            raise
        events = cls(owner, receiver)
        try:
            receiver.setblocking(False)
            _set_buffer(receiver, receive_buffer)
            attach_filter(receiver)
            events._subscribe()
        except BaseException:
            events._close_sockets()
            raise
        return events

    def fileno(self) -> int:
        """Return the socket, which is readable when there are events."""
        return self._receiver.fileno()

    def close(self) -> None:
        """End listening; idempotent."""
        if self._receiver.fileno() >= 0:
            # Before Linux 6.6 the kernel counts listeners, and does not notice when one is gone.
            with suppress(OSError):
                self._receiver.send(control_message(_IGNORE, 0))
        self._close_sockets()

    def read(self, most: int = MOST_AT_ONCE) -> Batch:
        """Return what has happened since the last call, at most so many events; does not wait."""
        found: list[tuple[int, bool]] = []
        overrun = False
        receive, buffer, unpack = self._receiver.recvfrom_into, self._buffer, _EVENT.unpack_from
        for _ in range(most):
            try:
                size, sender = receive(buffer)
            except BlockingIOError:
                return Batch(tuple(found), overrun, False)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overrun = True
                continue
            # Other processes can send to a netlink socket, too: the kernel's port is 0.
            if sender[0] != 0 or size < _EVENT.size:
                continue
            what, pid, tgid = unpack(buffer)
            if pid == tgid and what in (_PROC_EVENT_EXEC, _PROC_EVENT_EXIT):
                found.append((pid, what == _PROC_EVENT_EXEC))
                if pid in self.statuses_of and what == _PROC_EVENT_EXIT and size >= _STATUS.size:
                    (self.statuses[pid],) = _STATUS.unpack_from(buffer)
        return Batch(tuple(found), overrun, True)

    def _subscribe(self) -> None:
        """Ask for events and wait for the kernel's answer, which all listeners get: ours has our number."""
        number = secrets.randbelow(1 << 31)
        try:
            self._receiver.send(control_message(_LISTEN, number))
        except ConnectionRefusedError:
            raise BackendUnavailable(
                "the process connector is not in this network namespace",
                "it is in the host's only; in a pod: hostNetwork: true. gomem scans /proc instead",
            ) from None
        except OSError as error:
            raise _refused(error) from None
        deadline = time.monotonic() + _ANSWER_WITHIN
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._receiver], [], [], left)[0]:
                continue
            try:
                size, sender = self._receiver.recvfrom_into(self._buffer)
            except OSError as error:
                if error.errno in (errno.ENOBUFS, errno.EAGAIN):
                    continue
                raise _refused(error) from None
            answer = answered(bytes(self._buffer[:size]), number) if sender[0] == 0 else None
            if answer == 0:
                return
            if answer is not None:
                raise _refused(OSError(answer, os.strerror(answer)))
        raise BackendUnavailable("the process connector does not answer", _INITIAL_ONLY)

    def _close_sockets(self) -> None:
        self._receiver.close()
        self._owner.close()


def control_message(operation: int, number: int) -> bytes:
    """Return the netlink message that begins or ends listening; the answer's cn_msg.ack is `number` + 1."""
    return _CONTROL.pack(_CONTROL.size, _NLMSG_DONE, 0, 0, 0, 1, 1, 0, number, 4, 0, operation)


def answered(raw: bytes, number: int) -> int | None:
    """Return the errno of the kernel's answer to `number` (0: granted), or None if this is something else."""
    if len(raw) < _ACK.size:
        return None
    ack, what, error = _ACK.unpack_from(raw)
    return error if what == _PROC_EVENT_NONE and ack == (number + 1) & 0xFFFF_FFFF else None


def attach_filter(receiver: socket.socket) -> None:
    """Let the kernel drop everything but exec, the exit of thread group leaders, and answers.

    Where that is refused, nothing but speed is lost: `ProcessEvents.read` drops the same.
    """
    load, load_index, if_equal, if_index, answer = 0x20, 0x07, 0x15, 0x1D, 0x06  # include/uapi/linux/bpf_common.h
    big = socket.htonl  # loads are in network byte order
    program = (
        (load, 0, 0, _WHAT_AT),
        (if_equal, 6, 0, big(_PROC_EVENT_EXEC)),
        (if_equal, 5, 0, big(_PROC_EVENT_NONE)),
        (if_equal, 0, 5, big(_PROC_EVENT_EXIT)),
        (load, 0, 0, _PID_AT),
        (load_index, 0, 0, 0),
        (load, 0, 0, _TGID_AT),
        (if_index, 0, 1, 0),
        (answer, 0, 0, 0xFFFF_FFFF),
        (answer, 0, 0, 0),
    )
    instructions = (_Instruction * len(program))(*(_Instruction(*one) for one in program))
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Filter(len(program), instructions)))
    except OSError:
        return


def _set_buffer(receiver: socket.socket, size: int) -> None:
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):  # the first needs CAP_NET_ADMIN
        try:
            receiver.setsockopt(socket.SOL_SOCKET, option, size)
        except OSError:
            continue
        return


def _check_namespaces() -> None:
    """Refuse where events, if any came, would have other pids than /proc shows here."""
    for kind, number in INITIAL_NAMESPACES.items():
        try:
            mine = os.stat(f"/proc/self/ns/{kind}").st_ino
        except OSError as error:
            raise BackendUnavailable(f"cannot tell which {kind} namespace this is: {error.strerror}") from None
        if mine != number:
            raise BackendUnavailable(f"this is not the initial {kind} namespace", _INITIAL_ONLY)
    if os.readlink("/proc/self") != str(os.getpid()):
        raise BackendUnavailable("/proc is that of another PID namespace", "mount the /proc of gomem's own namespace")


def _connector() -> _Connector:
    # Here, because it costs 0.1 s and 10 MB that only who listens should pay.
    from pyroute2.netlink.connector.cn_proc import ProcEventSocket

    connector: _Connector | None = None
    try:
        connector = ProcEventSocket()
        connector.bind()
    except (OSError, KeyError) as error:
        if connector is not None:
            connector.close()
        raise _refused(error if isinstance(error, OSError) else _why_not_bound()) from None
    return connector


def _why_not_bound() -> OSError:
    """Return why a socket of the connector cannot be bound: pyroute2 says of any reason that there is no address."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR) as tried:
            tried.bind((0, _CN_IDX_PROC))
    except OSError as error:
        return error
    return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _refused(error: OSError) -> BackendUnavailable:
    fix = "gomem scans /proc instead"
    if error.errno in (errno.EPERM, errno.EACCES):
        fix = f"{remedy(Right.PROCESS_EVENTS)}; {fix}"
    return BackendUnavailable(f"the process connector is refused: {error.strerror}", fix)
