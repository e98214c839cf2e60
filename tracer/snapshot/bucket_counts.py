"""How many buckets the profiles of one process's runtime have, where these take so much that somebody will ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gomem.tracer.errors import LayoutError, NotPermitted, SnapshotError
from gomem.tracer.process.memory import Memory
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Limit
from gomem.tracer.runtime.regions import PERSISTENT
from gomem.tracer.runtime.snapshot import RuntimeSnapshot

if TYPE_CHECKING:  # few processes have so many
    from gomem.tracer.runtime.bucket_counts import BucketCounter

# Of BuckHashSys, bytes: some 30,000 buckets, which take some milliseconds to count for the first time.
WORTH_COUNTING: Final = 16 << 20


class BucketCounts:
    """Counts the buckets of one process, look by look."""

    def __init__(self) -> None:
        """Know no bucket yet."""
        self._counter: BucketCounter | None = None

    def counted(
        self, runtime: RuntimeSnapshot | None, program: GoProgram, bias: int | None, memory: Callable[[], Memory]
    ) -> tuple[RuntimeSnapshot | None, list[Limit]]:
        """Return a snapshot with the number of buckets, and why it has none, if it should. Raises TargetGone."""
        size = runtime.memstats.get("BuckHashSys") if runtime is not None else None
        if runtime is None or not isinstance(size, int) or size < WORTH_COUNTING:
            return runtime, []
        if program.layout is None or program.executable is None or program.functions is None or bias is None:
            return runtime, []
        from gomem.tracer.runtime.bucket_counts import LISTS, BucketCounter

        if self._counter is None:
            self._counter = BucketCounter()
        chunks = [(one.start, one.end) for one in runtime.regions if one.what == PERSISTENT]
        try:
            found = program.find(name for name, _ in LISTS.values())
            addresses = {name: address + bias for name, address in found.items()}
            counts = self._counter.count(memory(), program.layout, addresses, chunks, size)
        except (SnapshotError, LayoutError, NotPermitted) as error:
            return runtime, [Limit("profile-bucket-counts", "the number of profile buckets", error.what, error.fix)]
        return replace(runtime, profile_buckets=counts), []
