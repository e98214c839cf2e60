"""The web configuration file: what is understood, and what each mistake is answered with."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.exporters.http.webconfig import RateLimit, WebConfig, load_web_config, parse_web_config
from gomem.exporters.http.yaml_sections import WebConfigError
from gomem.tracer.errors import GomemError

FILE = Path("/etc/gomem/web.yml")
HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"


def parse(text: str) -> WebConfig:
    return parse_web_config(text, FILE)


def refusal(text: str) -> str:
    with pytest.raises(WebConfigError) as refused:
        parse(text)
    assert str(FILE) in refused.value.what
    assert refused.value.fix
    return str(refused.value)


@pytest.mark.parametrize("text", ["", "---", "# nothing\n", "tls_server_config:\n", "basic_auth_users: {}\n"])
def test_an_empty_configuration_asks_for_nothing(text: str) -> None:
    config = parse(text)
    assert config == WebConfig(FILE)
    assert not config.encrypted
    assert not config.authenticated


def test_everything_at_once() -> None:
    config = parse(f"""
tls_server_config:
  cert_file: server.crt
  key_file: /run/secrets/server.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus.example.org, 10.0.0.1]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519]
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: sameorigin
basic_auth_users:
  alice: {HASH}
  "404": {HASH}
rate_limit:
  interval: 1s500ms
  burst: 20
""")
    tls = config.tls
    assert tls is not None
    assert config.files() == (
        FILE, FILE.parent / "server.crt", Path("/run/secrets/server.key"), FILE.parent / "ca.crt",
    )  # fmt: skip
    assert tls.client_auth is ssl.CERT_REQUIRED
    assert tls.client_allowed_sans == ("prometheus.example.org", "10.0.0.1")
    assert (tls.min_version, tls.max_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert tls.ciphers == ("ECDHE-RSA-AES128-GCM-SHA256",)
    assert not tls.prefer_server_ciphers
    assert tls.curve == "X25519"
    assert config.users == {"alice": HASH, "404": HASH}
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "sameorigin"}
    assert config.rate_limit == RateLimit(1.5, 20)
    assert config.encrypted
    assert config.authenticated


TLS = "tls_server_config:\n  cert_file: a\n  key_file: b\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tls_server_confg: {}", ("line 1", "tls_server_confg: unknown key", "did you mean tls_server_config?")),
        (TLS + "  cert_flie: x", ("line 4", "tls_server_config.cert_flie", "did you mean cert_file?")),
        ("http_server_config:\n  headers:\n    Server: x", ("http_server_config.headers.Server", "unknown key")),
        (TLS + "  key_file: c", ("line 4", "tls_server_config.key_file: given twice")),
        ("- a\n- b", ("not a mapping",)),
        ("tls_server_config: yes please", ("not a mapping",)),
        ("a: [", ("not YAML",)),
        ("--- 1\n--- 2", ("not YAML",)),
        ("tls_server_config:\n  cert_file: a", ("key_file: missing",)),
        ("tls_server_config:\n  key_file: a", ("cert_file: missing",)),
        (TLS + "  cert: x", ("cert: given together with cert_file",)),
        (TLS + "  cert_file: [x]", ("given twice",)),
        ("tls_server_config:\n  cert_file: [x]\n  key_file: b", ("not a single value",)),
        (TLS + "  min_version: TLS10", ("min_version: unknown value 'TLS10'", "TLS12, TLS13")),
        (TLS + "  min_version: TLS13\n  max_version: TLS12", ("above max_version",)),
        (TLS + "  client_auth_type: RequireAnyClientCert", ("let any certificate in", "RequireAndVerifyClientCert")),
        (TLS + "  client_auth_type: Maybe", ("unknown value 'Maybe'",)),
        (TLS + "  client_auth_type: RequireAndVerifyClientCert", ("needs client_ca_file",)),
        (TLS + "  client_ca_file: x", ("client_auth_type: missing",)),
        (TLS + "  client_allowed_sans: [a]", ("client_allowed_sans: needs client_auth_type",)),
        (TLS + "  client_allowed_sans: a", ("client_allowed_sans",)),
        (
            TLS + "  client_ca_file: x\n  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: []",
            ("lets nobody in",),
        ),
        (TLS + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]", ("unknown suite 'TLS_RSA_WITH_RC4_128_SHA'",)),
        (TLS + "  curve_preferences: [X25519, CurveP256]", ("more than one curve",)),
        (TLS + "  curve_preferences: [X448]", ("unknown curve",)),
        (TLS + "  prefer_server_cipher_suites: perhaps", ("neither true nor false",)),
        ("http_server_config:\n  http2: 7", ("http2: '7' is neither true nor false",)),
        ("http_server_config:\n  headers:\n    X-Frame-Options: x", ("X-Frame-Options: unknown value 'x'", "deny")),
        ('http_server_config:\n  headers:\n    X-XSS-Protection: "a\\r\\nSet-Cookie: b"', ("not printable ASCII",)),
        (f"basic_auth_users:\n  'a:b': {HASH}", ("not a user name",)),
        ("basic_auth_users:\n  alice: $2y$18$" + "a" * 53, ("line 2", "basic_auth_users.alice: bcrypt cost 18")),
        ("basic_auth_users: [alice]", ("basic_auth_users: not a mapping",)),
        ("rate_limit:\n  interval: 1", ("'1' is no duration", "500ms")),
        ("rate_limit:\n  interval: 1s\n  burst: 0", ("rate_limit.burst",)),
        ("rate_limit:\n  interval: 1s", ("rate_limit", "burst")),
        ("rate_limit:\n  per_second: 1", ("unknown key",)),
    ],
)
def test_a_mistake_names_file_key_and_way_out(text: str, words: tuple[str, ...]) -> None:
    told = refusal(text)
    assert [word for word in words if word not in told] == []


def test_a_password_in_the_clear_is_refused_and_not_repeated() -> None:
    told = refusal("basic_auth_users:\n  alice: hunter2")
    assert "basic_auth_users.alice: not a bcrypt hash" in told
    assert "hunter2" not in told


def test_secrets_are_not_in_the_representation() -> None:
    config = parse(f"tls_server_config:\n  cert: c\n  key: PRIVATE\nbasic_auth_users:\n  alice: {HASH}")
    assert "PRIVATE" not in repr(config)
    assert HASH not in repr(config)


def test_a_rate_limit_of_no_interval_is_none() -> None:
    assert parse("rate_limit:\n  interval: 0\n").rate_limit is None
    assert parse("rate_limit:\n  interval: 0s\n  burst: 5\n").rate_limit is None


def error_of(text: str) -> str:
    try:
        parse(text)
    except GomemError as error:
        return error.what
    return ""


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    assert "\n" not in error_of(text)


def test_deep_nesting_is_an_error() -> None:
    assert "web configuration" in refusal("[" * 5_000)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match="no such file"):
        load_web_config(tmp_path / "absent.yml")


def test_a_directory_and_a_huge_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match="is a directory"):
        load_web_config(tmp_path)
    (tmp_path / "huge").write_bytes(b"#" * (2 << 20))
    with pytest.raises(WebConfigError, match="larger than"):
        load_web_config(tmp_path / "huge")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WebConfigError, match="not UTF-8"):
        load_web_config(tmp_path / "binary")


@pytest.mark.parametrize("name", ["cert_file", "key_file"])
def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    for file in ("cert", "key"):
        (tmp_path / file).write_text("no PEM")
    (tmp_path / name.removesuffix("_file")).unlink()
    (tmp_path / "web.yml").write_text("tls_server_config:\n  cert_file: cert\n  key_file: key\n")
    with pytest.raises(WebConfigError) as refused:
        load_web_config(tmp_path / "web.yml")
    assert f"{name} {tmp_path}" in refused.value.what
    assert "no such file" in refused.value.what
