"""Who is taken on, and who makes room, without sockets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from gomem.exporters.http.limits import Limits
from gomem.exporters.http.places import Client, NoPlace, Places

LIMITS = Limits(connections=6, connections_per_peer=4, reserved_connections=2, handshakes=4)


@dataclass(eq=False)
class Held:
    """A connection that waits for so many seconds longer than it may."""

    name: str
    waits: float = 1.0
    answered: int = 0
    client: Client = field(default_factory=lambda: Client("a", False))
    asks_nothing: bool = True

    @property
    def since(self) -> float:
        return -self.waits

    def overdue(self) -> float:
        return self.waits


def made(*held: Held, authenticates: bool = False) -> Places[Held]:
    places: Places[Held] = Places(LIMITS, authenticates)
    places.taken.update(held)
    return places


def of(peer: str, name: str = "", waits: float = 1.0, answered: int = 0, known: bool = False) -> Held:
    return Held(name, waits, answered, Client(peer, False, known))


def leaves(places: Places[Held], peer: str) -> str | None:
    places.count_newcomer(peer)
    victim = places.make_room(Client(peer, False))
    return victim.name if victim is not None else None


def test_nobody_goes_while_there_is_room() -> None:
    assert leaves(made(*(of(f"{n}") for n in range(5))), "a") is None


def test_who_waits_longest_goes_first() -> None:
    assert leaves(made(*(of(f"{n}", f"{n}", waits=n) for n in range(1, 7))), "x") == "6"


def test_who_was_answered_goes_behind_who_was_not_and_who_asked_for_more_behind_who_asked_for_less() -> None:
    places = made(*(of(f"{n}", f"{n}", waits=100 - n, answered=10 - n) for n in range(5)), of("f", "new", waits=0.1))
    assert leaves(places, "x") == "new"
    places.taken.remove(next(one for one in places.taken if one.name == "new"))
    places.taken.add(of("f", "busy", waits=1000, answered=99))
    assert leaves(places, "x") == "4"


def test_who_is_known_goes_last() -> None:
    places = made(*(of(f"{n}", f"{n}", waits=500, known=True) for n in range(5)), of("x", "unknown", answered=99))
    assert leaves(places, "x") == "unknown"


def test_nobody_goes_who_does_not_wait() -> None:
    with pytest.raises(NoPlace) as refused:
        made(*(of(f"{n}", waits=-0.1) for n in range(6))).make_room(Client("x", False))
    assert refused.value.reason == "connections"


def test_of_those_who_have_asked_for_nothing_yet_one_goes_of_the_client_that_has_most() -> None:
    many = [of("a", f"a{n}", waits=-2.0 + n / 10) for n in range(4)]
    assert leaves(made(*many, of("b", "b1", -0.1), of("b", "b2", -0.1)), "c") == "a3"
    assert leaves(made(*many, of("b", "b1", -0.1), of("b", "b2", -0.1)), "b") == "a3"
    for spared in ({"answered": 1}, {"known": True}):
        who = [of("a", f"{n}", waits=-1.0, **spared) for n in range(4)]
        with pytest.raises(NoPlace):
            made(*who, of("b", "b1", -0.1), of("c", "c1", -0.1)).make_room(Client("x", False))
    for one in many:
        one.asks_nothing = False
    with pytest.raises(NoPlace):
        made(*many, of("b", "b1", -0.1), of("c", "c1", -0.1)).make_room(Client("x", False))


def test_who_has_shown_a_certificate_needs_none_of_the_places_of_those_who_have_not() -> None:
    places = made(*(of("a", f"{n}", waits=-1.0) for n in range(4)), authenticates=True)
    assert places.make_room(Client("a", False, authenticated=True)) is None


def test_a_handshake_ends_the_oldest_one_of_the_client_that_has_most_under_way() -> None:
    places = made()
    places.greeting.update({of("a", "old", waits=5.0), of("a", "new", waits=1.0), of("b", "older", waits=9.0)})
    assert places.end_a_greeting() is None
    places.greeting.add(of("c", "honest", waits=0.001))
    victim = places.end_a_greeting()
    assert victim is not None
    assert victim.name == "old"
    assert len(places) == 4


def test_one_client_gets_a_share_of_the_places_and_replaces_its_own() -> None:
    places = made(*(of("a", f"{n}", waits=n) for n in range(1, 5)))
    assert leaves(places, "a") == "4"
    assert leaves(places, "b") is None


def test_who_is_known_does_not_count_among_his_neighbours() -> None:
    places = made(*(of("a", known=True) for _ in range(3)), of("a", "unknown"))
    assert leaves(places, "a") is None


def test_a_share_is_kept_for_those_who_are_known_where_anybody_can_be() -> None:
    unknown = [of(f"{n}", f"{n}", waits=-1.0) for n in range(4)]
    assert leaves(made(*unknown), "x") is None
    with pytest.raises(NoPlace):
        made(*unknown, authenticates=True).make_room(Client("x", False))
    with_known = made(*unknown, of("p", "p", waits=99, known=True), of("q", "q", waits=99, known=True),
                      authenticates=True)  # fmt: skip
    with pytest.raises(NoPlace):
        with_known.make_room(Client("x", False))


def test_newcomers_of_one_address_are_bounded_in_number() -> None:
    places: Places[Held] = Places(replace(LIMITS, accepts_burst=2.0, accepts_rate=1e-6), False)
    assert [leaves(places, "a") for _ in range(2)] == [None, None]
    with pytest.raises(NoPlace) as refused:
        places.count_newcomer("a")
    assert refused.value.reason == "connection_rate"
    assert leaves(places, "b") is None
