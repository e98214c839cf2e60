"""What is asked: a request as plain data, out of what aiohttp has parsed, and what is refused.

aiohttp's parser (llhttp, RFC 9112) refuses bare line feeds, folded lines, spaces before a colon, and contradicting
lengths. What it lets pass and two parsers could understand differently is refused here, so nothing in front of us can
be fooled: other versions, spaces in the request line, headers that may be there only once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.http_parser import RawRequestMessage

MOST_HEAD_BYTES = 16 << 10
MOST_TARGET_BYTES = 2 << 10
MOST_HEADERS = 64

_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} ([!-~]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_ONCE = frozenset({"host", "content-length", "transfer-encoding", "authorization", "content-type"})


class BadRequest(Exception):
    """A head that is refused: the HTTP `status` to answer with, and why in a few words of ours."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case; values of a repeated header are joined by commas."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep_alive: bool  # what the client wishes
    has_body: bool  # one was announced; it was not read

    def header(self, name: str) -> str:
        """Return the value of a header, or ""."""
        return self.headers.get(name, "")


def check_head(raw: bytes) -> None:
    """Look at all bytes up to and with the empty line before the parser does. Raises BadRequest."""
    line, _, headers = raw.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest(400, "not an HTTP request line")
    if match[2] != b"1" or match[3] not in b"01":
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(match[1]) > MOST_TARGET_BYTES:
        raise BadRequest(414, "the address is too long")
    if headers.count(b"\n") > MOST_HEADERS + 1:
        raise BadRequest(431, "too many headers")


def request_of(message: RawRequestMessage) -> Request:
    """Return what the parser has understood. Raises BadRequest."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in message.raw_headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        if name in headers and name in _ONCE:
            raise BadRequest(400, f"more than one {name} header")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    origin = _ABSOLUTE.sub("", message.path, count=1) or "/"
    target = "/" + origin if origin.startswith("?") else origin
    path, _, query = target.partition("#")[0].partition("?")
    keep_alive = not message.should_close and not message.upgrade
    return Request(message.method, path, query, headers, keep_alive, _has_body(headers))


def refusal_of(error: HttpProcessingError) -> BadRequest:
    """Return what to say to a head that the parser does not take. Its own words quote the client."""
    if isinstance(error, LineTooLong):
        return BadRequest(431, "the request's head is too large")
    if isinstance(error, InvalidURLError):
        return BadRequest(400, "not a path")
    return BadRequest(400, "not an HTTP request line" if isinstance(error, BadStatusLine) else "a malformed header")


def _has_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "").strip("0") != ""


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip: named, or `*`, with a weight that is not 0 (RFC 9110, 12.5.3)."""
    weights: dict[str, bool] = {}
    for item in accept_encoding.split(","):
        coding, _, parameter = item.partition(";")
        name, _, weight = parameter.partition("=")
        zero = name.strip().lower() == "q" and re.fullmatch(r"\s*0(\.0{0,3})?\s*", weight) is not None
        weights[coding.strip().lower()] = not zero
    return weights.get("gzip", weights.get("*", False))
