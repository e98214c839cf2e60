"""What a target feels of a gomem that is killed or stopped at a random moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.bench.attack_steady import RELEASE, Progress, Steady, steady
from tests.e2e.test_stopped_tracer import breakpoints
from tests.support.builds import built
from tests.support.command import executable

SLOW = 0.8  # of its twin's rounds per CPU second: less is slow
_START = 2.5  # seconds in which a tracer begins
_HUNG = 3.0  # seconds without a round
_WINDOW = 1.0  # seconds of a comparison of two paces
_LEFT = 10.0  # seconds after which a probe is left behind
_TAKEN_OFF = 2.0  # seconds until what is dear is off, with room for a busy machine


def commands(pid: int) -> dict[str, list[str]]:
    """Return the words of the tracers that are attacked while they look at a process."""
    return {
        "trace": ["trace", "--pid", str(pid), "--duration", "600"],
        "trace --with spans": ["trace", "--pid", str(pid), "--with", "spans", "--budget", "100", "--duration", "600"],
        "serve": ["serve", "--pid", str(pid), "--interval", "0.2", "--listen", "127.0.0.1:0"],
    }


@dataclass
class Felt:
    """What targets felt of the attacks on one kind of tracer."""

    attacks: int = 0
    probed: int = 0  # attacks while probes were on
    killed: int = 0
    hung: int = 0
    wrong: int = 0  # rounds whose sum was not what it should be
    slowed: int = 0
    left: int = 0  # attacks after which a probe was still there
    paces: list[float] = field(default_factory=list)  # of its twin's, while the tracer was stopped

    def add(self, other: Felt) -> None:
        """Count another's attacks, too."""
        for name in ("attacks", "probed", "killed", "hung", "wrong", "slowed", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.paces += other.paces


class Siege:
    """One target that is traced, and its twin that is not."""

    def __init__(self, target: Steady, twin: Steady, chance: random.Random) -> None:
        self._target = target
        self._twin = twin
        self._chance = chance
        self._binary = built("steady", RELEASE)

    def kill(self, words: list[str], *, at_work: bool) -> Felt:
        """Kill a tracer at a random moment of its start, or soon after it has put its probes on."""
        before = self._target.progress
        with _tracing(words) as tracer:
            at_work = at_work and _soon(self._probed, 30)
            time.sleep(self._chance.uniform(0, 0.5 if at_work else _START))
            probed = self._probed()
            tracer.kill()
            tracer.wait()
        return self._judge(Felt(attacks=1, probed=probed), before)

    def stops(self, words: list[str], times: int) -> Felt:
        """Stop a tracer that is at work so many times, at random moments, and let it go on."""
        felt = Felt()
        with _tracing(words) as tracer:
            _soon(self._probed, 30)
            for _ in range(times):
                time.sleep(self._chance.uniform(0, 1))
                before = self._target.progress
                probed = self._probed()
                os.kill(tracer.pid, signal.SIGSTOP)
                time.sleep(_TAKEN_OFF)
                pace = self.pace()
                one = Felt(attacks=1, probed=probed, slowed=pace < SLOW, paces=[pace])
                self._progress_since(one, before)
                felt.add(one)
                os.kill(tracer.pid, signal.SIGCONT)
            tracer.kill()
            tracer.wait()
        return self._judge(felt, self._target.progress)

    def pace(self) -> float:
        """Return the target's rounds per CPU second as a share of its twin's, now; 0.0 when it makes none."""
        begins = self._target.progress, self._twin.progress
        time.sleep(_WINDOW)
        own, other = begins[0].pace(self._target.progress), begins[1].pace(self._twin.progress)
        return own / other if own is not None and other else 0.0

    def _judge(self, felt: Felt, before: Progress) -> Felt:
        """Look at the target when the tracer has been killed."""
        self._progress_since(felt, before)
        felt.left += not _soon(lambda: self._target.ended or not self._probed(), _LEFT)
        return felt

    def _progress_since(self, felt: Felt, before: Progress) -> None:
        felt.killed += self._target.ended
        felt.hung += not self._target.ended and not self._goes_on()
        felt.wrong += self._target.progress.wrong - before.wrong

    def _goes_on(self) -> bool:
        rounds = self._target.progress.rounds
        return _soon(lambda: self._target.progress.rounds > rounds, _HUNG)

    def _probed(self) -> bool:
        try:
            return bool(breakpoints(self._target.pid, self._binary))
        except OSError:
            return False


def _soon(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def _tracing(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([executable(), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def attack(kills: int, stops: int, seed: int, at_once: int = 2) -> tuple[dict[str, tuple[Felt, Felt]], list[float]]:
    """Attack each kind of tracer; give what was felt of kills and of stops by kind, and paces with no tracer at all.

    `at_once` targets are attacked at the same time, each with its own twin's pace to be held against.
    """
    names = list(commands(0))
    found = {name: (Felt(), Felt()) for name in names}
    quiet: list[float] = []
    lock = threading.Lock()
    work = [(name, kills // len(names) + (at < kills % len(names)), True) for at, name in enumerate(names)]
    work += [(name, stops // len(names) + (at < stops % len(names)), False) for at, name in enumerate(names)]

    def besiege(number: int, twin: Steady) -> None:
        with steady() as target:
            siege = Siege(target, twin, random.Random(f"{seed} {number}"))
            pace = siege.pace()
            with lock:
                quiet.append(pace)
            for name, count, kill in work:
                share = count // at_once + (number < count % at_once)
                words = commands(target.pid)[name]
                felt = Felt()
                for nth in range(share if kill else 0):
                    felt.add(siege.kill(words, at_work=(nth + number) % 2 == 1))
                if share and not kill:
                    felt = siege.stops(words, share)
                with lock:
                    found[name][0 if kill else 1].add(felt)

    with steady() as twin:
        threads = [threading.Thread(target=besiege, args=(number, twin)) for number in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found, quiet
