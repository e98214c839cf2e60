"""Makes the answers to requests on a few threads, within a share of a CPU and so many bytes that wait for readers."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from gomem.exporters.http.admission import Admission
from gomem.exporters.http.cpu_time import CpuTime
from gomem.exporters.http.limits import Limits
from gomem.exporters.http.places import Client
from gomem.exporters.http.request import Request
from gomem.exporters.http.response import Coming, Response, plain
from gomem.exporters.http.send_budget import SendBudget
from gomem.tracer.fleet.schedule import Pace

_SECONDS_OF_BUDGET = 1.0  # between two looks at what was spent


class Answers:
    """What a server answers, and what that may cost. For the event loop only, where nothing else is said."""

    def __init__(self, limits: Limits, admission: Admission) -> None:
        self._limits = limits
        self._admission = admission
        self._workers = ThreadPoolExecutor(limits.workers, "gomem-web")
        self._pace = Pace(1 / limits.requests_rate, limits.cpu_share)
        self.cpu = CpuTime()  # of the workers, and of the loop between its begin and end
        self.outgoing = SendBudget(limits.waiting_bytes)

    async def answer(self, request: Request, client: Client) -> Response:
        """Have a worker answer a request, and wait for what others make; probes of health need no worker."""
        quick = self._admission.quick_answer(request)
        if quick is not None:
            return quick
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._workers, self.cpu.of, self._admission.answer, request, client)
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                answer = await work
                return await asyncio.wrap_future(answer.made) if isinstance(answer, Coming) else answer
        except TimeoutError:
            return plain(503, "the answer took too long", Retry_After="5")

    def price(self) -> float:
        """Return what one request costs, in tokens of `requests_rate`: 1, more while the CPU is short."""
        return self._pace.stretch

    async def keep_to_budget(self) -> None:
        """Learn, for ever, what serving costs, so that it takes its own share of a CPU and no more."""
        before = time.monotonic(), self.cpu.seconds()
        while True:
            await asyncio.sleep(_SECONDS_OF_BUDGET)
            now = time.monotonic(), self.cpu.seconds()
            self._pace.adapt(now[1] - before[1], now[0] - before[0])
            before = now

    def close(self) -> None:
        """Make no more of them. Safe from any thread; idempotent."""
        self._workers.shutdown(wait=False, cancel_futures=True)
