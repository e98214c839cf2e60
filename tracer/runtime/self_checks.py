"""Whether a layout fits a live runtime: what must hold whatever the program does, checked before a figure is shown.

A table that nobody measured for this very build can be wrong in ways that still give plausible figures. The checks
therefore tie together what the figures are made of: the sizes that the runtime keeps of its own structs, its
own double entries (readmemstats_m in runtime/mstats.go throws when they differ), and pointers that must lead back.

A live target moves while it is read, so each check has to hold only once in a few attempts; none holds by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct, field

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory
from gomem.tracer.runtime.evidence import Evidence, read_witness
from gomem.tracer.runtime.invariants import INVARIANTS
from gomem.tracer.runtime.snapshot import RuntimeSnapshot

ATTEMPTS = 16
_REPETITIONS = 2


class SelfChecks(Struct):
    """The checks of one runtime over a few attempts."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, snapshot: RuntimeSnapshot, evidence: Evidence) -> None:
        """Run the checks that have not passed yet."""
        for check in INVARIANTS:
            name = check.__name__.lstrip("_").replace("_", " ")
            if name in self.passed:
                continue
            try:
                found = next(check(snapshot, evidence), None)
            except SnapshotError as error:
                found = error.what
            except LayoutError:  # the release has not what the check looks at
                continue
            if found is None:
                self.passed.add(name)
                self.failed.pop(name, None)
            else:
                self.failed[name] = found


def contradictions(
    take: Callable[[], RuntimeSnapshot],
    memory: Memory,
    layout: Layout,
    addresses: Mapping[str, int],
    attempts: int = ATTEMPTS,
) -> list[str]:
    """Return in words what speaks against the layout, [] if it fits; `take` returns a fresh snapshot each time.

    Raises TargetGone or NotPermitted when the process cannot be read any more.
    """
    checks = SelfChecks()
    against, before = ["nothing was checked"], [""]
    repeated = 0
    for _ in range(attempts):
        try:
            snapshot = take()
            checks.run(snapshot, read_witness(memory, layout, addresses, snapshot))
            against = [*checks.failed.values()]
        except (SnapshotError, LayoutError) as error:
            against = [error.what]
        if not against:
            return []
        # What moves is not wrong to the byte by the same figures again.
        repeated = repeated + 1 if against == before else 0
        if repeated == _REPETITIONS:
            break
        before = against
    return against


def ensure_fits(
    take: Callable[[], RuntimeSnapshot], memory: Memory, layout: Layout, addresses: Mapping[str, int]
) -> None:
    """Raise LayoutError with what speaks against the layout; see `contradictions`."""
    against = contradictions(take, memory, layout, addresses)
    if against:
        more = f" (and {len(against) - 1} more)" if len(against) > 1 else ""
        raise LayoutError(
            f"the layout of go{layout.table_version} does not fit {layout.go_version}: {against[0]}{more}",
            "a newer gomem may know this release; if it is only that the process moves too fast to be checked, "
            "--freeze helps",
        )
