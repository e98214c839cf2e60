"""Servers on a port of the system's choice, and clients that are ruder than any library would be."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from gomem.exporters.http.addresses import parse_address
from gomem.exporters.http.limits import Limits
from gomem.exporters.http.server import Server
from gomem.exporters.http.webconfig import WebConfig
from gomem.tracer.fleet.view import FleetView
from tests.support.samples.views import several

METRICS = b"# HELP a_bytes A.\n# TYPE a_bytes gauge\na_bytes 1\n# HELP b_total B.\n# TYPE b_total counter\nb_total 2\n"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Patience where a broken server would never answer: CI may pause for long.
PATIENCE = 60.0


def metrics(accept: str) -> tuple[bytes, str]:
    """Render the same figures for everybody."""
    return METRICS, METRICS_TYPE


@contextlib.contextmanager
def serving(
    render: Callable[[str], tuple[bytes, str]] = metrics,
    view: Callable[[], FleetView | None] = several,
    config: WebConfig | None = None,
    listen: str = "127.0.0.1:0",
    **other: object,
) -> Iterator[Server]:
    """Run a server. Its deadlines are too long to be met by accident; tests of one shorten that one."""
    patient = Limits(handshake_seconds=PATIENCE, head_seconds=PATIENCE, idle_seconds=PATIENCE,
                     answer_seconds=PATIENCE, write_seconds=PATIENCE, eviction_seconds=PATIENCE,
                     eviction_writing_seconds=PATIENCE)  # fmt: skip
    limits = replace(patient, **other.pop("limits", {}))  # type: ignore[arg-type]
    server = Server([parse_address(listen)], view, render, config, limits=limits, **other)  # type: ignore[arg-type]
    with server:
        yield server


def port(server: Server) -> int:
    """Return the port that the system chose."""
    return int(server.addresses[0].rpartition(":")[2])


def connect(server: Server) -> socket.socket:
    """Return a connection without TLS."""
    return socket.create_connection(("127.0.0.1", port(server)), PATIENCE)


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the server hangs up."""
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def say(server: Server, raw: bytes) -> bytes:
    """Send bytes and return the whole answer; the server must hang up, or the bytes ask it to."""
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(raw)
        return everything(connection)


def get(server: Server, path: str, tls: ssl.SSLContext | None = None, **headers: str) -> http.client.HTTPResponse:
    """GET a path on a connection of its own; the body was read into `.body`."""
    return request(server, "GET", path, tls, **headers)


def request(
    server: Server, method: str, path: str, tls: ssl.SSLContext | None = None, **headers: str
) -> http.client.HTTPResponse:
    """Send a request as http.client does; `headers` with _ for the hyphen."""
    where = ("127.0.0.1", port(server))
    client = (
        http.client.HTTPSConnection(*where, timeout=PATIENCE, context=tls)
        if tls is not None
        else http.client.HTTPConnection(*where, timeout=PATIENCE)
    )
    try:
        client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = client.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        return response
    finally:
        client.close()


def body(response: http.client.HTTPResponse) -> bytes:
    """Return the body that `request` has read."""
    return bytes(response.body)  # type: ignore[attr-defined]


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so; fail after long."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
