"""Debian's Prometheus as the client, and its promtool as the judge of web configurations."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
import trustme

from gomem.exporters.http.server import Server
from gomem.exporters.http.webconfig import load_web_config
from gomem.tracer.errors import GomemError
from tests.support.debian import prometheus
from tests.support.web.authority import MUTUAL, Authority
from tests.support.web.clients import port, serving, until

HASH = bcrypt.hashpw(b"wonder", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users:\n  prometheus: {HASH}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(trustme.CA(key_type=trustme.KeyType.ECDSA), tmp_path)
    made.write_server()
    made.ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    leaf = made.ca.issue_cert("prometheus.example")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "client.crt")
    leaf.private_key_pem.write_to_path(tmp_path / "client.key")
    return made


@contextmanager
def scraping(server: Server, directory: Path, password: str) -> Iterator[None]:
    """Run a Prometheus that scrapes the server every 500 ms with a client certificate and a password."""
    job = {
        "job_name": "gomem", "scheme": "https", "static_configs": [{"targets": [f"127.0.0.1:{port(server)}"]}],
        "tls_config": {"ca_file": "ca.crt", "cert_file": "client.crt", "key_file": "client.key"},
        "basic_auth": {"username": "prometheus", "password": password},
    }  # fmt: skip
    config = directory / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "500ms"}, "scrape_configs": [job]}))
    words = [str(prometheus()), f"--config.file={config}", f"--storage.tsdb.path={directory}/tsdb",
             "--web.listen-address=127.0.0.1:0"]  # fmt: skip
    with open(directory / "prometheus.log", "w") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ)
    try:
        yield
        assert process.poll() is None, (directory / "prometheus.log").read_text()[-2000:]
    finally:
        process.kill()
        process.wait()


def test_prometheus_scrapes_with_a_client_certificate_and_a_password(authority: Authority) -> None:
    names = "  client_allowed_sans: [prometheus.example]"
    config = load_web_config(authority.configuration(*MUTUAL, names, USERS))
    with serving(config=config) as server, scraping(server, authority.directory, "wonder"):
        until(lambda: server.statistics().requests.get(("metrics", 200), 0) >= 3)
        assert server.statistics().requests.keys() == {("metrics", 200)}


def test_prometheus_with_a_wrong_password_gets_nothing(authority: Authority) -> None:
    config = load_web_config(authority.configuration(*MUTUAL, USERS))
    with serving(config=config) as server, scraping(server, authority.directory, "guess"):
        until(lambda: server.statistics().requests.get(("metrics", 401), 0) >= 3)
        assert ("metrics", 200) not in server.statistics().requests


def accepted_by_promtool(path: Path) -> bool:
    words = [str(prometheus().with_name("promtool")), "check", "web-config", str(path)]
    return subprocess.run(words, capture_output=True, check=False, timeout=60, cwd=path.parent).returncode == 0


def accepted_by_us(path: Path) -> bool:
    try:
        load_web_config(path)
    except GomemError:
        return False
    return True


@pytest.mark.parametrize(
    ("lines", "good"),
    [
        ((), True),
        (MUTUAL, True),
        ((*MUTUAL, "  min_version: TLS12", "  max_version: TLS13"), True),
        (("  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]",), True),
        (("  curve_preferences: [CurveP256]", "  prefer_server_cipher_suites: false"), True),
        (("http_server_config:", "  http2: false", "  headers:", "    X-Frame-Options: deny"), True),
        ((USERS,), True),
        (("  cert_fil: x",), False),
        (("  key_file: server.key",), False),
        (("  client_auth_type: Perhaps",), False),
        (("  client_ca_file: ca.crt",), False),
        (("  min_version: TLS99",), False),
        (("  cipher_suites: [TLS_NONSENSE]",), False),
        (("http_server_config:", "  headers:", "    Server: x"), False),
        (("http_server_config:", "  headers:", "    X-Frame-Options: perhaps"), False),
        (("basic_auth_users:", "  alice: hunter2"), False),
        (("basic_auth_users: [alice]",), False),
        (("more: x",), False),
    ],
)
def test_promtool_and_we_agree_on_what_is_a_web_configuration(
    authority: Authority, lines: tuple[str, ...], good: bool
) -> None:
    path = authority.configuration(*lines)
    assert (accepted_by_promtool(path), accepted_by_us(path)) == (good, good)
