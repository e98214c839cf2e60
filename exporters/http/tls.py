"""TLS by the web configuration: contexts, and who is let in by the names in a client certificate."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from gomem.exporters.http.tls_config import TlsConfig
from gomem.exporters.http.yaml_sections import WebConfigError


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Return a context with the certificates as they are now. Raises WebConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = config.min_version
    context.maximum_version = config.max_version
    # A renegotiation costs us a handshake each time that a client feels like it.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    if config.prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _choose(context, config)
    _load_certificate(context, config)
    if config.client_auth is not ssl.CERT_NONE:
        _load_client_ca(context, config)
        context.verify_mode = config.client_auth
    return context


def _choose(context: ssl.SSLContext, config: TlsConfig) -> None:
    try:
        if config.ciphers:
            context.set_ciphers(":".join(config.ciphers))
        if config.curve is not None:
            context.set_ecdh_curve(config.curve)
    except (ssl.SSLError, ValueError) as error:
        raise WebConfigError(
            f"TLS cannot be set up as configured: {error}", "leave cipher_suites and curve_preferences out"
        ) from None


def _load_certificate(context: ssl.SSLContext, config: TlsConfig) -> None:
    with contextlib.ExitStack() as files:
        cert = files.enter_context(_as_file(config.cert_file, config.cert))
        key = files.enter_context(_as_file(config.key_file, config.key))
        for name, path in (("cert_file", config.cert_file), ("key_file", config.key_file)):
            _check_readable(name, path)
        try:
            # Without the callable OpenSSL would ask on the terminal for the password of an encrypted key.
            context.load_cert_chain(cert, key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            names = f"certificate {config.cert_file or '(inline)'} with key {config.key_file or '(inline)'}"
            raise WebConfigError(
                f"{names}: {_reason(error)}",
                "they must be PEM, belong together, and the key must not be encrypted",
            ) from None


def _load_client_ca(context: ssl.SSLContext, config: TlsConfig) -> None:
    _check_readable("client_ca_file", config.client_ca_file)
    try:
        if config.client_ca_file is not None:
            context.load_verify_locations(cafile=config.client_ca_file)
        else:
            context.load_verify_locations(cadata=config.client_ca)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise WebConfigError(
            f"client CA {config.client_ca_file or '(inline)'}: {_reason(error)}",
            "it must be one or more PEM certificates",
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return str(error)


def _check_readable(name: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise WebConfigError(
            f"{name} {path}: {(error.strerror or str(error)).lower()}",
            "gomem must be able to read it, also after it has dropped its capabilities",
        ) from None


@contextlib.contextmanager
def _as_file(path: Path | None, text: str) -> Iterator[str]:
    """Give the path, or inline text as a file in memory: the ssl module reads private keys from files only."""
    if path is not None:
        yield str(path)
        return
    fd = os.memfd_create("gomem-pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "w") as file:
            file.write(text)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def has_allowed_name(certificate: Mapping[str, object] | None, allowed: tuple[str, ...]) -> bool:
    """Whether one of the certificate's Subject Alternative Names (DNS, email, IP address, URI) is in `allowed`.

    `certificate` as SSLSocket.getpeercert returns it.
    """
    names = (certificate or {}).get("subjectAltName", ())
    if not isinstance(names, tuple):
        return False
    wanted = {_canonical(name) for name in allowed}
    return any(
        isinstance(entry, tuple)
        and len(entry) == 2
        and entry[0] in ("DNS", "email", "URI", "IP Address")
        and (_canonical(str(entry[1])) if entry[0] == "IP Address" else str(entry[1])) in wanted
        for entry in names
    )


def _canonical(name: str) -> str:
    try:
        return ipaddress.ip_address(name.strip()).compressed
    except ValueError:
        return name
