"""Real programs without DWARF that nobody here built: Debian's, and newer ones from package registries."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import obeys_the_rules, report_of
from tests.support.debian import PackageMissing, unpacked
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.registries import esbuild, nats_server
from tests.support.requirements import absent
from tests.support.summary import note

SECTIONS = ("consistency", "virtual", "resident", "kinds", "heap", "memstats", "spans", "span_states", "caches",
            "accounting")  # fmt: skip


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def debian(package: str, program: str) -> Path:
    try:
        return unpacked(package) / program
    except PackageMissing as missing:
        absent(str(missing))


@contextmanager
def serving(command: Sequence[str | Path], port: int, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in `directory` until the block ends; it starts when its port answers."""
    # esbuild ends with its standard input.
    with subprocess.Popen(
        command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: answers(port), f"{command[0]} to answer")
            yield process
        finally:
            process.kill()


@contextmanager
def real(name: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    port, other = free_port(), free_port()
    url, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}"
    if name == "esbuild":
        command: list[str | Path] = [esbuild(), f"--serve=127.0.0.1:{port}"]
    elif name == "nats-server":
        command = [nats_server(), "-a", "127.0.0.1", "-p", str(port)]
    elif name == "etcd":
        command = [debian("etcd-server", "usr/bin/etcd"), "--data-dir", directory / "data",
                   "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer,
                   "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]  # fmt: skip
    else:
        (directory / "prometheus.yml").write_text("global: {}\n")
        command = [debian("prometheus", "usr/bin/prometheus"), f"--web.listen-address=127.0.0.1:{port}",
                   f"--storage.tsdb.path={directory / 'data'}",
                   f"--config.file={directory / 'prometheus.yml'}"]  # fmt: skip
    with serving(command, port, directory) as process:
        yield process


@pytest.mark.parametrize("name", ["prometheus", "etcd", "esbuild", "nats-server"])
def test_a_real_program_is_reported_completely(name: str, tmp_path: Path) -> None:
    with real(name, tmp_path) as process:
        time.sleep(1)
        for _ in range(8):
            report: dict[str, Any] = report_of("snapshot", "--pid", process.pid)
            if report["consistency"] and report["consistency"]["exact"]:
                break
    release, exact = report["process"]["go_version"], report["consistency"]["exact"]
    said = "exact" if exact else f"{report['consistency']['skew_bytes']} bytes"
    note("real programs", name, "release", release)
    note("real programs", name, "layout", report["process"]["layout"])
    note("real programs", name, "consistency", said)
    note("real programs", name, "unexplained", str(report["accounting"]["unexplained"]))
    note("real programs", name, "limits", "; ".join(limit["what"] for limit in report["limits"]) or "none")
    note("real programs", name, "symbols", "none" if report["process"]["stripped"] else ".symtab only")
    # PyPI's nats-server keeps its symbol table.
    assert report["process"]["stripped"] is (name != "nats-server")
    assert report["process"]["layout"] == "table"
    assert [section for section in SECTIONS if report[section] is None] == []
    assert report["limits"] == []
    assert exact or report["consistency"]["skew_bytes"] > 0
    if exact:
        assert report["accounting"]["unexplained"] == 0
    obeys_the_rules(report)
