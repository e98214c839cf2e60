"""Basic authentication: who is let in, and what it costs at most."""

from __future__ import annotations

import base64
import threading

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.exporters.http import passwords
from gomem.exporters.http.passwords import Judgement, Passwords, matches, parse_basic

USERS = {
    "alice": bcrypt.hashpw(b"wonder", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
    "bob": bcrypt.hashpw("schlüssel:".encode(), bcrypt.gensalt(4)).decode(),
}


def basic(name: str, password: str | bytes) -> str:
    raw = password.encode() if isinstance(password, str) else password
    return "Basic " + base64.b64encode(name.encode() + b":" + raw).decode()


class Clock:
    """A clock that goes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that were really checked, in order."""
    done: list[str] = []

    def counted(password: bytes, hashed: str) -> bool:
        done.append(hashed)
        return matches(password, hashed)

    monkeypatch.setattr(passwords, "matches", counted)
    return done


@pytest.mark.parametrize(
    ("authorization", "judgement"),
    [
        (basic("alice", "wonder"), Judgement.RIGHT),
        (basic("alice", "wonder").replace("Basic", "bAsIc"), Judgement.RIGHT),
        (basic("bob", "schlüssel:"), Judgement.RIGHT),
        (basic("alice", "wonder2"), Judgement.WRONG),
        (basic("alice", ""), Judgement.WRONG),
        (basic("alice", "wonder\0"), Judgement.WRONG),
        (basic("bob", "wonder"), Judgement.WRONG),
        (basic("mallory", "wonder"), Judgement.WRONG),
        (basic("", ""), Judgement.WRONG),
        ("", Judgement.WRONG),
        ("Bearer x", Judgement.WRONG),
        ("Basic", Judgement.WRONG),
        ("Basic !!!", Judgement.WRONG),
        ("Basic " + base64.b64encode(b"no colon").decode(), Judgement.WRONG),
        ("Basic " + base64.b64encode(b"alice:" + b"w" * 5000).decode(), Judgement.WRONG),
    ],
)
def test_who_is_let_in(authorization: str, judgement: Judgement) -> None:
    assert Passwords().judge(authorization, USERS, "10.0.0.1") is judgement


def test_what_bcrypt_ignores_of_a_long_password_is_ignored() -> None:
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert matches(b"x" * 72 + b"more", hashed)
    assert not matches(b"x" * 71, hashed)


def test_a_right_password_is_checked_once(checks: list[str]) -> None:
    judge = Passwords()
    for _ in range(5):
        assert judge.judge(basic("alice", "wonder"), USERS, "10.0.0.1") is Judgement.RIGHT
    assert len(checks) == 1


def test_a_changed_hash_is_checked_again(checks: list[str]) -> None:
    judge = Passwords()
    assert judge.judge(basic("alice", "wonder"), USERS, "") is Judgement.RIGHT
    assert judge.judge(basic("alice", "wonder"), {"alice": USERS["bob"]}, "") is Judgement.WRONG
    assert judge.judge(basic("alice", "wonder"), {"bob": USERS["bob"]}, "") is Judgement.WRONG
    assert len(checks) == 3


def test_an_unknown_user_costs_as_much_as_a_known_one(checks: list[str]) -> None:
    assert Passwords().judge(basic("mallory", "x"), USERS, "") is Judgement.WRONG
    assert len(checks) == 1


def test_a_user_whose_hash_is_cheap_is_not_told_by_how_soon_a_wrong_password_is_refused(checks: list[str]) -> None:
    users = USERS | {"carol": bcrypt.hashpw(b"x", bcrypt.gensalt(7)).decode()}
    spent = {}
    for name in ("alice", "carol", "mallory"):
        checks.clear()
        assert Passwords().judge(basic(name, "wrong"), users, "") is Judgement.WRONG
        spent[name] = sum(2 ** int(hashed[4:6]) for hashed in checks)
    assert spent == dict.fromkeys(spent, 2**7)


def test_a_client_that_guesses_is_slowed_down_and_nobody_else(checks: list[str]) -> None:
    clock = Clock()
    judge = Passwords(clock)
    answers = [judge.judge(basic("alice", str(n)), USERS, "10.0.0.1") for n in range(50)]
    assert answers.count(Judgement.WRONG) == len(checks) < 10
    assert answers[-1] is Judgement.LATER
    assert judge.judge(basic("alice", "wonder"), USERS, "10.0.0.2") is Judgement.RIGHT
    # Whoever was let in before is not kept out by somebody who guesses beside it, from the same address.
    assert judge.judge(basic("alice", "wonder"), USERS, "10.0.0.1") is Judgement.RIGHT
    clock.now += 4
    assert judge.judge(basic("alice", "x"), USERS, "10.0.0.1") is Judgement.WRONG


def test_many_addresses_together_do_not_get_more_than_a_few_checks(checks: list[str]) -> None:
    judge = Passwords(Clock())
    for n in range(500):
        judge.judge(basic("alice", "x"), USERS, f"10.0.{n // 250}.{n % 250}")
    assert len(checks) < 40


def test_all_addresses_of_an_ipv6_network_count_as_one(checks: list[str]) -> None:
    judge = Passwords(Clock())
    for n in range(50):
        judge.judge(basic("alice", "x"), USERS, f"2001:db8::{n:x}")
    assert len(checks) < 10


def test_one_check_runs_at_a_time_and_those_behind_the_next_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    running, release, together = threading.Event(), threading.Event(), []

    def slow(password: bytes, hashed: str) -> bool:
        together.append(1)
        running.set()
        release.wait(60)
        return True

    monkeypatch.setattr(passwords, "matches", slow)
    judge = Passwords()
    found: list[Judgement] = []
    first = threading.Thread(target=lambda: found.append(judge.judge(basic("alice", "1"), USERS, "10.0.0.1")))
    first.start()
    assert running.wait(60)
    monkeypatch.setattr(passwords, "_SECONDS_IN_WAIT", 0.01)
    assert judge.judge(basic("alice", "2"), USERS, "10.0.0.2") is Judgement.LATER
    assert len(together) == 1
    release.set()
    first.join(60)
    assert found == [Judgement.RIGHT]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_header_is_read_or_refused(header: str) -> None:
    for candidate in (header, "Basic " + header):
        credentials = parse_basic(candidate)
        assert credentials is None or isinstance(credentials[1], bytes)
