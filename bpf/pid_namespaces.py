"""The PID namespaces that targets are in, as the programs tell them apart: each has a number, our own the first."""

from __future__ import annotations

import struct

from gomem.bpf import syscalls
from gomem.bpf.program import TargetIds
from gomem.tracer.errors import BackendUnavailable

MAX_NAMESPACES = 32


class PidNamespaces:
    """Which namespace has which number, and how many targets each has.

    For a tracer in the initial namespace ids need no translation: it is not `nested`, and all have the number 0.
    """

    def __init__(self, own: TargetIds, targets: int) -> None:
        """`targets`: how many there can be at once."""
        self.nested = own.inode is not None
        self.most = min(MAX_NAMESPACES, 1 + targets)
        self._own = own
        self._map = -1
        self._known: list[TargetIds] = []
        self._targets = [0] * self.most

    def begin(self, namespaces: int) -> None:
        """Tell the programs of our own, by the map `namespaces` (its descriptor). Raises OSError."""
        self._map = namespaces
        self.number_of(self._own)

    def number_of(self, ids: TargetIds) -> int:
        """Return the number of a target's namespace, which it gets if it has none. Raises BackendUnavailable, OSError.

        `enter` has to follow, or the number may be another's later.
        """
        if not self.nested:
            return 0
        for number, known in enumerate(self._known):
            if (known.device, known.inode) == (ids.device, ids.inode):
                return number
        number = self._free_number()
        syscalls.map_update(self._map, number, struct.pack("<QQ", ids.device, ids.inode))
        self._known[number:] = [ids, *self._known[number + 1 :]]
        return number

    def enter(self, number: int) -> None:
        """Count one more target."""
        self._targets[number] += 1

    def leave(self, number: int) -> None:
        """Count one less."""
        self._targets[number] -= 1

    def _free_number(self) -> int:
        """Return the number for another namespace: the next one, or that of one that has no targets any more.

        Not the first, which is our own. Nobody is found by the number of a namespace without targets.
        """
        if len(self._known) < self.most:
            return len(self._known)
        for number in range(1, self.most):
            if not self._targets[number]:
                return number
        raise BackendUnavailable(
            f"processes in more than {self.most} PID namespaces at a time, with our own, cannot be told apart",
            "run gomem in the initial PID namespace: hostPID, docker run --pid=host",
        )
