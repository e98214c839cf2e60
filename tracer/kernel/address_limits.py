"""What limits the address space of a process: its resource limits, locked memory, and the machine's overcommit.

Sources: proc_pid_limits(5), proc_meminfo(5), Documentation/mm/overcommit-accounting.rst.
"""

from __future__ import annotations

from pathlib import Path

from gomem.tracer.proc.small_files import Status, colon_fields, decimal, kib_field, parse_limits
from gomem.tracer.process.target import Target
from gomem.tracer.report import AddressLimits

_MEMINFO, _OVERCOMMIT = Path("/proc/meminfo"), Path("/proc/sys/vm/overcommit_memory")


def read_address_limits(target: Target, status: Status) -> AddressLimits:
    """Return the limits of now; `status` is the target's. Raises TargetGone, NotPermitted, OSError."""
    limits = parse_limits(target.read("limits"))
    machine = colon_fields(_MEMINFO.read_bytes())
    return AddressLimits(
        address_space=limits.get("Max address space"),
        data=limits.get("Max data size"),
        data_used=status.vm_data,
        locked=status.vm_lck,
        overcommit=decimal(_OVERCOMMIT.read_text().strip()),
        commit_limit=kib_field(machine, "CommitLimit"),
        committed=kib_field(machine, "Committed_AS"),
    )
