"""How quiet the machine was during a measurement: what other processes used, and what its host took away."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QUIET_OTHERS = 0.05  # of one core, that processes outside of the measurement may use
QUIET_STEAL = 0.02  # of the machine, that its host may take away


@dataclass(frozen=True, slots=True)
class Moment:
    """The machine at one moment, in CPU seconds since its start, and in seconds (time.monotonic)."""

    at: float
    busy: float  # of all CPUs, without what the host stole
    steal: float
    known: float  # of the processes that are part of the measurement

    def until(self, later: Moment) -> Noise:
        """Return what disturbed between this moment and a later one."""
        seconds = max(later.at - self.at, 1e-3)
        others = later.busy - self.busy - (later.known - self.known)
        return Noise(max(others, 0.0) / seconds, (later.steal - self.steal) / seconds)


@dataclass(frozen=True, slots=True)
class Noise:
    """CPU seconds per second that others used, and that the host took away."""

    others: float
    steal: float


def quietness(noises: Sequence[Noise], cpus: int) -> tuple[bool, str]:
    """Return whether the machine was quiet, and a sentence that says how it was."""
    others = statistics.median(noise.others for noise in noises)
    worst = max(noise.others for noise in noises)
    steal = statistics.fmean(noise.steal for noise in noises) / cpus
    quiet = others <= QUIET_OTHERS and steal <= QUIET_STEAL
    verdict = "The machine was quiet" if quiet else "THE MACHINE WAS NOT QUIET, so the figures are rough"
    sentence = (
        f"{verdict}: other processes used {100 * others:.1f} % of one core (median of the windows; at worst"
        f" {100 * worst:.0f} %), its host took {100 * steal:.1f} % of {cpus} cores"
    )
    return quiet, sentence


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its children that ended, 0 if it is gone (proc(5): stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def moment(processes: Sequence[int]) -> Moment:
    """Return the machine as it is now; `processes` are those whose work is no disturbance."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = (tick / os.sysconf("SC_CLK_TCK") for tick in ticks)
    busy = user + nice + system + irq + softirq
    return Moment(time.monotonic(), busy, steal, sum(cpu_seconds(pid) for pid in (os.getpid(), *processes)))
