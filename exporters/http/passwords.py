"""Basic authentication against bcrypt hashes, at a bounded price.

A check costs a tenth of a second of CPU, and clients decide when: so successful ones are remembered (as keyed digests,
never as passwords), one runs at a time with one more in wait, and failures are rationed by client and altogether.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum

from gomem.exporters.http.rates import Clock, PeerBuckets, TokenBucket

_MOST_REMEMBERED = 256
_LONGEST_CREDENTIALS = 1024
_BCRYPT_BYTES = 72  # bcrypt takes no notice of what follows
_SECONDS_IN_WAIT = 2.0
# Failures: so many at once, and so many a second.
_PEER_BURST, _PEER_RATE = 8.0, 0.5
_TOTAL_BURST, _TOTAL_RATE = 32.0, 3.0


class Judgement(Enum):
    """What came of a password."""

    RIGHT = 1
    WRONG = 2  # or none was given
    LATER = 3  # it was not looked at: too many are being tried


class Passwords:
    """Judges Authorization headers. Safe from several threads."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._peers = PeerBuckets(_PEER_BURST, _PEER_RATE, clock)
        self._total = TokenBucket(_TOTAL_BURST, _TOTAL_RATE, clock)
        self._checking = threading.Semaphore(1)
        self._waiting = threading.Semaphore(2)  # with the one that runs

    def judge(self, authorization: str, users: Mapping[str, str], peer: str) -> Judgement:
        """Judge an Authorization header of a client at `peer` against bcrypt hashes by user name."""
        credentials = parse_basic(authorization)
        if credentials is None:
            return Judgement.WRONG
        name, password = credentials
        known = users.get(name)
        # An unknown user costs as much time as a known one.
        dearest = max(users.values(), key=_cost, default="")
        hashed = known if known is not None else dearest
        mark = self._mark(name, hashed, password)
        with self._lock:
            if known is not None and mark in self._remembered:
                self._remembered.move_to_end(mark)
                return Judgement.RIGHT
            if not (self._peers.of(peer).ready() and self._total.ready()):
                return Judgement.LATER
        return self._check(password, hashed, dearest, known is not None, mark, peer)

    def _check(self, password: bytes, hashed: str, dearest: str, known: bool, mark: bytes, peer: str) -> Judgement:
        if not self._waiting.acquire(blocking=False):
            return Judgement.LATER
        try:
            if not self._checking.acquire(timeout=_SECONDS_IN_WAIT):
                return Judgement.LATER
            try:
                right = matches(password, hashed) and known
                for cost in range(_cost(hashed), _cost(dearest)) if not right else ():
                    matches(password, _of_nobody(cost))  # 2**a + 2**a + ... + 2**(b-1) = 2**b
            finally:
                self._checking.release()
        finally:
            self._waiting.release()
        with self._lock:
            if not right:
                self._peers.of(peer).take()
                self._total.take()
                return Judgement.WRONG
            self._remembered[mark] = None
            while len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return Judgement.RIGHT

    def _mark(self, name: str, hashed: str, password: bytes) -> bytes:
        parts = (name.encode("utf-8", "surrogateescape"), hashed.encode(), password)
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.new(self._secret, text, hashlib.sha256).digest()


def matches(password: bytes, hashed: str) -> bool:
    """Whether `password` has the bcrypt hash `hashed`; compares in constant time. Takes 2**cost."""
    import bcrypt

    if b"\0" in password:
        return False
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed.encode())
    except ValueError:
        return False


def parse_basic(authorization: str) -> tuple[str, bytes] | None:
    """Return (user, password) of a Basic Authorization header (RFC 7617), or None."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _LONGEST_CREDENTIALS:
        return None
    try:
        raw = base64.b64decode(encoded.strip(" ").encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    name, colon, password = raw.partition(b":")
    return (name.decode("utf-8", "surrogateescape"), password) if colon else None


def _cost(hashed: str) -> int:
    return int(hashed[4:6]) if hashed else 0


def _of_nobody(cost: int) -> str:
    """Return a hash that takes 2**cost to check, and that no password is known to have."""
    return f"$2b${cost:02}${'.' * 53}"
