"""Follows what a Discovery says, and holds it to its word: nobody appears twice, only who appeared is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gomem.tracer.discovery.discovery import Discovery, Found
from gomem.tracer.discovery.process_info import Identity


class Following:
    """The processes that a Discovery has named, by pid; other tests' processes are among them."""

    def __init__(self, discovery: Discovery) -> None:
        self.discovery = discovery
        self.found: dict[int, Found] = {}
        self.ended: list[Identity] = []

    def poll(self, timeout: float = 0.2) -> None:
        """Take one lot of changes."""
        changes = self.discovery.poll(timeout)
        for identity in changes.gone:
            assert self.found.pop(identity.pid).identity == identity
            self.ended.append(identity)
        for one in changes.appeared:
            assert one.pid not in self.found
            self.found[one.pid] = one
        for one in changes.changed:
            assert self.found[one.pid].identity == one.identity
            self.found[one.pid] = one

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Poll until the condition holds; the time limit is for what will never happen."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: did not happen in {seconds} s"
            self.poll()

    def until_found(self, pid: int) -> Found:
        """Wait for a process to appear."""
        self.until(lambda: pid in self.found, f"process {pid} appears")
        return self.found[pid]

    def until_gone(self, identity: Identity) -> None:
        """Wait for one that appeared to be gone."""
        self.until(lambda: identity in self.ended, f"{identity} is gone")


@contextmanager
def following(discovery: Discovery) -> Iterator[Following]:
    """Start it, and stop it in the end."""
    discovery.start()
    try:
        yield Following(discovery)
    finally:
        discovery.stop()
