"""Write the example pages of docs/examples: memory maps of Debian's prometheus and etcd at work, and a picture of one.

    python -m tests.support.examples [DIRECTORY]

The programs run out of a cache and in directories that are gone afterwards: the pages have the paths that they have
where Debian's packages are installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.browser import browser
from tests.support.cache import cache_dir
from tests.support.command import executable
from tests.support.etcd import Etcd, debians_etcd, running_etcd
from tests.support.prometheus import running_prometheus

ROOT = Path(__file__).parents[2]
MOST_BYTES, MOST_PICTURE = 1_500_000, 200_000
SECONDS = 20
PICTURE = "prometheus.png"
_GROUP = re.compile(r'"cgroup": \{"path": "(/[^"]+)"')
_WIDE = (1200, 1000)


def main(words: list[str]) -> int:
    """Write them; return an exit status."""
    into = Path(words[0]) if words else ROOT / "docs/examples"
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        place = Path(directory)
        with running_prometheus(place) as server, server.queried():
            _write(into / "prometheus.html", server.pid, "prometheus", place)
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        place = Path(directory)
        with running_etcd(place, debians_etcd()) as keeper, _at_work(_putting(keeper)):
            _write(into / "etcd.html", keeper.pid, "etcd-server", place)
    _take_picture(into / "prometheus.html", into / PICTURE)
    return 0


@contextmanager
def _at_work(work: Callable[[], None]) -> Iterator[None]:
    """Within the block do `work` again and again, beside what else is done."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(0.01):
            with suppress(OSError):
                work()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _putting(keeper: Etcd) -> Callable[[], None]:
    numbers = iter(range(1 << 40))

    def put() -> None:
        number = next(numbers)
        keeper.put(f"/registry/pods/{number % 3000}", b"spec" * (64 << number % 6))

    return put


def _write(page: Path, pid: int, package: str, place: Path) -> None:
    command = [executable(), "trace", str(pid), "-d", str(SECONDS), "--format", "html", "-o", str(page)]
    subprocess.run(command, check=True)
    text = page.read_text()
    for ours, theirs in (
        (str(cache_dir() / "debian" / package), ""),
        (str(place), f"/var/lib/{page.stem}"),
    ):
        text = text.replace(ours, theirs)
    group = _GROUP.search(text)
    if group is not None:
        text = text.replace(f'"{group[1]}"', f'"/system.slice/{page.stem}.service"')
    page.write_text(text)
    assert len(text) < MOST_BYTES, f"{page} has {len(text)} bytes"


def _take_picture(page: Path, picture: Path) -> None:
    with browser() as window:
        window.resize(*_WIDE)
        window.open(page)
        deadline = time.monotonic() + 60
        while not window.run("return document.documentElement.dataset.ready") and time.monotonic() < deadline:
            time.sleep(0.05)
        window.run("window.scrollTo(0, 0)")
        window.picture(picture)
    assert picture.stat().st_size < MOST_PICTURE, f"{picture} has {picture.stat().st_size} bytes"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
