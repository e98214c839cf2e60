"""Goroutines that go on while they are read."""

from __future__ import annotations

from collections.abc import Callable

from gomem.tracer.binary.call_frames import CallFrame
from gomem.tracer.process.memory import Bytes
from gomem.tracer.runtime.goroutine_stacks import Unwinder
from gomem.tracer.runtime.resting import Resting, read_resting
from tests.support.image import Image
from tests.support.runtime_image import RuntimeImage

PC, GOEXIT = 0x1010, 0x2010
CODE = {PC: CallFrame("main.f", 8, False, False, False), GOEXIT: CallFrame("runtime.goexit", 0, False, True, False)}
WAITING, RUNNING, DEAD = 4, 2, 6


class Moving:
    """An image in which something happens whenever a stack is read."""

    def __init__(self, image: Image, stack: int, happens: Callable[[], None]) -> None:
        self.room = image.room
        self._image, self._stack, self._happens = image, stack, happens

    def read(self, address: int, size: int) -> bytes:
        raw = self._image.read(address, size)
        if address == self._stack:
            self._happens()
        return raw

    def read_into(self, address: int, buffer: Bytes) -> None:
        self._image.read_into(address, buffer)
        if address == self._stack:
            self._happens()


class Gs:
    """Two goroutines at rest, each with a stack of its own."""

    def __init__(self) -> None:
        self.runtime = RuntimeImage()
        self.stacks = [self.runtime.room(0x8000) for _ in range(2)]
        self.gs = [self.runtime.room(self.runtime.layout.size("g")) for _ in range(2)]
        listed = self.runtime.room(16)
        self.runtime.image.words(listed, *self.gs)
        self.runtime.globals["allgs"] = self.runtime.room(24)
        self.runtime.image.words(self.runtime.globals["allgs"], listed, 2, 2)
        for number, stack in enumerate(self.stacks):
            self.runtime.image.words(stack + 0x4000, 0, GOEXIT)
            self.set(number, atomicstatus=WAITING, goid=number + 1)
            self.set(number, **{"stack.lo": stack, "stack.hi": stack + 0x8000})
            self.set(number, **{"sched.pc": PC, "sched.sp": stack + 0x4000})

    def set(self, number: int, **fields: int) -> None:
        for name, value in fields.items():
            self.runtime.set("g", self.gs[number], name, value)

    def read(self, happens: Callable[[], None]) -> Resting:
        memory = Moving(self.runtime.image, self.stacks[0] + 0x4000, happens)
        unwinder = Unwinder(CODE.get, 100)
        return read_resting(memory, self.runtime.layout, self.runtime.globals, unwinder)


def ids(resting: Resting) -> tuple[list[int], list[int]]:
    return resting.goroutines["goid"].tolist(), resting.running["goid"].tolist()


def test_what_does_not_move_rests() -> None:
    resting = Gs().read(lambda: None)
    assert ids(resting) == ([1, 2], [])
    assert resting.whole.all()
    assert len(set(resting.node.tolist())) == 1


def test_what_comes_to_rest_elsewhere_is_read_again() -> None:
    gs = Gs()
    moves = iter([0x4100])
    for offset in (0x4100,):
        gs.runtime.image.words(gs.stacks[0] + offset, 0, PC, 0, GOEXIT)

    def happens() -> None:
        for offset in moves:
            gs.set(0, **{"sched.sp": gs.stacks[0] + offset})

    resting = gs.read(happens)
    assert sorted(ids(resting)[0]) == [1, 2]
    assert len(set(resting.node.tolist())) == 2
    assert ids(resting)[1] == []


def test_what_comes_to_rest_in_the_very_same_call_is_read_again_too() -> None:
    gs = Gs()
    read = []

    def happens() -> None:
        read.append(1)
        if len(read) == 1:
            gs.set(0, trackingSeq=1)

    assert sorted(ids(gs.read(happens))[0]) == [1, 2]
    assert len(read) == 2


def test_what_goes_on_in_each_attempt_counts_as_running() -> None:
    gs = Gs()
    runs = iter(range(1, 200))
    assert ids(gs.read(lambda: gs.set(0, trackingSeq=next(runs)))) == ([2], [1])


def test_what_begins_to_run_meanwhile_runs() -> None:
    gs = Gs()
    assert ids(gs.read(lambda: gs.set(0, atomicstatus=RUNNING))) == ([2], [1])


def test_what_ends_meanwhile_is_left_out() -> None:
    gs = Gs()
    assert ids(gs.read(lambda: gs.set(0, atomicstatus=DEAD))) == ([2], [])


def test_the_free_are_left_out_and_the_running_are_told() -> None:
    gs = Gs()
    gs.set(0, atomicstatus=DEAD)
    gs.set(1, atomicstatus=RUNNING | 0x1000)
    assert ids(gs.read(lambda: None)) == ([], [2])
