"""What attached uprobes cost a target that never hits them: at its context switches, by the way they are attached."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gomem.bpf import syscalls
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.uprobes import cookie
from gomem.bpf.program import target_ids
from gomem.bpf.shared_program import ONE, SharedProgram
from gomem.tracer.events.probes import UprobeSpec
from tests.bench.rounds import Cost, rounds_of
from tests.support.bpf.tracing import opened
from tests.support.builds import built


def attach_multi(program: SharedProgram, specs: list[UprobeSpec], pid: int) -> list[int]:
    """One link for all probes of one process."""
    return uprobes.attach(program.uprobe_by("multi"), specs, pid)[0]


def attach_perf(program: SharedProgram, specs: list[UprobeSpec], pid: int) -> list[int]:
    """A perf event for each probe, of the one process, or with -1 of all: then the program filters."""
    pmu = uprobes.uprobe_pmu_type()
    if pmu is None:
        raise SystemExit("this kernel has no uprobe PMU")
    held: list[int] = []
    for index, spec in enumerate(specs):
        perf_fd = syscalls.open_uprobe(pmu, spec.path, spec.offset, pid)
        held += [*program.uprobe_by("perf").run_at(perf_fd, cookie(spec, index)), perf_fd]
        syscalls.enable(perf_fd)
    return held


_TURNS = 2  # with and without, again and again: what else runs on the machine weighs on both
WAYS: tuple[tuple[str, Callable[[SharedProgram, list[UprobeSpec], int], list[int]], bool], ...] = (
    ("a uprobe_multi link", attach_multi, True),
    ("perf events of the process", attach_perf, True),
    ("perf events of all processes", attach_perf, False),
)


def costs(release: str, seconds: float) -> Iterator[Cost]:
    """Measure one after the other; the estimate of the slowdown leaves all of it out."""
    path = built("switches", release)
    with opened(path, release) as binary, rounds_of(path) as target:
        specs = binary.specs()
        yield Cost("two context switches of the target, no probe", target.best(seconds))
        for name, attach, of_the_process in WAYS:
            program = SharedProgram(1 << 16, 1024, ONE)
            program.enter(target_ids(target.pid), (1 << 32) - 1)
            without, probed = [], []
            for _ in range(_TURNS):
                without.append(target.best(seconds / _TURNS))
                held = attach(program, specs, target.pid if of_the_process else 0)
                probed.append(target.best(seconds / _TURNS))
                uprobes.close_all(held)
            program.close()
            yield Cost(f"  more, {len(specs)} probes by {name}", min(probed) - min(without))
