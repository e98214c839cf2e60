"""Go programs in memory cgroups of their own, charged for memory of one kind (tests/targets/charged)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gomem.exporters.json.schema import POD_FILE, validate
from gomem.exporters.pod import pod_json
from gomem.tracer.discovery.pod_bill import place_of, pod_bill
from gomem.tracer.process.target import Target
from gomem.tracer.report import Report
from gomem.tracer.report.pod import PodReport
from tests.support.builds import build
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.seen import look_at, told

RELEASE = "1.25.5"
_USAGE = {1: "memory.usage_in_bytes", 2: "memory.current"}
_INACTIVE = {1: "total_inactive_file", 2: "inactive_file"}


@dataclass(frozen=True, slots=True)
class Charged:
    """A program in its cgroup."""

    process: subprocess.Popen[bytes]
    directory: Path
    version: int

    @property
    def pid(self) -> int:
        """The program's."""
        return self.process.pid

    @property
    def path(self) -> str:
        """The cgroup's path, as /proc/PID/cgroup has it."""
        return f"/{self.directory.name}"

    def usage(self) -> int:
        """Return what the cgroup is charged, bytes."""
        return int((self.directory / _USAGE[self.version]).read_text())

    def working_set(self) -> int:
        """Return what the kubelet would say: k8s.io/kubernetes, cadvisor's setMemoryStats."""
        lines = (self.directory / "memory.stat").read_text().splitlines()
        inactive = next(int(line.split()[1]) for line in lines if line.split()[0] == _INACTIVE[self.version])
        usage = self.usage()
        return 0 if usage < inactive else usage - inactive

    def reclaim(self) -> None:
        """Have the kernel take back what it can."""
        if self.version == 1:
            (self.directory / "memory.force_empty").write_text("0")
            return
        high = self.directory / "memory.high"
        high.write_text("0")
        high.write_text("max")

    def look(self) -> tuple[Report, PodReport]:
        """Return the report of the process and the bill of its cgroup, both valid."""
        return look_at(self.process)[1], bill_of(self.process.pid)


@contextmanager
def charged(kind: str, size: int, path: Path | str = "", limit: int | None = 400 << 20) -> Iterator[Charged]:
    """Run tests/targets/charged in a cgroup; a file that it writes is removed in the end."""
    with memory_cgroup(limit=limit) as (directory, version):
        words = [kind, size, *([path] if path else [])]
        with told(*joining(directory), build("charged", RELEASE), *words) as (process, _):
            try:
                yield Charged(process, directory, version)
            finally:
                if kind in ("used", "once", "fresh"):
                    Path(path).unlink(missing_ok=True)


def bill_of(pid: int) -> PodReport:
    """Return the bill that `gomem pod PID` prints, made in this process, and valid."""
    with Target.open(pid) as target:
        place = place_of(target)
    report = pod_bill(place)
    validate(json.loads(pod_json(report)), POD_FILE)
    return report
