"""What the kernel says when it refuses a BPF program or a map, as an error with its remedy."""

from __future__ import annotations

import re
from typing import NoReturn

from gomem.tracer.errors import BackendUnavailable, NotPermitted
from gomem.tracer.machine.rights import Right, newer_kernel, remedy

EVENTS_SINCE = (5, 8)  # the first Linux that has all that events by BPF need: ring buffers came last

# The helper functions of our programs that came last: enum bpf_func_id, name, and the release that has it.
_HELPERS = {
    120: ("bpf_get_ns_current_pid_tgid", (5, 7)),
    131: ("bpf_ringbuf_reserve", (5, 8)),
    158: ("bpf_get_current_task_btf", (5, 11)),
    174: ("bpf_get_attach_cookie", (5, 15)),
    175: ("bpf_task_pt_regs", (5, 15)),
}

# The maps of our programs of a kind that came last.
_MAPS = {"events": ("ring buffers", EVENTS_SINCE), "targets": ("arrays that can be mapped", (5, 5))}


def refused(what: str, said: str, error: Exception) -> NoReturn:
    """Raise NotPermitted or BackendUnavailable. `said`: the words of the verifier, the compiler, or libbpf."""
    # The verifier, which ends with how much it processed, says "Permission denied" too, to programs that it rejects.
    denied = "Permission denied" in said[:300] and "\nprocessed " not in said
    if "Operation not permitted" in said or "super-user" in str(error) or denied:
        raise NotPermitted("BPF is not permitted here", remedy(Right.BPF)) from error
    missing = _missing(said)
    if missing is not None:
        name, since = missing
        raise BackendUnavailable(
            f"this kernel's BPF has no {name}", newer_kernel(since), f"{what}: {error}\n{said}"
        ) from error
    fix = "please report this, with the kernel's release and what gomem --debug says"
    raise BackendUnavailable(f"{what}: {error}", fix, said) from error


def map_refused(name: str) -> str:
    """Return how libbpf says that the kernel does not know a kind of map."""
    return f"could not open bpf map: {name}, error: Invalid argument"


def _missing(said: str) -> tuple[str, tuple[int, int]] | None:
    """Return which helper function or kind of map the kernel did not know, and since when there is one; else None."""
    found = re.search(r"^(?:invalid|unknown) func \S*#(\d+)$", said, re.MULTILINE)
    if found:
        return _HELPERS.get(int(found[1]))
    found = re.search(map_refused(r"(\w+)"), said)
    return _MAPS.get(found[1]) if found else None
