"""What holds the memory of a look, by name: the areas of a treemap."""

from __future__ import annotations

from gomem.tracer.profile.beside import NOTHING_BESIDE, Beside, NothingBeside
from gomem.tracer.profile.resident import holders
from gomem.tracer.report.memory_map import HeldBytes
from gomem.tracer.snapshot.inspection import Snapshot

_RUNTIME = "runtime."


def held_bytes(look: Snapshot, beside: Beside | NothingBeside = NOTHING_BESIDE) -> list[HeldBytes]:
    """Return who holds what is in RAM, the most first; all of it sums to the RSS of the look.

    Objects and stacks of which `beside` tells the calls have the function that made them at the end of their path.
    """
    sums: dict[tuple[str, ...], tuple[int, bool]] = {}
    everything = holders(look, beside)
    names = _functions(beside)  # those that were met
    for one in everything:
        if one.resident:
            path = (*one.path, _maker(one.stack, names)) if one.stack else one.path
            before, estimated = sums.get(path, (0, False))
            sums[path] = before + one.resident, estimated or one.basis != "pages"
    found = [HeldBytes(path, resident, estimated) for path, (resident, estimated) in sums.items()]
    return sorted(found, key=lambda held: (-held.resident, held.path))


def _functions(beside: Beside | NothingBeside) -> list[tuple[str, ...]]:
    code = beside.locations
    return [tuple(line.function for line in location.lines) for location in code.all()] if code is not None else []


def _maker(stack: tuple[int, ...], names: list[tuple[str, ...]]) -> str:
    """Return the first function of a stack that is not the runtime's."""
    called = [name for at in stack for name in names[at]]
    return next((name for name in called if not name.startswith(_RUNTIME)), called[0] if called else "?")
