"""`gomem serve`, run as a user runs it."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import executable
from tests.support.processes import wait_until

Labels = dict[str, str]


@dataclass
class Serving:
    """A running `gomem serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def get(self, path: str) -> str:
        """Return the body of a GET; raises HTTPError for other codes than 200."""
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            body: bytes = response.read()
        return body.decode()

    def samples(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        """Return the samples of a metric that have these labels, from a scrape of now."""
        found = []
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    found.append((dict(sample.labels), sample.value))
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the only sample with these labels, None if there is none."""
        found = self.samples(name, **labels)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def figures(self, *names: str, **labels: str) -> dict[str, float]:
        """Return the values that metrics with these labels have in one scrape of now, each the only one of its name."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name in names and labels.items() <= sample.labels.items():
                    assert sample.name not in found, sample
                    found[sample.name] = sample.value
        return found

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait for a condition; raises TimeoutError with what gomem said."""
        try:
            wait_until(condition, what, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log.read_text()}") from None

    def followed(self, pid: int) -> bool:
        """Return whether a process's runtime has been read."""
        return self.value("gomem_process_state", pid=str(pid), state="followed") == 1


@contextmanager
def serving(*words: object, under: Sequence[str] = ()) -> Iterator[Serving]:
    """Run `gomem serve WORDS` on a free port until the block ends; it must then stop when asked, without complaint."""
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        log = Path(directory) / "log"
        command = [*under, executable(), "serve", "--listen", "127.0.0.1:0", *map(str, words)]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        served = Serving(process, "", log)

        def listens() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"it ended with status {process.returncode}:\n{log.read_text()}")
            lines = [line for line in log.read_text().splitlines() if line.startswith("gomem: serving ")]
            served.url = lines[0].removeprefix("gomem: serving ").rstrip("/") if lines else ""
            return bool(lines)

        try:
            wait_until(listens, "gomem serving", seconds=60)
            yield served
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
