"""Timers are counted by what the Ps say, and named by what they point at; what lies is an error or has no name."""

from __future__ import annotations

import pytest

from gomem.tracer.errors import SnapshotError
from gomem.tracer.report import TimerFunction, Timers
from gomem.tracer.runtime.timers import LOOKED_AT, read_timers
from tests.support.runtime_image import RuntimeImage

RELEASES = ["1.19.8", "1.22.10", "1.23.9", "1.27.3"]
FIRE, GO_FUNC, SEND = 0x401000, 0x402000, 0x403000
NAMES = {FIRE: "main.fire", GO_FUNC: "time.goFunc", SEND: "time.sendTime"}


class Made:
    """A runtime whose first P has timers."""

    def __init__(self, release: str) -> None:
        self.runtime = RuntimeImage(release)
        self.values = {code: self._value(code) for code in NAMES}
        self.p = self.runtime.p()
        self.runtime.p()
        self.heaped = self.runtime.layout.has("p", "timers.heap")

    def _value(self, code: int) -> int:
        at = self.runtime.room(8)
        self.runtime.image.words(at, code)
        return at

    def timer(self, code: int, argument: int = 0) -> int:
        """Return a timer that will call the function at `code` with the function value at `argument`."""
        at = self.runtime.room(self.runtime.layout.size("timer"))
        self.runtime.set("timer", at, "f", self.values[code])
        self.runtime.image.words(at + self.runtime.layout.offset("timer", "arg") + 8, argument)
        return at

    def give(self, *timers: int, stopped: int = 0, length: int | None = None) -> None:
        """Let the P have these."""
        words = [word for timer in timers for word in ((timer, 9) if self.heaped else (timer,))]
        at = self.runtime.room(8 * max(len(words), 1))
        self.runtime.image.words(at, *words)
        count = len(timers) if length is None else length
        where, gone = ("timers.heap", "timers.zombies") if self.heaped else ("timers", "deletedTimers")
        self.runtime.image.words(self.p + self.runtime.layout.offset("p", where), at, count, count)
        self.runtime.set("p", self.p, gone, stopped)

    def read(self) -> Timers:
        """Read all."""
        runtime = self.runtime.finish()
        return read_timers(runtime.image, runtime.layout, runtime.globals["allp"], NAMES.get)


@pytest.fixture(params=RELEASES)
def made(request: pytest.FixtureRequest) -> Made:
    return Made(request.param)


def test_timers_are_named_by_what_they_call(made: Made) -> None:
    of_after = [made.timer(GO_FUNC, made.values[FIRE]) for _ in range(3)]
    made.give(*of_after, made.timer(SEND), stopped=1)
    found = made.read()
    assert (found.count, found.stopped, found.looked_at) == (4, 1, 4)
    assert found.size == 4 * made.runtime.layout.size("timer")
    assert found.functions == [TimerFunction("main.fire", 3), TimerFunction("time.sendTime", 1)]


def test_a_runtime_without_timers_has_none(made: Made) -> None:
    assert made.read() == Timers(0, 0, 0, 0, [])


def test_of_many_timers_some_are_looked_at(made: Made) -> None:
    timer = made.timer(SEND)
    made.give(*[timer] * (3 * LOOKED_AT))
    found = made.read()
    assert found.count == 3 * LOOKED_AT
    assert LOOKED_AT - 16 <= found.looked_at <= LOOKED_AT
    assert found.functions == [TimerFunction("time.sendTime", found.looked_at)]


def test_timers_that_lead_nowhere_have_no_name(made: Made) -> None:
    made.give(made.timer(GO_FUNC, 0xDEAD0000), 0xDEAD0000, 3, made.timer(GO_FUNC))
    assert made.read().functions == [TimerFunction("?", 4)]


@pytest.mark.parametrize("length", [1 << 29, 1 << 60])
def test_a_count_that_no_runtime_has_is_an_error(made: Made, length: int) -> None:
    made.give(made.timer(SEND), length=length)
    with pytest.raises(SnapshotError):
        made.read()


def test_a_count_that_is_beyond_what_can_be_read_is_an_error(made: Made) -> None:
    made.give(made.timer(SEND), length=1 << 20)
    with pytest.raises(SnapshotError):
        made.read()
