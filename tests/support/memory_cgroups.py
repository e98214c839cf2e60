"""Memory cgroups of our own, in whichever hierarchy this machine keeps them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gomem.tracer.kernel.cgroup import hierarchy_mounts, memory_membership
from gomem.tracer.proc.mounts import parse_mountinfo
from tests.support.discovery.cgroups import remove
from tests.support.requirements import absent

LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
UNLIMITED = {1: "-1", 2: "max"}


@contextmanager
def memory_cgroup(name: str = "gomem-test", limit: int | None = None) -> Iterator[tuple[Path, int]]:
    """Make a memory cgroup, at most `limit` bytes; gives its directory and the version of its hierarchy.

    It is removed when nobody is in it any more. Ends the test where none can be made.
    """
    own = memory_membership(Path("/proc/self/cgroup").read_text())
    if own is None:
        absent("this kernel has no memory cgroups")
    mounts = hierarchy_mounts(parse_mountinfo(Path("/proc/self/mountinfo").read_text()), own.version)
    try:
        made = Path(mounts[0].point, f"{name}-{secrets.token_hex(4)}")
        made.mkdir()
    except (IndexError, OSError) as error:
        absent(f"no memory cgroup can be made here: {error}")
    try:
        if not (made / LIMIT[own.version]).exists():
            absent("the memory controller is not handed down")
        if limit is not None:
            (made / LIMIT[own.version]).write_text(str(limit))
        yield made, own.version
    finally:
        remove(made)


def joining(directory: Path) -> list[str]:
    """Return the words that run a command in a cgroup, from its beginning on."""
    return ["/bin/sh", "-c", f'echo 0 > {directory}/cgroup.procs && exec "$@"', "sh"]
