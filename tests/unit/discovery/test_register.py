"""Who is wanted, what is told of that, and when whoever is left out gets a place."""

from __future__ import annotations

from dataclasses import replace

from gomem.tracer.discovery.process_info import Identity, ProcessInfo
from gomem.tracer.discovery.recognition import ProgramKind, Recognized
from gomem.tracer.discovery.register import Register
from gomem.tracer.discovery.selection import Selection, parse_selection
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.process.target import ExeIdentity
from gomem.tracer.report import Limit

GO, C = Recognized(ProgramKind.GO, ""), Recognized(ProgramKind.NOT_GO, "")


class Pods:
    """Says of each process in which namespace it is, as far as that is known by now."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self._generation = 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def limits(self) -> tuple[Limit, ...]:
        return ()

    def learn(self, pid: int, namespace: str) -> None:
        self.known[pid] = namespace
        self._generation += 1

    def of(self, info: ProcessInfo) -> Workload:
        return Workload(namespace=self.known.get(info.pid))


def seen(pid: int, start: int = 1, exe: str = "/bin/one") -> ProcessInfo:
    return ProcessInfo(Identity(pid, start, ExeIdentity(1, 2, 3, 4)), exe.rpartition("/")[2], exe, 0, ("/",))


def register(
    selection: Selection | None = None, most: int = 100, pods: Pods | None = None
) -> tuple[Register, list[bool]]:
    room: list[bool] = []
    return Register(selection or Selection(), pods or Pods(), most, lambda: room.append(True)), room


def pids(register: Register) -> tuple[list[int], list[int], list[int]]:
    changes = register.untold.taken()
    appeared, changed = [one.pid for one in changes.appeared], [one.pid for one in changes.changed]
    return appeared, [one.pid for one in changes.gone], changed


def test_only_what_was_not_told_yet_is_told() -> None:
    made, _ = register()
    made.add(seen(1), GO)
    made.add(seen(2), GO)
    assert pids(made) == ([1, 2], [], [])
    assert not made.untold
    made.forget(1)
    made.forget(77)
    assert pids(made) == ([], [1], [])


def test_who_came_and_went_in_between_was_never_there() -> None:
    made, _ = register()
    made.add(seen(1), GO)
    made.forget(1)
    assert not made.untold


def test_what_is_new_of_a_newcomer_is_told_with_it() -> None:
    made, _ = register()
    made.add(seen(1), GO)
    known = made.of(1)
    assert known is not None
    made.update(known, replace(seen(1), cgroups=("/moved",)))
    assert [one.cgroups for one in made.untold.taken().appeared] == [("/moved",)]
    made.update(known, replace(seen(1), cgroups=("/again",)))
    made.update(known, replace(seen(1), cgroups=("/again",)))
    assert pids(made) == ([], [], [1])


def test_another_program_is_told_unless_it_is_none_of_go() -> None:
    made, _ = register()
    made.add(seen(1), C)
    assert not made.untold
    assert 1 in made


def test_a_process_that_was_asked_for_is_wanted_whatever_it_is_and_its_successor_is_not() -> None:
    made, _ = register(parse_selection(pids=[1]))
    made.asked[1] = 1
    made.add(seen(1), C)
    assert pids(made) == ([1], [], [])
    made.forget(1)
    made.add(seen(1, start=2), C)
    assert pids(made) == ([], [1], [])


def test_who_is_left_out_gets_the_place_of_one_that_is_gone() -> None:
    made, room = register(most=2)
    for pid in (1, 2, 3):
        made.add(seen(pid), GO)
    assert made.left_out == 1
    assert not room
    assert pids(made) == ([1, 2], [], [])
    made.keep_only({2, 3})
    assert room
    made.judge_again()
    assert made.left_out == 0
    assert pids(made) == ([3], [1], [])


def test_what_is_learnt_of_where_processes_belong_decides_anew() -> None:
    pods = Pods()
    made, _ = register(parse_selection(include={"label": ["namespace=shop"]}), pods=pods)
    made.add(seen(1), GO)
    made.mind_workloads()
    assert not made.untold
    pods.learn(1, "shop")
    made.mind_workloads()
    assert pids(made) == ([1], [], [])
    made.mind_workloads()
    assert not made.untold
    pods.learn(1, "bank")
    made.mind_workloads()
    assert pids(made) == ([], [1], [])
