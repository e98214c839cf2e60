"""The server over real sockets: what it answers."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gomem.exporters.http.addresses import ListenError, parse_address
from gomem.exporters.http.server import Server
from gomem.exporters.json.schema import validate
from tests.support.samples.views import several, view
from tests.support.web.clients import (
    METRICS,
    METRICS_TYPE,
    PATIENCE,
    body,
    connect,
    everything,
    get,
    metrics,
    port,
    request,
    serving,
)

ROOT = Path(__file__).parents[3]


def test_metrics_are_rendered_for_what_the_scraper_accepts() -> None:
    asked = []

    def render(accept: str) -> tuple[bytes, str]:
        asked.append(accept)
        return b"# EOF\n", "application/openmetrics-text; version=1.0.0; charset=utf-8"

    with serving(render) as server:
        response = get(server, "/metrics", Accept="application/openmetrics-text")
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body(response) == b"# EOF\n"
    assert asked == ["application/openmetrics-text"]


def test_a_large_answer_is_compressed_for_those_who_ask() -> None:
    large = METRICS * 1000
    with serving(lambda accept: (large, METRICS_TYPE)) as server:
        plain, packed = get(server, "/metrics"), get(server, "/metrics", Accept_Encoding="gzip")
    assert plain.headers["Content-Encoding"] is None
    assert body(plain) == large
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(body(packed)) < len(large) / 10
    assert gzip.decompress(body(packed)) == large


def test_metrics_can_be_asked_for_by_name() -> None:
    with serving() as server:
        assert body(get(server, "/metrics?name[]=b_total")) == METRICS[METRICS.index(b"# HELP b") :]


def test_every_address_answers() -> None:
    expected = {
        "/": 200, "/metrics": 200, "/healthz": 200, "/readyz": 200, "/targets/11": 200, "/targets/11/report.json": 200,
        "/nothing": 404, "/targets/99": 404, "/targets/0": 404, "/targets/11/": 404, "/targets/99/report.json": 404,
        "/targets/55/report.json": 404,
    }  # fmt: skip
    with serving(allow_reports=True) as server:
        found = {path: get(server, path).status for path in expected}
    assert found == expected


def test_the_report_is_the_one_of_the_contract() -> None:
    with serving(allow_reports=True) as server:
        response = get(server, "/targets/22/report.json")
    assert response.headers["Content-Type"] == "application/json"
    report = json.loads(body(response))
    validate(report)
    assert report["process"]["pid"] == 22


def test_a_report_that_is_not_enabled_says_how_to_enable_it() -> None:
    with serving() as server:
        response = get(server, "/targets/22/report.json")
    assert response.status == 404
    assert b"--reports" in body(response)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_get_and_head(method: str) -> None:
    with serving() as server:
        response = request(server, method, "/metrics")
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


def test_head_has_the_headers_of_get_and_no_body() -> None:
    with serving() as server:
        full, empty = get(server, "/metrics"), request(server, "HEAD", "/metrics")
    assert body(empty) == b""
    assert {k: v for k, v in empty.headers.items() if k != "Date"} == {
        k: v for k, v in full.headers.items() if k != "Date"
    }


def test_a_connection_is_kept_for_the_next_scrape_and_closed_when_asked() -> None:
    with serving() as server, connect(server) as connection:
        for _ in range(3):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"HTTP/1.1 200 OK" in connection.recv(65536)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert everything(connection).endswith(b"alive\n")
        assert server.statistics().accepted == 1
        assert server.statistics().requests["healthz", 200] == 4


def test_requests_sent_at_once_are_answered_in_their_order() -> None:
    with serving() as server, connect(server) as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        statuses = [line for line in everything(connection).split(b"\r\n") if b"HTTP/1.1" in line]
    assert [b"200" in line for line in statuses] == [True, False, True]


def test_a_body_is_never_read_and_ends_the_connection() -> None:
    with serving() as server, connect(server) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /metrics HTTP/1.1\r\n")
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_nothing_to_show_yet_is_alive_but_not_ready() -> None:
    with serving(view=lambda: None) as server:
        assert get(server, "/healthz").status == 200
        assert get(server, "/readyz").status == 503
        assert get(server, "/").status == 200


def test_a_scheduler_that_stands_still_is_not_alive() -> None:
    with serving(view=lambda: view(age=1000.0)) as server:
        response = get(server, "/healthz")
    assert response.status == 503
    assert b"the last round over the targets was" in body(response)


def test_a_broken_renderer_costs_one_answer_and_tells_the_client_nothing() -> None:
    told: list[str] = []

    def broken(accept: str) -> tuple[bytes, str]:
        raise ValueError("secret detail")

    with serving(broken, log=told.append) as server:
        response = get(server, "/metrics")
        assert get(server, "/healthz").status == 200
    assert response.status == 500
    assert b"secret" not in body(response)
    assert "secret detail" in told[0]


def test_a_port_that_is_taken_is_said_with_a_way_out() -> None:
    with serving() as server:
        second = Server([parse_address(f"127.0.0.1:{port(server)}")], several, metrics)
        with pytest.raises(ListenError) as refused:
            second.start()
        second.stop()
    assert "address already in use" in refused.value.what
    assert "ss -ltnp" in refused.value.fix
    assert refused.value.exit_code == 1


def test_all_addresses_of_the_machine_in_both_families() -> None:
    with serving(listen=":0") as server:
        assert get(server, "/healthz").status == 200  # over IPv4


def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "gomem.sock"
    with serving(listen=f"unix:{path}"):
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert everything(connection).endswith(b"alive\n")
    assert not path.exists()


SERVE_PASSED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
from gomem.exporters.http.addresses import parse_address
from gomem.exporters.http.server import Server
from tests.support.web.clients import metrics
with Server([parse_address("systemd:")], lambda: None, metrics) as server:
    print(server.addresses[0], flush=True)
    sys.stdin.read()
"""


def test_sockets_that_systemd_opened_are_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE_PASSED, str(listener.fileno())], pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        where = listener.getsockname()
    try:
        assert process.stdout is not None
        assert process.stdout.readline().decode() == f"http://127.0.0.1:{where[1]}\n"
        with socket.create_connection(where, PATIENCE) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert b"alive" in everything(connection)
    finally:
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_the_file_of_a_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gomem.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with serving(listen=f"unix:{path}"), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "important"
    path.write_text("mine")
    server = Server([parse_address(f"unix:{path}")], several, metrics)
    with pytest.raises(ListenError):
        server.start()
    server.stop()
    assert path.read_text() == "mine"
