"""How many bytes of answers may wait for slow readers, all connections together."""

from __future__ import annotations


class SendBudget:
    """Counts the bytes that are being sent; a body with many readers once. For the event loop only."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: dict[int, tuple[bytes, int]] = {}  # by identity: the body, which is kept alive, and its readers
        self.bytes = 0

    def take(self, body: bytes) -> bool:
        """Whether `body` may be sent now; if so, `release` it afterwards. A first one always may."""
        if not body:
            return True
        held, readers = self._held.get(id(body), (body, 0))
        if not readers:
            if self._held and self.bytes + len(body) > self._most:
                return False
            self.bytes += len(body)
        self._held[id(body)] = (held, readers + 1)
        return True

    def release(self, body: bytes) -> None:
        """Say that one of its readers has it, or is gone; an empty one was never counted."""
        if not body:
            return
        held, readers = self._held.pop(id(body))
        if readers > 1:
            self._held[id(body)] = (held, readers - 1)
        else:
            self.bytes -= len(held)
