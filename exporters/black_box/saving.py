"""Writing black boxes, and telling what became of each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from gomem.exporters.black_box.box import files_of
from gomem.exporters.black_box.deaths import Verdict
from gomem.exporters.black_box.storage import NotKept, Storage, name_of
from gomem.exporters.units import clean
from gomem.tracer.machine.cpu_budget import CpuBudget

_MOST = 60  # black boxes in so many seconds: programs that crash in a loop must not push out all others
_WITHIN = 60.0


class Saving:
    """Writes within bounds. `saved` and `failed` are counts."""

    def __init__(
        self,
        storage: Storage,
        budget: CpuBudget,
        tell: Callable[[str], None],
        complain: Callable[[int, Exception], None],
    ) -> None:
        """Take what it costs from `budget`; for the others see BlackBox."""
        self.saved = 0
        self.failed = 0
        self._storage = storage
        self._budget = budget
        self._tell = tell
        self._complain = complain
        self._at: deque[float] = deque(maxlen=_MOST)

    def save(self, verdict: Verdict) -> None:
        """Write the black box of a process that has ended, and say where it is or why there is none."""
        target, began = verdict.of.target, time.thread_time()
        who = f"process {target.pid} ({target.name}), which has ended"
        try:
            self._check_rate()
            assert verdict.kept_for is not None
            files = files_of(verdict.of, verdict.ending, verdict.kept_for, verdict.noticed)
            path = self._storage.save(name_of(target.name, target.pid, verdict.noticed.stamp), files)
        except NotKept as error:
            self._fail(f"no black box of {who}: {error.in_one_line()}")
        except OSError as error:
            self._fail(f"no black box of {who}: {self._storage.path} cannot be written: {error.strerror}")
        except Exception as error:  # one process must not end the black boxes of the others
            self._fail(f"no black box of {who}: gomem failed at it")
            self._complain(target.pid, error)
        else:
            self.saved += 1
            self._tell(f"black box of {who}: {path}")
        finally:
            self._budget.spend(time.thread_time() - began)

    def _check_rate(self) -> None:
        now = time.monotonic()
        if len(self._at) == _MOST and now - self._at[0] < _WITHIN:
            raise NotKept(f"{_MOST} were written in the last {_WITHIN:.0f} s", "the first of them are there")
        self._at.append(now)

    def _fail(self, why: str) -> None:
        self.failed += 1
        self._tell(clean(why))
