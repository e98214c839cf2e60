"""Heads of requests: what is understood, and what is refused with which status."""

from __future__ import annotations

import asyncio
import atexit

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.exporters.http.request import (
    MOST_HEAD_BYTES,
    BadRequest,
    Request,
    accepts_gzip,
    check_head,
    refusal_of,
    request_of,
)

_LOOP = asyncio.new_event_loop()
atexit.register(_LOOP.close)


def parse_head(raw: bytes) -> Request:
    """Do what a connection does with a whole head: our look at it, aiohttp's parser, and what it makes of that."""
    check_head(raw)
    parser = HttpRequestParser(
        BaseProtocol(_LOOP), _LOOP, 1 << 16, max_line_size=MOST_HEAD_BYTES, max_field_size=MOST_HEAD_BYTES
    )
    try:
        messages, _, _ = parser.feed_data(raw)
    except HttpProcessingError as error:
        raise refusal_of(error) from None
    if not messages:
        raise BadRequest(408, "not the whole of a head")
    return request_of(messages[0][0])


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_a_scrape_of_prometheus_is_understood() -> None:
    request = parse_head(head(
        "GET /metrics?name%5B%5D=up&name[]=down HTTP/1.1", "Host: 10.0.0.7:9469", "User-Agent: Prometheus/3.1.0",
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "Accept-Encoding: gzip",
    ))  # fmt: skip
    assert (request.method, request.path, request.query) == ("GET", "/metrics", "name%5B%5D=up&name[]=down")
    assert request.header("accept-encoding") == "gzip"
    assert request.header("accept").startswith("application/openmetrics-text")
    assert request.keep_alive
    assert not request.has_body


def test_header_names_have_no_case_and_repeated_ones_are_joined() -> None:
    request = parse_head(head("GET / HTTP/1.1", "HOST: a", "accept: text/plain", "Accept: text/html"))
    assert request.header("accept") == "text/plain, text/html"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://example.org:80/metrics", "/metrics"),
        ("HTTPS://example.org", "/"),
        ("http://example.org?x=1", "/"),
        ("/a#b", "/a"),
        ("*", "*"),
    ],
)
def test_the_path_of_every_form_of_target(target: str, path: str) -> None:
    method = "OPTIONS" if target == "*" else "GET"  # RFC 9112, 3.2.4
    assert parse_head(head(f"{method} {target} HTTP/1.1", "Host: a")).path == path


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [("1.1", None, True), ("1.1", "Close", False), ("1.1", "x, close", False), ("1.0", None, False),
     ("1.0", "keep-alive", True)],
)  # fmt: skip
def test_keep_alive(version: str, connection: str | None, kept: bool) -> None:
    lines = [f"GET / HTTP/{version}", "Host: a"] + ([f"Connection: {connection}"] if connection else [])
    assert parse_head(head(*lines)).keep_alive is kept


@pytest.mark.parametrize(
    ("header", "has_body"),
    [("Content-Length: 0", False), ("Content-Length: 00", False), ("Content-Length: 7", True),
     ("Transfer-Encoding: chunked", True), ("Transfer-Encoding: ", True)],
)  # fmt: skip
def test_an_announced_body_is_noticed(header: str, has_body: bool) -> None:
    assert parse_head(head("GET / HTTP/1.1", "Host: a", header)).has_body is has_body


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET relative HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 20000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # a TLS hello
    ],
)
def test_what_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_head(raw)
    assert refused.value.status == status
    assert refused.value.why.isprintable()


def parsed_or_refused(raw: bytes) -> Request | int:
    try:
        return parse_head(raw)
    except BadRequest as refused:
        return refused.status


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_a_request_or_a_refusal(raw: bytes) -> None:
    for candidate in (raw, raw + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + raw + b"\r\n\r\n"):
        outcome = parsed_or_refused(candidate)
        assert 400 <= outcome < 600 if isinstance(outcome, int) else outcome.path.isascii()


_NAMES = st.text(st.sampled_from("abcXYZ-09_"), min_size=1, max_size=8).map(lambda name: "x" + name)
_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=20)


@settings(deadline=None)
@given(st.dictionaries(_NAMES.map(str.lower), _VALUES.map(lambda value: value.strip(" \t\xa0")), max_size=8))
def test_headers_come_back_as_they_were_sent(headers: dict[str, str]) -> None:
    lines = [f"{name}:{value}" for name, value in headers.items()]
    request = parse_head(head("GET / HTTP/1.1", "Host: a", *lines))
    assert request.headers == {"host": "a", **{name: value.strip(" \t") for name, value in headers.items()}}


@pytest.mark.parametrize(
    ("accept", "gzipped"),
    [("", False), ("gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False),
     ("*", True), ("*;q=0", False), ("*, gzip;q=0", False), ("GZIP", True), ("identity", False), ("xgzip", False)],
)  # fmt: skip
def test_gzip_is_used_when_it_is_accepted(accept: str, gzipped: bool) -> None:
    assert accepts_gzip(accept) is gzipped
