"""What was decoded of functions, kept for as long as there is room: a program has hundreds of thousands of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from gomem.tracer.errors import BinaryError

_MAX_ROWS = 1 << 20


class Sized(Protocol):
    """Something decoded of a function."""

    @property
    def rows(self) -> int:
        """How many rows its tables have."""


_Code = TypeVar("_Code", bound=Sized)


class DecodedFunctions(Generic[_Code]):
    """What `read` has decoded, by the function's row in the table; with too many rows in all it begins anew."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._known: dict[int, _Code | None] = {}
        self._rows = 0

    def get(self, row: int, read: Callable[[int], _Code | None]) -> _Code | None:
        """Return what is known of a function, or else what `read` finds; None where that is nothing, or damaged."""
        if row not in self._known:
            try:
                code = read(row)
            except BinaryError:
                code = None
            self._rows += 1 if code is None else code.rows
            if self._rows > _MAX_ROWS:
                self._known.clear()
                self._rows = 0
            self._known[row] = code
        return self._known[row]
