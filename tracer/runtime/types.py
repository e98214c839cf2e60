"""The names of types in a live process, by the addresses that the runtime knows them by.

Source: resolveNameOff in runtime/type.go and moduledata in runtime/symtab.go (Go 1.11 to 1.27). A type lies among those
of its module: the program, or a plugin. Those that package reflect makes at run time lie elsewhere, and have no name
that can be found.
"""

from __future__ import annotations

from bisect import bisect_right

from gomem.tracer.binary.type_names import HEADER_BYTES, MOST_NAME, TYPE_BYTES, decode_name, name_offset
from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.tables import minor_of
from gomem.tracer.process.memory import Memory
from gomem.tracer.runtime.structs import follow_list

MOST_MODULES = 1024
_VARINTS_SINCE = (1, 17)


class TypeNames:
    """Finds names, each time in the process's memory."""

    def __init__(self, memory: Memory, layout: Layout, first_module: int) -> None:
        """`first_module`: where runtime.firstmoduledata is in the process. Raises SnapshotError, TargetGone."""
        self._memory = memory
        self._counted_in_two = (minor_of(layout.go_version) or _VARINTS_SINCE) < _VARINTS_SINCE
        modules = follow_list(memory, layout, "moduledata", "next", first_module, MOST_MODULES)
        begin, end = (layout.offset("moduledata", name) for name in ("types", "etypes"))
        self._modules = sorted((self._word(module + begin), self._word(module + end)) for module in modules)

    def name(self, address: int) -> str | None:
        """Return the name of the type at `address`, as reflect spells it; None where there is none.

        Raises TargetGone.
        """
        module = self._module_of(address)
        if module is None:
            return None
        start, end = module
        try:
            offset, extra_star = name_offset(self._memory.read(address, TYPE_BYTES))
            if not 0 < offset < end - start:
                return None
            raw = self._memory.read(start + offset, min(HEADER_BYTES + MOST_NAME, end - start - offset))
        except SnapshotError:
            return None
        return decode_name(raw, extra_star=extra_star, counted_in_two=self._counted_in_two)

    def size(self, address: int) -> int | None:
        """Return the bytes of a value of the type at `address`; None where there is none. Raises TargetGone."""
        if self._module_of(address) is None:
            return None
        try:
            return self._word(address)
        except SnapshotError:
            return None

    def _module_of(self, address: int) -> tuple[int, int] | None:
        """Return where the types of the module begin and end that has a type at `address`."""
        at = bisect_right(self._modules, (address, 1 << 64)) - 1
        if at < 0:
            return None
        start, end = self._modules[at]
        return (start, end) if start <= address <= end - TYPE_BYTES else None

    def _word(self, address: int) -> int:
        return int.from_bytes(self._memory.read(address, 8), "little")
