"""Clients that keep within every limit, and are many: looks go on, and who is honest stays connected."""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from gomem.exporters.http.server import Server
from gomem.exporters.http.webconfig import load_web_config
from tests.support.builds import build
from tests.support.parked import parked
from tests.support.requirements import program
from tests.support.serving import serving as serving_processes
from tests.support.web.clients import PATIENCE, connect, get, port, serving, until

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: a\r\n%s\r\n"
ALICE = b"Authorization: Basic " + base64.b64encode(b"alice:wonder") + b"\r\n"
# Asks on so many connections for the metrics, each as soon as the answer before is there.
FLOOD = """
import asyncio, sys

async def ask(host, port):
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            while True:
                writer.write(b"GET /metrics HTTP/1.1\\r\\nHost: a\\r\\nAccept-Encoding: gzip\\r\\n\\r\\n")
                head = await reader.readuntil(b"\\r\\n\\r\\n")
                length = next(line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)

async def main(host, port, count):
    await asyncio.gather(*(ask(host, port) for _ in range(int(count))))

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.contextmanager
def flood(where: str, connections: int) -> Iterator[None]:
    host, _, number = where.rpartition(":")
    process = subprocess.Popen([sys.executable, "-c", FLOOD, host, number, str(connections)])
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def ask(connection: socket.socket, raw: bytes) -> bytes:
    """Send a request and return the head of its answer, b"" where nobody answers any more."""
    try:
        connection.sendall(raw)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            if not piece:
                return b""
            answer += piece
    except ConnectionError:
        return b""
    return answer.split(b"\r\n", 1)[0]


def crowd(server: Server, stack: contextlib.ExitStack, count: int, raw: bytes = b"", times: int = 1) -> None:
    """Connect so many times, and ask so often on each connection."""
    for _ in range(count):
        before = heard_of(server)
        connection = stack.enter_context(connect(server))
        until(lambda now=before: heard_of(server) > now)  # type: ignore[misc]
        for _ in range(times if raw else 0):
            ask(connection, raw)


def heard_of(server: Server) -> int:
    """Return how many connections were taken on or refused."""
    now = server.statistics()
    return now.accepted + now.refused.get("connections", 0) + now.refused.get("connection_rate", 0)


def test_scrapes_as_fast_as_they_are_answered_do_not_spread_the_looks() -> None:
    words = ("--interval", "1", "--backend", "procfs")  # and the budget that comes by default
    with parked(build("parked", "1.25.5")) as target, serving_processes("--pid", target.pid, *words) as served:
        served.until(lambda: served.followed(target.pid), "it being followed")
        with flood(served.url.removeprefix("http://"), 31):
            looks = served.value("gomem_looks_total") or 0
            # Longer than it takes the fleet to find out what it used.
            served.until(lambda: (served.value("gomem_looks_total") or 0) >= looks + 14, "14 looks", 200)
            assert served.value("gomem_tracer_round_interval_seconds") == 1.0


def test_beyond_its_share_of_cpu_time_a_flood_is_answered_at_a_lower_rate_and_others_at_once() -> None:
    with serving(limits={"cpu_share": 1e-9, "requests_burst": 20.0, "requests_rate": 1e-3}) as server:
        until(lambda: server._answers.price() > 20)
        with connect(server) as greedy:
            greedy.sendall(HEALTH * 50)
            until(lambda: server.statistics().requests.get(("healthz", 200), 0) == 2)
            assert [get(server, "/metrics").status for _ in range(5)] == [200] * 5
            assert server.statistics().requests["healthz", 200] == 2


def test_a_scraper_that_was_answered_stays_when_connections_that_ask_for_nothing_take_all_places() -> None:
    with serving(limits={"connections": 8, "eviction_seconds": 0.0}) as server, contextlib.ExitStack() as held:
        scraper = held.enter_context(connect(server))
        assert ask(scraper, SCRAPE % b"") == b"HTTP/1.1 200 OK"
        for _ in range(3):
            crowd(server, held, 8)
            assert ask(scraper, SCRAPE % b"") == b"HTTP/1.1 200 OK"
        assert server.statistics().refused["evicted"] >= 10


def test_a_scraper_of_long_standing_stays_when_others_ask_once_each() -> None:
    with serving(limits={"connections": 8, "eviction_seconds": 0.0}) as server, contextlib.ExitStack() as held:
        scraper = held.enter_context(connect(server))
        for _ in range(3):
            assert ask(scraper, SCRAPE % b"") == b"HTTP/1.1 200 OK"
        crowd(server, held, 20, HEALTH)
        assert ask(scraper, SCRAPE % b"") == b"HTTP/1.1 200 OK"
        assert server.statistics().refused["evicted"] >= 10


@pytest.fixture
def with_passwords(tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users:\n  alice: {bcrypt.hashpw(b'wonder', bcrypt.gensalt(4)).decode()}\n")
    limits = {"connections": 8, "reserved_connections": 3, "eviction_seconds": 0.0}
    with serving(config=load_web_config(path), limits=limits) as server:
        yield server


def test_who_knows_a_password_is_not_crowded_out_by_those_who_ask_more_often(with_passwords: Server) -> None:
    with contextlib.ExitStack() as held:
        scraper = held.enter_context(connect(with_passwords))
        assert ask(scraper, SCRAPE % ALICE) == b"HTTP/1.1 200 OK"
        crowd(with_passwords, held, 12, HEALTH, times=4)
        assert ask(scraper, SCRAPE % b"") == b"HTTP/1.1 401 Unauthorized"
        assert ask(scraper, SCRAPE % ALICE) == b"HTTP/1.1 200 OK"


def test_places_are_kept_for_who_knows_a_password(with_passwords: Server) -> None:
    with contextlib.ExitStack() as held:
        crowd(with_passwords, held, 20)
        assert with_passwords.statistics().connections == 5  # of 8
        for _ in range(3):
            known = held.enter_context(connect(with_passwords))
            assert ask(known, SCRAPE % ALICE) == b"HTTP/1.1 200 OK"
        crowd(with_passwords, held, 20)
        assert with_passwords.statistics().connections == 8


def test_users_of_a_unix_socket_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "gomem.sock"
    script = (
        "import socket, sys\n"
        "held = []\n"
        "for _ in range(8):\n"
        "    one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]); held.append(one)\n"
        "print(flush=True); sys.stdin.read()\n"
    )
    with serving(listen=f"unix:{path}", limits={"connections_per_peer": 4}) as server:
        path.chmod(0o666)
        for parent in (tmp_path, *tmp_path.parents):
            if parent == Path("/tmp"):
                break
            parent.chmod(parent.stat().st_mode | 0o055)
        nobody = [program("setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*nobody, "/usr/bin/python3", "-c", script, str(path)]
        flooding = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert flooding.stdout is not None
            assert flooding.stdout.readline() == b"\n"
            until(lambda: server.statistics().refused.get("connections", 0) == 4)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(str(path))
                assert ask(connection, HEALTH) == b"HTTP/1.1 200 OK"
        finally:
            flooding.communicate(timeout=PATIENCE)


def test_the_cpu_time_of_answers_is_counted_apart() -> None:
    with serving() as server:
        before = server.cpu_seconds()
        for _ in range(100):
            assert get(server, "/metrics").status == 200
        assert server.cpu_seconds() > before
        assert port(server)
    after = server.cpu_seconds()
    assert after > before
    assert server.cpu_seconds() == after
