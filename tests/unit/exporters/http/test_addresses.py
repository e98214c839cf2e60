"""Where to listen: what is understood, and what is warned of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.exporters.http.addresses import Address, exposure_warning, open_listeners, parse_address
from gomem.tracer.errors import GomemError, UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9469", Address("127.0.0.1", 9469)),
        ("localhost:0", Address("localhost", 0)),
        (":9469", Address("", 9469)),
        ("[::]:9469", Address("::", 9469)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
        ("node-1.example.org:65535", Address("node-1.example.org", 65535)),
        ("unix:/run/gomem.sock", Address(path="/run/gomem.sock")),
        ("systemd:", Address(passed=True)),
    ],
)
def test_what_people_write_is_understood_and_written_back(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "9469", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:9469", "[::1]", "http://127.0.0.1:9469", "a b:1",
     "unix:", "unix:relative", "unix:/" + "x" * 200, "unix:/a\0b", "host:-1", "host:\u0661"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_address(text)
    assert "write" in refused.value.fix


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    assert parsed_or_none(text) is None or str(parsed_or_none(text))


def parsed_or_none(text: str) -> Address | None:
    try:
        return parse_address(text)
    except UsageError:
        return None


@pytest.mark.parametrize(
    ("text", "fix"),
    [("203.0.113.7:0", "ip address"), ("a..b:0", "IP address"), ("unix:/nowhere/at/all.sock", "")],
)
def test_an_address_that_cannot_be_had_is_an_error_that_names_it(text: str, fix: str) -> None:
    with pytest.raises(GomemError) as refused:
        open_listeners([parse_address(text)])
    assert text in refused.value.what
    assert fix in refused.value.fix
    assert refused.value.exit_code == 1


def test_sockets_are_expected_from_systemd_only_if_it_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(GomemError, match="no sockets were passed"):
        open_listeners([parse_address("systemd:")])


@pytest.mark.parametrize(
    ("listen", "encrypted", "authenticated", "words"),
    [
        ("127.0.0.1:1", False, False, None),
        ("[::1]:1", False, False, None),
        ("localhost:1", False, False, None),
        ("unix:/run/x", False, False, None),
        ("systemd:", False, False, None),
        (":1", True, True, None),
        (":1", False, False, "anybody who can reach it"),
        ("[::]:1", False, True, "in the clear"),
        ("10.0.0.1:1", True, False, "anybody may make one"),
    ],
)
def test_an_open_door_is_warned_of(listen: str, encrypted: bool, authenticated: bool, words: str | None) -> None:
    warning = exposure_warning([parse_address("127.0.0.1:2"), parse_address(listen)], encrypted, authenticated)
    if words is None:
        assert warning is None
    else:
        assert warning is not None
        assert words in warning
        assert listen in warning
        assert "127.0.0.1:2" not in warning
