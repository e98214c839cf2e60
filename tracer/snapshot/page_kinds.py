"""What the pages of each piece of address space are: anonymous, shared memory, or of files. Pure."""

from __future__ import annotations

import numpy as np

from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.snapshot.join import Addresses, AddressSpace

# The kernel counts RssShmem per CPU, in batches.
_SLACK = 1 << 20
_SLACK_SHARE = 0.02


def page_kinds(
    space: AddressSpace, mappings: Mappings, residency: Residency, shmem_devices: tuple[int, ...], shmem: int | None
) -> tuple[Addresses | None, Addresses | None]:
    """Return the resident bytes of each piece that are anonymous, and that are shared memory; None: not told.

    `shmem_devices`: whose files are shared memory; `shmem`: how much of it the kernel counts. A tmpfs of another mount
    namespace is not among the devices: if what is found misses the count, what is shared memory is left open.
    """
    if residency.method == "smaps":
        return None, None
    file = np.minimum(residency.file_in(space.start, space.end), space.resident)
    known = space.mapping < len(mappings)
    where = np.where(known, space.mapping, 0)
    of_device = known & (mappings.inode[where] != 0) & np.isin(mappings.device[where], shmem_devices)
    found = np.where(of_device, file, np.uint64(0))
    told = shmem is not None and abs(int(found.sum()) - shmem) <= max(_SLACK, _SLACK_SHARE * shmem)
    return space.resident - file, found if told else None
