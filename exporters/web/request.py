"""The head of an HTTP/1 request: a strict parser of few words. It never reads a body.

Sources: RFC 9110 and RFC 9112. Whatever two parsers could understand differently (bare line feeds, folded lines,
repeated Host or Content-Length, spaces before a colon) is refused, so nothing in front of us can be fooled either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MOST_HEAD_BYTES = 16 << 10
MOST_TARGET_BYTES = 2 << 10
MOST_HEADERS = 64

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_NAME = re.compile(_TOKEN + rb"{1,256}")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
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


def parse_head(raw: bytes) -> Request:
    """Parse all bytes up to and with the empty line. Raises BadRequest."""
    if len(raw) > MOST_HEAD_BYTES:
        raise BadRequest(431, "the request's head is too large")
    if not raw.endswith(b"\r\n\r\n"):
        raise BadRequest(400, "the request's head is not complete")
    lines = raw[:-4].split(b"\r\n")
    method, target, minor = _request_line(lines[0])
    headers = _headers(lines[1:])
    if minor == 1 and "host" not in headers:
        raise BadRequest(400, "no Host header")
    path, _, query = target.partition("#")[0].partition("?")
    return Request(method, path, query, headers, _keep_alive(headers, minor), _has_body(headers))


def _request_line(line: bytes) -> tuple[str, str, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest(400, "not an HTTP request line")
    method, target, major, minor = (part.decode("ascii") for part in match.groups())
    if major != "1" or minor not in "01":
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(target) > MOST_TARGET_BYTES:
        raise BadRequest(414, "the address is too long")
    origin = _ABSOLUTE.sub("", target, count=1) or "/"
    if not origin.startswith(("/", "?")) and origin != "*":
        raise BadRequest(400, "not a path")
    return method, "/" + origin if origin.startswith("?") else origin, int(minor)


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MOST_HEADERS:
        raise BadRequest(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        value = raw_value.strip(b" \t")
        if not colon or _NAME.fullmatch(raw_name) is None or _VALUE.fullmatch(value) is None:
            raise BadRequest(400, "a malformed header")
        name = raw_name.decode("ascii").lower()
        if name in headers:
            if name in _ONCE:
                raise BadRequest(400, f"more than one {name} header")
            headers[name] += ", " + value.decode("latin-1")
        else:
            headers[name] = value.decode("latin-1")
    return headers


def _keep_alive(headers: Mapping[str, str], minor: int) -> bool:
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    return "close" not in options if minor == 1 else "keep-alive" in options


def _has_body(headers: Mapping[str, str]) -> bool:
    if "transfer-encoding" in headers:
        return True
    length = headers.get("content-length")
    if length is None:
        return False
    if not length.isascii() or not length.isdigit():
        raise BadRequest(400, "a malformed Content-Length")
    return length.strip("0") != ""


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip: named, or `*`, with a weight that is not 0 (RFC 9110, 12.5.3)."""
    weights: dict[str, bool] = {}
    for item in accept_encoding.split(","):
        coding, _, parameter = item.partition(";")
        name, _, weight = parameter.partition("=")
        zero = name.strip().lower() == "q" and re.fullmatch(r"\s*0(\.0{0,3})?\s*", weight) is not None
        weights[coding.strip().lower()] = not zero
    return weights.get("gzip", weights.get("*", False))
