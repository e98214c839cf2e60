"""OTLP collectors that stall, lead elsewhere, never end or show another's certificate: a push fails and says why."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from gomem.exporters.otlp.sender import HttpSender
from gomem.exporters.prometheus import MetricOptions
from tests.support.samples.fleet import all_samples

_OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def collector(
    answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Serve on a port; gives it, and the first bytes of each request that came."""
    asked: list[bytes] = []
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection, tls.wrap_socket(connection, server_side=True) if tls else connection as spoken:
                    spoken.settimeout(20)
                    asked.append(spoken.recv(1 << 20))
                    answer(spoken)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port, asked
        finally:
            over.set()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as last:
                last.close()
            thread.join(30)
            assert not thread.is_alive()


def pushed(url: str, certificate: str | None = None) -> str | None:
    sender = HttpSender(url, 1.0, {"api-key": "secret"}, certificate, False, MetricOptions())
    try:
        return sender.send(all_samples())
    finally:
        sender.close()


def without_end(connection: socket.socket) -> None:
    connection.sendall(_OK + b"Content-Length: 1099511627776\r\n\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(bytes(1 << 20))


def until_it_hangs_up(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(1 << 20):
            pass


def test_an_answer_without_end_is_not_read() -> None:
    with collector(without_end) as (port, asked):
        assert pushed(f"http://127.0.0.1:{port}/v1/metrics") is None
    assert asked


def test_a_collector_that_says_nothing_is_given_up() -> None:
    with collector(until_it_hangs_up) as (port, _):
        assert pushed(f"http://127.0.0.1:{port}/v1/metrics")


@pytest.mark.parametrize("status", [302, 307, 308])
@pytest.mark.parametrize("where", ["http", "file"])
def test_nobody_is_followed_elsewhere(status: int, where: str) -> None:
    with collector(lambda connection: connection.sendall(_OK + b"Content-Length: 0\r\n\r\n")) as (other, led):
        target = f"http://127.0.0.1:{other}/" if where == "http" else "file:///etc/passwd"
        head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
        with collector(lambda connection: connection.sendall(head)) as (port, asked):
            assert pushed(f"http://127.0.0.1:{port}/v1/metrics")
        assert asked
        assert not led


@pytest.mark.parametrize("fault", ["unknown authority", "another name"])
def test_a_certificate_that_does_not_fit_gets_no_figures(fault: str, tmp_path: Path) -> None:
    ca, strange = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf = strange.issue_cert("127.0.0.1") if fault == "unknown authority" else ca.issue_cert("other.example")
    leaf.configure_cert(context)
    with collector(without_end, context) as (port, asked):
        assert pushed(f"https://127.0.0.1:{port}/v1/metrics", str(tmp_path / "ca.crt"))
    assert not any(asked)
