"""The files whose code a process has mapped, as profiles list them (parseProcSelfMaps in runtime/pprof/proto.go)."""

from __future__ import annotations

import numpy as np

from gomem.tracer.errors import GomemError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.program.mapped_files import open_executable
from gomem.tracer.report.profile import ProfileMapping
from gomem.tracer.snapshot.inspection import Inspector

_DELETED = " (deleted)"
# Each file is opened for its build id; a process may map one over and over.
_MOST_FILES = 256
_MOST_MAPPINGS = 1 << 12


def mapped_code(inspector: Inspector, mappings: Mappings) -> tuple[ProfileMapping, ...]:
    """Return what is mapped to be executed, in order of address, with the build ids that its files have."""
    named = np.array([bool(name) for name in mappings.name], np.bool_)
    rows = np.flatnonzero(mappings.executable & (named | (mappings.inode != 0)))[:_MOST_MAPPINGS].tolist()
    ids = _BuildIds(inspector)
    return tuple(
        ProfileMapping(
            int(mappings.start[row]),
            int(mappings.end[row]),
            int(mappings.offset[row]),
            mappings.name[row].removesuffix(_DELETED),
            ids.of(mappings, row),
        )
        for row in rows
    )


class _BuildIds:
    """The GNU build ids of files, each read once."""

    def __init__(self, inspector: Inspector) -> None:
        self._pid = inspector.target.pid
        own = inspector.program.executable
        identity = inspector.file.inode
        self._known = {identity: own.gnu_build_id or ""} if own is not None else {}

    def of(self, mappings: Mappings, row: int) -> str:
        """Return the build id of a mapping's file in hexadecimal, "" where it has none or it cannot be had."""
        inode = int(mappings.inode[row])
        if inode not in self._known and len(self._known) < _MOST_FILES:
            self._known[inode] = self._read(mappings, row) if inode else ""
        return self._known.get(inode, "")

    def _read(self, mappings: Mappings, row: int) -> str:
        try:
            exe = open_executable(self._pid, mappings, row)
        except (GomemError, OSError):
            return ""
        try:
            return exe.gnu_build_id or ""
        except GomemError:
            return ""
        finally:
            exe.close()
