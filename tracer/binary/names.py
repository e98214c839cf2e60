"""Finding names in a blob of NUL-terminated strings by NumPy, without making a Python string of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MAX_NAME = 1 << 16
_USUAL_NAME = 128


def rows_named(blob: NDArray[np.uint8], offsets: NDArray[np.uint32], name: str) -> NDArray[np.intp]:
    """Return the rows of `offsets` (shape (n,), into `blob`) at which exactly `name` stands, ascending.

    Bounds are checked here: an offset beyond the blob names nothing. Time O(n), memory O(n) bytes.
    """
    wanted = np.frombuffer(name.encode(), dtype=np.uint8)
    length = len(wanted)
    if length + 1 > len(blob) or "\0" in name:
        return np.zeros(0, dtype=np.intp)
    # The terminator first: few names have this length, and the tail is where names differ most.
    ends = blob[length:]
    inside = offsets if not len(offsets) or int(offsets.max()) < len(ends) else np.minimum(offsets, len(ends) - 1)
    rows = np.flatnonzero(ends[inside] == 0)
    if inside is not offsets:
        rows = rows[offsets[rows] < len(ends)]
    for position in range(length - 1, -1, -1):
        if not len(rows):
            break
        rows = rows[blob[offsets[rows] + np.int64(position)] == wanted[position]]
    return rows


def rows_beginning(blob: NDArray[np.uint8], offsets: NDArray[np.uint32], prefix: str) -> NDArray[np.intp]:
    """Return the rows of `offsets` (shape (n,), into `blob`) at which a name stands that begins so, ascending.

    Bounds are checked here. Time O(n), memory O(n) bytes.
    """
    wanted = prefix.encode()
    rows = np.flatnonzero(offsets <= len(blob) - len(wanted)) if len(wanted) <= len(blob) else np.zeros(0, np.intp)
    for position, byte in enumerate(wanted):
        rows = rows[blob[offsets[rows] + np.int64(position)] == byte]
    return rows


def name_at(blob: bytes, offset: int) -> str | None:
    """Return the string at `offset`, None if it has no end within the blob and MAX_NAME bytes."""
    if offset >= len(blob):
        return None
    end = blob.find(b"\0", offset, offset + MAX_NAME)
    return None if end < 0 else blob[offset:end].decode("utf-8", "replace")


def read_name(read: Callable[[int, int], bytes], at: int, most: int) -> str:
    """Return the string at `at`, "" where it has no end within `most` bytes; `read` takes a place and a size."""
    for size in sorted({min(_USUAL_NAME, most), most}):
        found = name_at(read(at, size), 0)
        if found is not None:
            return found
    return ""
