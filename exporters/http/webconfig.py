"""The web configuration file: TLS, client certificates, passwords, headers; in the format of Prometheus' exporters.

Source of the format: docs/web-configuration.md of prometheus/exporter-toolkit. Unknown and repeated keys are errors,
and so is what this server could not keep: every error names the file, the line, the key and the way out.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gomem.exporters.http.tls_config import TlsConfig
from gomem.exporters.http.yaml_sections import Section, WebConfigError

_MOST_BYTES = 1 << 20
_MOST_USERS = 1000
# A check costs 2**cost: at 14 about a second, which is more than one wants to wait for a scrape.
_LEAST_COST, _MOST_COST = 4, 14
_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED_CLIENT_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
# crypto/tls's names of the suites that Go thinks safe, and OpenSSL's. TLS 1.3 has its own, which cannot be chosen.
_CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
_CIPHERS_OF_TLS13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_HEADERS: Mapping[str, tuple[str, ...]] = {  # name: values allowed, () for any
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request each `interval` seconds, and `burst` of them at once."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A web configuration that was found good."""

    path: Path
    tls: TlsConfig | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)  # name: bcrypt hash
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls is not None

    @property
    def authenticated(self) -> bool:
        """Whether every client has to show a password or a certificate."""
        return bool(self.users) or (self.tls is not None and self.tls.client_auth is ssl.CERT_REQUIRED)

    def files(self) -> tuple[Path, ...]:
        """Return the files that this configuration came from."""
        tls = self.tls or TlsConfig()
        return (self.path, *(path for path in (tls.cert_file, tls.key_file, tls.client_ca_file) if path is not None))


def load_web_config(path: str | Path) -> WebConfig:
    """Read and judge the file and the certificates that it names. Raises WebConfigError."""
    from gomem.exporters.http.tls import server_context

    file = Path(path)
    config = parse_web_config(_read(file), file)
    if config.tls is not None:
        server_context(config.tls)
    return config


def parse_web_config(text: str, path: Path) -> WebConfig:
    """Judge the text of a web configuration; its file names are relative to that of `path`. Raises WebConfigError."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "nested too deeply"
        raise WebConfigError(
            f"web configuration {path}{where}: not YAML: {_one_line(str(reason))}",
            "write `key: value` lines; the sections are indented by two spaces",
        ) from None
    top = Section(path, "", root)
    top.known("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
    return WebConfig(
        path,
        _tls(top.section("tls_server_config"), path.parent),
        _users(top.section("basic_auth_users")),
        _headers(top.section("http_server_config")),
        _rate_limit(top.section("rate_limit")),
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise WebConfigError(f"web configuration {path}: {reason}", "give the path of a readable YAML file") from None
    if len(raw) > _MOST_BYTES:
        raise WebConfigError(f"web configuration {path}: larger than {_MOST_BYTES >> 20} MiB", "is it the right file?")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise WebConfigError(f"web configuration {path}: not UTF-8 text", "is it the right file?") from None


def _one_line(words: str) -> str:
    return " ".join(words.split())[:300]


def _tls(section: Section, directory: Path) -> TlsConfig | None:
    section.known(
        "cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file", "client_auth_type",
        "client_allowed_sans", "min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites",
        "curve_preferences",
    )  # fmt: skip
    if not section:
        return None
    for inline, file in (("cert", "cert_file"), ("key", "key_file"), ("client_ca", "client_ca_file")):
        if section.text(inline) and section.text(file):
            raise section.error(inline, f"given together with {file}", "keep one of them")
    for inline, file in (("cert", "cert_file"), ("key", "key_file")):
        if not section.text(inline) and not section.text(file):
            raise section.error(file, "missing", f"TLS needs {file}: PATH (or {inline}: with the PEM text)")

    def file_of(name: str) -> Path | None:
        word = section.text(name)
        return directory / word if word else None

    lowest = section.choice("min_version", _VERSIONS, "TLS12")
    highest = section.choice("max_version", _VERSIONS, "TLS13")
    if lowest > highest:
        raise section.error("min_version", "above max_version", "exchange them")
    auth = _client_auth(section)
    return TlsConfig(
        file_of("cert_file"), file_of("key_file"), file_of("client_ca_file"),
        section.text("cert"), section.text("key"), section.text("client_ca"),
        auth, _sans(section, auth), lowest, highest, _ciphers(section),
        section.flag("prefer_server_cipher_suites", True), _curve(section),
    )  # fmt: skip


def _client_auth(section: Section) -> ssl.VerifyMode:
    name = "client_auth_type"
    word = section.text(name, "NoClientCert")
    if word in _UNVERIFIED_CLIENT_AUTH:
        raise section.error(
            name, f"{word} would let any certificate in", "use RequireAndVerifyClientCert with client_ca_file"
        )
    auth = section.choice(name, _CLIENT_AUTH, "NoClientCert")
    has_ca = bool(section.text("client_ca") or section.text("client_ca_file"))
    if has_ca and auth is ssl.CERT_NONE:
        raise section.error(
            name, "missing, while a client CA is given", "add client_auth_type: RequireAndVerifyClientCert"
        )
    if not has_ca and auth is not ssl.CERT_NONE:
        raise section.error(name, "needs client_ca_file", "name the CA whose client certificates are let in")
    return auth


def _sans(section: Section, auth: ssl.VerifyMode) -> tuple[str, ...]:
    names = section.texts("client_allowed_sans")
    if section.has("client_allowed_sans") and auth is not ssl.CERT_REQUIRED:
        raise section.error(
            "client_allowed_sans", "needs client_auth_type: RequireAndVerifyClientCert",
            "otherwise a client without a certificate would be let in",
        )  # fmt: skip
    if section.has("client_allowed_sans") and not names:
        raise section.error("client_allowed_sans", "an empty list lets nobody in", "name one, or leave the key out")
    return names


def _ciphers(section: Section) -> tuple[str, ...]:
    names = section.texts("cipher_suites")
    for name in names:
        if name not in _CIPHERS and name not in _CIPHERS_OF_TLS13:
            raise section.error("cipher_suites", f"unknown suite {name[:80]!r}", f"known: {', '.join(_CIPHERS)}")
    return tuple(_CIPHERS[name] for name in names if name in _CIPHERS)


def _curve(section: Section) -> str | None:
    names = section.texts("curve_preferences")
    for name in names:
        if name not in _CURVES:
            raise section.error("curve_preferences", f"unknown curve {name[:80]!r}", f"known: {', '.join(_CURVES)}")
    if len(names) > 1:
        raise section.error(
            "curve_preferences", "more than one curve", "name one, or leave the key out for OpenSSL's own preferences"
        )
    return _CURVES[names[0]] if names else None


def _users(section: Section) -> dict[str, str]:
    users: dict[str, str] = {}
    for name in section.names():
        hashed = section.text(name)
        match = _HASH.fullmatch(hashed)
        if match is None:
            # The value itself is not repeated: it may be a password in the clear.
            raise section.error(
                name, "not a bcrypt hash", "make one with `htpasswd -nBC 10 USER` and keep what follows the colon"
            )
        if not _LEAST_COST <= int(match[1]) <= _MOST_COST:
            raise section.error(
                name,
                f"bcrypt cost {int(match[1])}",
                f"costs from {_LEAST_COST} to {_MOST_COST} are accepted; at 10 a check takes 0.1 s",
            )
        if ":" in name or not name:
            raise section.error(name, "not a user name", "a name is not empty and has no colon")
        users[name] = hashed
    if len(users) > _MOST_USERS:
        raise section.error("", f"more than {_MOST_USERS} users", "use client certificates")
    return users


def _headers(section: Section) -> dict[str, str]:
    section.known("http2", "headers")
    section.flag("http2", True)  # only HTTP/1 is spoken here, which every client that knows HTTP/2 can
    headers = section.section("headers")
    headers.known(*_HEADERS)
    chosen: dict[str, str] = {}
    for name in headers.names():
        value = headers.text(name)
        if not value:
            continue
        if _HEADERS[name] and value not in _HEADERS[name]:
            raise headers.error(name, f"unknown value {value[:80]!r}", f"one of: {', '.join(_HEADERS[name])}")
        if not re.fullmatch(r"[\t -~]*", value):
            raise headers.error(name, "not printable ASCII", "write it on one line")
        chosen[name] = value
    return chosen


def _rate_limit(section: Section) -> RateLimit | None:
    section.known("interval", "burst")
    interval = _duration(section, "interval")
    if interval == 0:
        return None
    burst = section.text("burst", "0")
    if not re.fullmatch(r"[0-9]{1,9}", burst) or int(burst) < 1:
        raise section.error("burst", f"{burst[:40]!r} is no number of requests", "write a whole number from 1 on")
    return RateLimit(interval, int(burst))


def _duration(section: Section, name: str) -> float:
    """Return seconds. Source: time.ParseDuration of Go, which the original reads its intervals with."""
    word = section.text(name, "0")
    if word == "0":
        return 0.0
    if re.fullmatch(f"(?:{_DURATION.pattern})+", word) is None:
        raise section.error(name, f"{word[:40]!r} is no duration", "write a number with its unit, such as 500ms or 1s")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION.findall(word))
