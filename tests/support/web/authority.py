"""A certificate authority, and the files of one server of its."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

# Lines of a web configuration
MUTUAL = ("  client_ca_file: ca.crt", "  client_auth_type: RequireAndVerifyClientCert")


@dataclass(frozen=True)
class Authority:
    """A CA, and the files of one server."""

    ca: trustme.CA
    directory: Path

    def write_server(self, name: str = "server") -> trustme.LeafCert:
        """Issue a certificate for the server and put its files in place, one after the other."""
        leaf = self.ca.issue_cert("127.0.0.1", "localhost")
        for file, blob in (("crt", leaf.cert_chain_pems[0]), ("key", leaf.private_key_pem)):
            new = self.directory / f"{name}.{file}.new"
            blob.write_to_path(new)
            os.replace(new, self.directory / f"{name}.{file}")
        return leaf

    def client(self, *names: str, ca: trustme.CA | None = None) -> ssl.SSLContext:
        """Return a client that trusts the CA; with `names` it has a certificate of its own, of `ca`."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if names:
            (ca or self.ca).issue_cert(*names).configure_cert(context)
        return context

    def configuration(self, *lines: str) -> Path:
        """Write a web configuration with TLS and more."""
        path = self.directory / "web.yml"
        path.write_text("\n".join(["tls_server_config:", "  cert_file: server.crt", "  key_file: server.key", *lines]))
        return path
