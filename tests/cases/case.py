"""One case: a public thread, a program of our own that is as the thread has it, and what must be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NEWEST = "1.27.3"


@dataclass(frozen=True, slots=True)
class Case:
    """A case is decided if the verdict is one of `finds`, and no other finding warns than `also`.

    `thread`: repository and number. `asks`: the question, in our words. `program`: the argument of
    tests/targets/cases, or of tests/targets/ccases with `cgo`. `words` stand in what is found. `watch`: seconds.
    `since`, `until`: the first and the last Go release that are as the thread has it; "" for all. `harmless`: there is
    nothing to do, and that must be said. `cgroup`: the limit of its own memory cgroup, bytes; `room`: RLIMIT_AS, bytes
    above VSZ.
    """

    thread: str
    asks: str
    program: str
    finds: tuple[str, ...]
    also: tuple[str, ...] = ()
    words: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    watch: float = 0.0
    harmless: bool = False
    since: str = ""
    until: str = ""
    cgo: bool = False
    cgroup: int | None = None
    room: int | None = None

    @property
    def address(self) -> str:
        """Where the thread is."""
        repository, _, number = self.thread.partition("#")
        return f"https://github.com/{repository}/issues/{number}"
