"""TLS, client certificates and passwords, with certificates of a real CA, also while they change."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import time
from pathlib import Path

import bcrypt
import pytest
import trustme

from gomem.exporters.http.server import Server
from gomem.exporters.http.webconfig import load_web_config
from gomem.exporters.http.yaml_sections import WebConfigError
from tests.support.web.authority import MUTUAL, Authority
from tests.support.web.clients import body, connect, everything, get, port, serving, until

WRONG_HANDSHAKE = (ssl.SSLError, ConnectionError, OSError)
ALICE = "Basic " + base64.b64encode(b"alice:wonder").decode()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def authority(ca: trustme.CA, tmp_path: Path) -> Authority:
    made = Authority(ca, tmp_path)
    made.write_server()
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    return made


def presented(server: Server, client: ssl.SSLContext) -> bytes:
    """Return the certificate that the server shows now."""
    with connect(server) as connection, client.wrap_socket(connection, server_hostname="127.0.0.1") as secure:
        found = secure.getpeercert(binary_form=True)
        assert found is not None
        return found


def der(leaf: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


def is_refused(server: Server, client: ssl.SSLContext) -> bool:
    """Whether a client gets no answer; in TLS 1.3 it learns that only after its own side of the handshake."""
    try:
        return get(server, "/metrics", client).status != 200
    except WRONG_HANDSHAKE:
        return True


def test_https_with_a_certificate_that_clients_can_verify(authority: Authority) -> None:
    with serving(config=load_web_config(authority.configuration())) as server:
        assert server.addresses[0].startswith("https://")
        assert get(server, "/metrics", authority.client()).status == 200
        assert get(server, "/healthz", authority.client()).status == 200


def test_a_certificate_given_inline(authority: Authority) -> None:
    leaf = authority.ca.issue_cert("127.0.0.1")
    path = authority.directory / "inline.yml"
    cert, key = (
        blob.bytes().decode().replace("\n", "\n    ") for blob in (leaf.cert_chain_pems[0], leaf.private_key_pem)
    )
    path.write_text(f"tls_server_config:\n  cert: |\n    {cert}\n  key: |\n    {key}\n")
    with serving(config=load_web_config(path)) as server:
        assert presented(server, authority.client()) == der(leaf)


def test_a_large_answer_arrives_whole(authority: Authority) -> None:
    large = os.urandom(1 << 20) * 20
    with serving(lambda accept: (large, "text/plain"), config=load_web_config(authority.configuration())) as server:
        assert body(get(server, "/metrics", authority.client())) == large


def test_a_slow_reader_gets_the_last_piece_too(authority: Authority) -> None:
    large = os.urandom(3 << 20)
    with (
        serving(lambda accept: (large, "text/plain"), config=load_web_config(authority.configuration())) as server,
        connect(server) as connection,
        authority.client().wrap_socket(connection, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        received = b""
        while piece := secure.recv(1 << 20):
            if len(received) < 1 << 16 <= len(received) + len(piece):
                time.sleep(1.5)  # longer than any grace at the end of a connection
            received += piece
        assert received.endswith(large)


def test_versions_below_the_least_are_refused(authority: Authority) -> None:
    old = authority.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(config=load_web_config(authority.configuration("  min_version: TLS13"))) as server:
        assert is_refused(server, old)
        assert not is_refused(server, authority.client())
    with serving(config=load_web_config(authority.configuration("  max_version: TLS12"))) as server:
        assert not is_refused(server, old)


def test_only_the_chosen_suites_are_spoken(authority: Authority) -> None:
    suites = "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"
    client = authority.client()
    with serving(config=load_web_config(authority.configuration("  max_version: TLS12", suites))) as server:
        with connect(server) as connection, client.wrap_socket(connection, server_hostname="127.0.0.1") as secure:
            assert secure.cipher() == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        assert is_refused(server, client)


def test_a_client_needs_a_certificate_of_the_right_ca(authority: Authority) -> None:
    with serving(config=load_web_config(authority.configuration(*MUTUAL))) as server:
        assert not is_refused(server, authority.client("prometheus.example"))
        assert is_refused(server, authority.client())
        assert is_refused(server, authority.client("prometheus.example", ca=trustme.CA()))
        until(lambda: server.statistics().refused.get("tls") == 2)
        until(lambda: server.statistics().requests == {("metrics", 200): 1})


def test_only_certificates_with_an_allowed_name_are_let_in(authority: Authority) -> None:
    names = "  client_allowed_sans: [prometheus.example, 'fd00::7', scraper@example.org]"
    with serving(config=load_web_config(authority.configuration(*MUTUAL, names))) as server:
        for name in ("prometheus.example", "fd00::7", "scraper@example.org"):
            assert not is_refused(server, authority.client("other.example", name)), name
        for name in ("other.example", "fd00::8", "prometheus.example.org"):
            assert is_refused(server, authority.client(name)), name


def test_an_optional_client_certificate_is_verified_when_given(authority: Authority) -> None:
    lines = ("  client_ca_file: ca.crt", "  client_auth_type: VerifyClientCertIfGiven")
    with serving(config=load_web_config(authority.configuration(*lines))) as server:
        assert not is_refused(server, authority.client())
        assert not is_refused(server, authority.client("a.example"))
        assert is_refused(server, authority.client("a.example", ca=trustme.CA()))


def test_a_renewed_certificate_is_shown_without_a_restart(authority: Authority) -> None:
    client = authority.client()
    with serving(config=load_web_config(authority.configuration())) as server:
        first = presented(server, client)
        renewed = der(authority.write_server())
        assert renewed != first
        until(lambda: presented(server, client) == renewed)
        assert get(server, "/metrics", client).status == 200


def test_a_certificate_that_does_not_fit_its_key_leaves_the_old_one_in_force(authority: Authority) -> None:
    told: list[str] = []
    client = authority.client()
    with serving(config=load_web_config(authority.configuration()), log=told.append) as server:
        first = presented(server, client)
        key = (authority.directory / "server.key").read_bytes()
        renewed = der(authority.write_server())
        good_key = (authority.directory / "server.key").read_bytes()
        (authority.directory / "server.key").write_bytes(key)
        until(lambda: presented(server, client) in (first, renewed) and server.statistics().reload_errors > 0)
        assert presented(server, client) in (first, renewed)
        assert "stays in force" in told[0]
        (authority.directory / "server.key").write_bytes(good_key)
        until(lambda: presented(server, client) == renewed)


def test_a_password_and_its_change(authority: Authority) -> None:
    def users(password: bytes) -> str:
        return "basic_auth_users:\n  alice: " + bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()

    client = authority.client()
    path = authority.configuration(users(b"wonder"))
    with serving(config=load_web_config(path)) as server:
        assert get(server, "/metrics", client, Authorization=ALICE).status == 200
        nobody = get(server, "/metrics", client)
        assert nobody.status == 401
        assert nobody.headers["WWW-Authenticate"] == 'Basic realm="gomem"'
        assert get(server, "/", client, Authorization=ALICE[:-4] + "AAAA").status == 401
        assert get(server, "/nothing", client).status == 401
        # Kubelets have no password; they learn nothing but whether we live.
        assert get(server, "/healthz", client).status == 200
        assert get(server, "/readyz", client).status == 200
        authority.configuration(users(b"changed"))
        until(lambda: get(server, "/metrics", client, Authorization=ALICE).status == 401)


def test_a_broken_edit_of_the_configuration_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "web.yml"
    path.write_text("basic_auth_users:\n  alice: " + bcrypt.hashpw(b"wonder", bcrypt.gensalt(4)).decode())
    with serving(config=load_web_config(path), log=told.append) as server:
        path.write_text("basic_auth_usrs: {}")
        until(lambda: get(server, "/metrics").status == 401 and server.statistics().reload_errors > 0)
        assert get(server, "/metrics", Authorization=ALICE).status == 200
        assert "did you mean" in told[0] or "unknown key" in told[0]


def test_tls_is_not_turned_off_by_an_edit(authority: Authority) -> None:
    with serving(config=load_web_config(authority.configuration())) as server:
        (authority.directory / "web.yml").write_text("")
        client = authority.client()
        until(lambda: get(server, "/healthz", client).status == 200 and server.statistics().reload_errors > 0)


def test_configured_headers_and_rate(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text(
        "http_server_config:\n  headers:\n    X-Frame-Options: sameorigin\n    Strict-Transport-Security: max-age=1\n"
        "rate_limit:\n  interval: 1h\n  burst: 3\n"
    )
    with serving(config=load_web_config(path)) as server:
        answers = [get(server, "/metrics") for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert get(server, "/healthz").status == 200
    assert answers[0].headers.get_all("X-Frame-Options") == ["sameorigin"]
    assert answers[0].headers["Strict-Transport-Security"] == "max-age=1"


@pytest.mark.parametrize(
    "raw", [b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", bytes(5000), b"\x16\x03\x01\xff\xff" + b"\xff" * 5000, b"\x80"]
)
def test_what_is_no_tls_ends_its_own_connection(authority: Authority, raw: bytes) -> None:
    with serving(config=load_web_config(authority.configuration())) as server:
        with connect(server) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
            assert b"HTTP" not in everything(connection)
        until(lambda: server.statistics().refused == {"tls": 1} and server.statistics().connections == 0)
        assert get(server, "/metrics", authority.client()).status == 200


def test_a_handshake_that_stalls_holds_up_nobody_and_ends(authority: Authority) -> None:
    config = load_web_config(authority.configuration())
    with serving(config=config) as server, contextlib.ExitStack() as stalled:
        for _ in range(20):
            stalled.enter_context(connect(server)).sendall(b"\x16\x03\x01\x02\x00")
        until(lambda: server.statistics().accepted == 20)
        assert get(server, "/metrics", authority.client()).status == 200
    with serving(config=config, limits={"handshake_seconds": 0.2}) as server:
        with connect(server) as connection:
            connection.sendall(b"\x16\x03\x01\x02\x00")
            assert everything(connection) == b""
        until(lambda: server.statistics().refused == {"tls": 1})


def test_certificates_that_do_not_belong_together_are_refused_at_the_start(authority: Authority) -> None:
    authority.write_server("other")
    os.replace(authority.directory / "other.key", authority.directory / "server.key")
    with pytest.raises(WebConfigError) as refused:
        load_web_config(authority.configuration())
    assert str(authority.directory / "server.crt") in refused.value.what
    assert "belong together" in refused.value.fix


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(authority: Authority) -> None:
    (authority.directory / "server.key").write_text(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
        + hashlib.md5(b"").hexdigest().upper()
        + "\n\n"
        + base64.b64encode(bytes(64)).decode()
        + "\n-----END RSA PRIVATE KEY-----\n"
    )
    with pytest.raises(WebConfigError, match="encrypted"):
        load_web_config(authority.configuration())


def test_a_client_ca_that_is_none_is_refused(authority: Authority) -> None:
    (authority.directory / "ca.crt").write_text("nothing")
    with pytest.raises(WebConfigError, match="client CA"):
        load_web_config(authority.configuration(*MUTUAL))


def test_too_many_are_told_so_when_their_handshake_is_over(authority: Authority) -> None:
    limits = {"connections": 2}
    client = authority.client()
    with serving(config=load_web_config(authority.configuration()), limits=limits) as server:
        with contextlib.ExitStack() as held:
            for _ in range(2):
                connection = held.enter_context(connect(server))
                held.enter_context(client.wrap_socket(connection, server_hostname="127.0.0.1"))
            until(lambda: server.statistics().connections == 2)
            assert get(server, "/metrics", client).status == 503
        until(lambda: server.statistics().connections == 0)
        assert get(server, "/metrics", client).status == 200


@pytest.mark.parametrize("half", [b"", b"\x16\x03\x01\x02\x00", b"whole"])
@pytest.mark.parametrize("mutual", [False, True])
def test_who_stalls_from_two_addresses_keeps_no_honest_scraper_out(
    authority: Authority, half: bytes, mutual: bool
) -> None:
    lines, names = (MUTUAL, ("scraper.example",)) if mutual else ((), ())
    config = load_web_config(authority.configuration(*lines))
    client = authority.client(*names)
    with serving(config=config) as server, contextlib.ExitStack() as stalled:
        for at in range(120):
            where = "127.0.0.1", port(server)
            source = (f"127.0.0.{2 + at % 2}", 0)
            connection = stalled.enter_context(socket.create_connection(where, 60, source_address=source))
            with contextlib.suppress(OSError):
                if half == b"whole":
                    stalled.enter_context(client.wrap_socket(connection, server_hostname="127.0.0.1"))
                else:
                    connection.sendall(half)
        until(lambda: server.statistics().accepted >= 120)
        assert [get(server, "/metrics", client).status for _ in range(20)] == [200] * 20
        assert server.statistics().refused["evicted"] > 0
