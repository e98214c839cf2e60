"""Slow, greedy, huge, malformed and departed clients: others are served all the while, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.exporters.http.addresses import parse_address
from gomem.exporters.http.server import Server
from tests.support.web.clients import METRICS_TYPE, PATIENCE, connect, everything, get, port, say, serving, until

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_descriptor_or_thread_left() -> Iterator[None]:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    until(lambda: threading.active_count() <= threads)
    until(lambda: len(os.listdir("/proc/self/fd")) <= files)


def idle(server: Server) -> bool:
    now = server.statistics()
    return now.connections == 0 and now.in_flight == 0


def is_served(server: Server) -> bool:
    return get(server, "/metrics").status == 200


def test_a_request_that_drips_is_ended_in_time_however_often_a_byte_comes() -> None:
    with serving(limits={"head_seconds": 0.3}) as server, connect(server) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.settimeout(0.02)
            while not answer:
                connection.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65536)
        answer = answer or everything(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        until(lambda: idle(server))


def test_a_connection_that_says_nothing_is_ended() -> None:
    with serving(limits={"head_seconds": 0.1}) as server:
        assert say(server, b"").startswith(b"HTTP/1.1 408 ")


def test_a_kept_connection_that_asks_for_nothing_more_is_ended_without_a_word() -> None:
    with serving(limits={"idle_seconds": 0.1}) as server:
        answer = say(server, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.endswith(b"alive\n")


def test_a_kept_connection_that_drips_its_second_request_is_ended() -> None:
    with serving(limits={"head_seconds": 0.2}) as server:
        answer = say(server, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /m")
        *others, last = re.findall(rb"HTTP/1.1 ([0-9]+)", answer)
        assert last == b"408"
        assert others in ([b"200"], [])  # the first may be late, too, where we are not given the CPU


def test_a_connection_does_not_live_for_ever() -> None:
    with serving(limits={"connection_seconds": -1.0}) as server:
        assert b"Connection: close" in say(server, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")


def test_slow_clients_that_hold_every_place_make_room_for_one_who_asks() -> None:
    with serving(limits={"connections": 8, "eviction_seconds": 0.0}) as server, contextlib.ExitStack() as slow:
        for _ in range(8):
            slow.enter_context(connect(server)).sendall(b"GET /metrics HT")
        until(lambda: server.statistics().accepted == 8)
        assert all(is_served(server) for _ in range(20))
        assert server.statistics().refused["evicted"] >= 1


def test_clients_that_do_not_read_make_room_for_one_who_does() -> None:
    large = bytes(32 << 20)
    limits = {"connections": 4, "eviction_writing_seconds": 0.0}
    with serving(lambda accept: (large, METRICS_TYPE), limits=limits) as server, contextlib.ExitStack() as slow:
        for _ in range(4):
            slow.enter_context(connect(server)).sendall(SCRAPE)
        until(lambda: [readers for _, readers in list(server._answers.outgoing._held.values())] == [4])
        until(lambda: get(server, "/healthz").status == 200)
        assert server.statistics().refused["evicted"] >= 1


def test_a_head_request_before_a_broken_one_does_not_take_its_words() -> None:
    with serving() as server:
        answer = say(server, b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\nbroken\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nnot an HTTP request line\n")


def test_one_too_many_is_told_so_at_once() -> None:
    with serving(limits={"connections": 4}) as server, contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(connect(server))
        until(lambda: server.statistics().connections == 4)
        answer = say(server, b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in answer
        held.close()
        until(lambda: idle(server))
        assert is_served(server)


def test_one_address_cannot_take_all_places() -> None:
    with serving(limits={"connections": 64, "connections_per_peer": 4}) as server, contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(connect(server))
        until(lambda: server.statistics().connections == 4)
        assert say(server, SCRAPE).startswith(b"HTTP/1.1 503 ")
        other = ("127.0.0.2", 0)
        with socket.create_connection(("127.0.0.1", port(server)), PATIENCE, source_address=other) as connection:
            connection.sendall(SCRAPE)
            assert everything(connection).startswith(b"HTTP/1.1 200 ")


def test_two_hundred_at_once_are_all_answered_by_few_threads() -> None:
    before = threading.active_count()
    everybody = threading.Barrier(201)

    def scrape(server: Server) -> bytes:
        with connect(server) as connection:
            everybody.wait(PATIENCE)
            with contextlib.suppress(ConnectionError):
                connection.sendall(SCRAPE)
            return everything(connection)

    with serving() as server, ThreadPoolExecutor(200) as pool:
        answers = [pool.submit(scrape, server) for _ in range(200)]
        until(lambda: threading.active_count() >= before + 200)
        everybody.wait(PATIENCE)
        statuses = [answer.result().split(b" ", 2)[1:2] for answer in answers]
        own = [thread.name for thread in threading.enumerate() if thread.name.startswith("gomem-web")]
        assert set(map(tuple, statuses)) <= {(b"200",), (b"503",), ()}
        assert statuses.count([b"200"]) >= 32
        assert len(own) <= 5
        until(lambda: idle(server))
        assert is_served(server)


def test_a_client_that_has_no_more_to_say_is_answered() -> None:
    with serving() as server, connect(server) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_reads_nothing_holds_one_place_and_no_copy() -> None:
    large = bytes(32 << 20)
    with serving(lambda accept: (large, METRICS_TYPE), limits={"write_seconds": 0.3}) as server:
        with contextlib.ExitStack() as held:
            for _ in range(5):
                held.enter_context(connect(server)).sendall(SCRAPE)
            until(lambda: server.statistics().refused.get("slow", 0) == 5)
            assert get(server, "/healthz").status == 200
        until(lambda: idle(server))


def test_different_large_answers_wait_for_readers_within_a_bound() -> None:
    sizes = iter(range(1000))

    def render(accept: str) -> tuple[bytes, str]:
        return bytes((8 << 20) + next(sizes)), METRICS_TYPE

    with serving(render, limits={"waiting_bytes": 20 << 20}) as server, contextlib.ExitStack() as held:
        for count in range(2):
            held.enter_context(connect(server)).sendall(SCRAPE)
            until(lambda now=count: server._answers.outgoing.bytes >= (8 << 20) * (now + 1))  # type: ignore[misc]
        assert say(server, SCRAPE).startswith(b"HTTP/1.1 503 ")
        held.close()
        until(lambda: idle(server))
        assert server._answers.outgoing.bytes == 0
        assert is_served(server)


def test_a_renderer_that_hangs_costs_its_own_clients_an_answer_and_health_none() -> None:
    release = threading.Event()

    def hangs(accept: str) -> tuple[bytes, str]:
        release.wait(PATIENCE)
        return b"", METRICS_TYPE

    with serving(hangs, limits={"answer_seconds": 0.1}) as server:
        try:
            assert [get(server, "/metrics").status for _ in range(6)] == [503] * 6
            assert get(server, "/healthz").status == 200
        finally:
            release.set()


def test_clients_that_leave_in_the_middle_leave_nothing() -> None:
    large = bytes(8 << 20)
    with serving(lambda accept: (large, METRICS_TYPE)) as server:
        for raw in (b"", b"GET /met", SCRAPE, SCRAPE * 5):
            for reset in (False, True):
                with connect(server) as connection:
                    if reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.sendall(raw)
        until(lambda: server.statistics().accepted == 8 and idle(server))
        assert server._answers.outgoing.bytes == 0
        assert is_served(server)


def test_an_address_that_connects_without_end_is_hung_up_on_and_others_are_not() -> None:
    with serving(limits={"accepts_burst": 5.0, "accepts_rate": 0.001}) as server:
        answers = [say(server, SCRAPE) for _ in range(20)]
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 5 + [b""] * 15
        with socket.create_connection(("127.0.0.1", port(server)), PATIENCE, source_address=("127.0.0.2", 0)) as other:
            other.sendall(SCRAPE)
            assert everything(other).startswith(b"HTTP/1.1 200 ")
        assert server.statistics().refused == {"connection_rate": 15}


def test_a_connection_that_asks_without_end_is_slowed_down_and_others_are_not() -> None:
    with serving(limits={"requests_burst": 5.0, "requests_rate": 0.001}) as server, connect(server) as greedy:
        greedy.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        until(lambda: server.statistics().requests.get(("healthz", 200), 0) == 6)
        assert is_served(server)
        assert server.statistics().requests["healthz", 200] == 6


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"414"),
        (b"GET /" + b"a" * 1_000_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1_000_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000, b"431"),
        (b"\x16\x03\x01\x02\x00" + bytes(60) + b"\r\n\r\n", b"400"),
        (bytes(100_000), b"431"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
    ],
)
def test_huge_and_foreign_requests_are_refused_with_a_status(raw: bytes, status: bytes) -> None:
    with serving() as server:
        assert say(server, raw).split(b" ", 2)[1] == status
        assert server.statistics().refused == {"malformed": 1}
        assert is_served(server)


def test_any_bytes_do_no_harm() -> None:
    with serving(limits={"head_seconds": 0.05}) as server:

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.binary(max_size=200), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", SCRAPE, b"\r\n\r\n"]))
        def throw(raw: bytes, first: bytes) -> None:
            answer = say(server, first + raw)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")

        throw()
        until(lambda: idle(server))
        assert server.statistics().refused.keys() <= {"malformed", "connection", "slow"}
        until(lambda: is_served(server))  # in its few milliseconds


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9469", "[::1]:9469", "gomem.localhost", socket.gethostname()])
def test_a_browser_on_this_machine_is_served(host: str) -> None:
    with serving() as server:
        assert get(server, "/", Host=host, User_Agent="Mozilla/5.0", Sec_Fetch_Site="none").status == 200


def test_a_browser_that_a_foreign_name_led_to_loopback_is_not_served() -> None:
    with serving() as server:
        assert get(server, "/metrics", Host="evil.example:9469", User_Agent="Mozilla/5.0 (X11)").status == 421
        assert get(server, "/metrics", Host="evil.example:9469", Sec_Fetch_Site="same-origin").status == 421
        # Proxies in the same pod pass on the name that they were asked by.
        assert get(server, "/metrics", Host="evil.example", User_Agent="Prometheus/3.1.0").status == 200


def test_stopping_ends_everything_that_is_open() -> None:
    with contextlib.ExitStack() as held:
        with serving() as server:
            for raw in (b"", b"GET /m", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"):
                connection = held.enter_context(connect(server))
                connection.sendall(raw)
            until(lambda: server.statistics().accepted == 3)
            where = port(server)
        until(lambda: server.statistics().connections == 0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", where), PATIENCE)


def test_a_server_that_is_stopped_again_stays_stopped() -> None:
    with serving() as server:
        assert get(server, "/healthz").status == 200
        where = port(server)
        for _ in range(2):
            server.stop()
            assert server.addresses == ()
            assert is_refused(where)
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("gomem-web")])


@pytest.mark.parametrize("bound", [False, True])
def test_a_server_that_is_stopped_before_it_began_lets_go_of_its_port(bound: bool) -> None:
    server = Server([parse_address("127.0.0.1:0")], lambda: None, lambda accept: (b"", ""))
    if bound:
        server.bind()
        where = port(server)
    server.stop()
    assert server.addresses == ()
    if bound:
        assert is_refused(where)


def is_refused(where: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", where), PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False
