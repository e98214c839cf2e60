"""What is answered: a response as plain data, and its head as bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"

# Nothing of ours is for other sites to embed, for caches to keep, or for browsers to guess at.
PROTECTIVE_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response. `path_class` is what statistics call the address, of which there are few."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)
    path_class: str = "other"


@dataclass(frozen=True, slots=True)
class Coming(Response):
    """A response that is still being made; until then it is what to say where nobody can wait."""

    made: Future[Response] = field(default_factory=Future)

    @classmethod
    def of(cls, made: Future[Response]) -> Response:
        """Return the response, if it is made already."""
        return made.result() if made.done() else cls(503, b"it is not made yet\n", made=made)


def plain(status: int, text: str, path_class: str = "other", **headers: str) -> Response:
    """Return a line of text; `headers` with _ for the hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, text.encode() + b"\n", TEXT, named, path_class)


def all_headers(response: Response, keep_alive: bool, configured: Mapping[str, str]) -> dict[str, str]:
    """Return what is sent. `configured` headers win over the response's own, these over the protective ones."""
    return {
        "Date": formatdate(time.time(), usegmt=True),
        "Server": "gomem",
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Connection": "keep-alive" if keep_alive else "close",
        **PROTECTIVE_HEADERS,
        **response.headers,
        **configured,
    }


def last_words(response: Response, configured: Mapping[str, str]) -> bytes:
    """Return the whole of a response behind which the connection is closed, as it goes over the wire."""
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in all_headers(response, False, configured).items()]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + response.body
