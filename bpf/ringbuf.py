"""Reading a BPF ring buffer whose records all are one EVENT or begin with one, without a call per record.

The kernel (kernel/bpf/ringbuf.c) lets the reader map a page with its own position, then a read-only
page with the producer's, then the data twice in a row, so that no record is ever split. A record is
a 4-byte length with two flag bits, 4 bytes of the kernel's, and the data, rounded up to 8 bytes.
All of ours have one length, so everything between the two positions is one array.

The programs stamp events with the kernel's clock. Whoever takes them gets them in this process's, which a time
namespace can put ahead or behind (tracer/proc/clocks.py).
"""

from __future__ import annotations

import mmap
import threading

import numpy as np

from gomem.tracer.events.record import EVENT, EventBatch
from gomem.tracer.proc.clocks import own_offset

_BUSY = np.uint32(1 << 31)
_HEADER_BYTES = 8


class RingBuffer:
    """The reader's side of a BPF_MAP_TYPE_RINGBUF of `size` bytes (a power of two), with records of one `dtype`."""

    def __init__(self, map_fd: int, size: int, dtype: np.dtype[np.void] = EVENT) -> None:
        if dtype.itemsize % 8:
            raise ValueError(f"the kernel rounds records up to 8 bytes; {dtype.itemsize} is no multiple of that")
        page = mmap.PAGESIZE
        self._dtype = dtype
        self._record = np.dtype([("length", "<u4"), ("page", "<u4"), ("content", dtype)])
        self._size = size
        self._ahead = np.uint64(own_offset() % (1 << 64))
        self._ours = mmap.mmap(map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._theirs = mmap.mmap(map_fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._read = np.frombuffer(self._ours, "<u8", 1)
        self._written = np.frombuffer(self._theirs, "<u8", 1)
        self._fence = threading.Lock()

    def take(self) -> EventBatch:
        """Remove and return all finished records, in the order in which their room was reserved."""
        read = int(self._read[0])
        count = (int(self._written[0]) - read) // self._record.itemsize
        with self._fence:  # an acquire: the data must not be read before the position
            pass
        if count <= 0:
            return np.zeros(0, self._dtype)
        start = mmap.PAGESIZE + (read & (self._size - 1))
        records = np.frombuffer(self._theirs, self._record, count, start)
        busy = np.flatnonzero(records["length"] & _BUSY)
        if busy.size:
            count = int(busy[0])
        events: EventBatch = records["content"][:count].copy()
        with self._fence:  # a release: the room must not be given back before it was copied
            self._read[0] = read + count * self._record.itemsize
        if self._ahead:
            stamped = events["event"] if "event" in (events.dtype.names or ()) else events
            stamped["entered"] += np.where(stamped["entered"] > 0, self._ahead, np.uint64(0))
            stamped["time"] += self._ahead
        return events

    def close(self) -> None:
        """Unmap it. The map's fd stays its owner's."""
        del self._read, self._written
        self._ours.close()
        self._theirs.close()
