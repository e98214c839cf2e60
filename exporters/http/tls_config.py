"""What a web configuration says of TLS: plain data."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """What TLS is spoken. Certificates come from files, or inline as PEM text."""

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    cert: str = ""
    key: str = field(default="", repr=False)
    client_ca: str = ""
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_allowed_sans: tuple[str, ...] = ()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()  # OpenSSL's names; (): OpenSSL's choice
    prefer_server_ciphers: bool = True
    curve: str | None = None
