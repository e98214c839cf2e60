"""How many scrapes a `gomem serve` answers while others flood it, and whether its looks go on."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench.attack_steady import steady
from tests.support.serving import Serving, serving

SCRAPE_SECONDS = 2.0  # patience of a scraper
_INTERVAL = 1.0  # seconds between two looks

_COMMON = """
import asyncio, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ASK = b"GET /metrics HTTP/1.1\\r\\nHost: a\\r\\nAccept-Encoding: gzip\\r\\n\\r\\n"

async def main(one):
    await asyncio.gather(*(one(number) for number in range(count)))

async def for_ever(what):
    while True:
        try:
            await what()
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)
"""
# Each of so many connects and hangs up, ten times a second.
_CONNECTIONS = """
async def one(number):
    async def what():
        reader, writer = await asyncio.open_connection(host, port)
        await asyncio.sleep(0.1)
        writer.close()
    await for_ever(what)
asyncio.run(main(one))
"""
# Each of so many asks, and then takes a byte of the answer each second.
_SLOW = """
async def one(number):
    async def what():
        reader, writer = await asyncio.open_connection(host, port, limit=1)
        writer.write(ASK * 20)
        while await reader.read(1):
            await asyncio.sleep(1)
    await for_ever(what)
asyncio.run(main(one))
"""
# Each of so many sends a byte of its request each second.
_LORIS = """
async def one(number):
    async def what():
        reader, writer = await asyncio.open_connection(host, port)
        for byte in ASK:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1)
            if reader.at_eof():
                return
    await for_ever(what)
asyncio.run(main(one))
"""
# Each of so many asks as fast as it is answered.
_WITHIN = """
async def one(number):
    async def what():
        reader, writer = await asyncio.open_connection(host, port)
        while True:
            writer.write(ASK)
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next(line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
    await for_ever(what)
asyncio.run(main(one))
"""
FLOODS = {
    "none": ("", 0),
    "50 clients that connect 10 times a second each": (_CONNECTIONS, 50),
    "31 clients that read a byte a second": (_SLOW, 31),
    "31 clients that send a byte a second": (_LORIS, 31),
    "31 clients, within all limits, that ask as fast as they are answered": (_WITHIN, 31),
}


@dataclass(frozen=True, slots=True)
class Withstood:
    """What an honest scraper from another address and from the flood's own got, and what the looks did meanwhile."""

    flood: str
    asked: int
    answered: int  # of those from another address
    from_flood: int  # of those from the flood's address
    slowest: float  # seconds that an answer took
    looks: float  # a second


def attack(seconds: float, every: float = 0.25) -> Iterator[Withstood]:
    """Flood a server for so long in each way, and scrape it all the while, a connection each time."""
    words = ("--interval", _INTERVAL, "--backend", "procfs")
    with steady() as target, serving("--pid", target.pid, *words) as served:
        served.until(lambda: served.followed(target.pid), "it being followed")
        for name in FLOODS:
            yield _withstand(served, name, seconds, every)


def _withstand(served: Serving, name: str, seconds: float, every: float) -> Withstood:
    before = _looks(served)
    begun = time.monotonic()
    with _flood(served, name):
        time.sleep(min(1.0, seconds / 4))
        asked, answers, own = 0, [], 0
        while time.monotonic() < begun + seconds:
            took = _scrape(served, "127.0.0.2")
            answers += [took] if took is not None else []
            own += _scrape(served, "127.0.0.1") is not None
            asked += 1
            time.sleep(every)
        spent = time.monotonic() - begun
        after = _looks(served)
    return Withstood(name, asked, len(answers), own, max(answers, default=0.0), (after - before) / spent)


def _looks(served: Serving) -> float:
    body = _ask(served, "127.0.0.3", 30.0).decode()
    return sum(float(line.split()[-1]) for line in body.splitlines() if line.startswith("gomem_looks_total{"))


def _scrape(served: Serving, address: str) -> float | None:
    begun = time.monotonic()
    try:
        _ask(served, address, SCRAPE_SECONDS)
    except (OSError, http.client.HTTPException):
        return None
    return time.monotonic() - begun


def _ask(served: Serving, address: str, patience: float) -> bytes:
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    client = http.client.HTTPConnection(host, int(port), timeout=patience, source_address=(address, 0))
    try:
        client.request("GET", "/metrics")
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(answer.status)
        return body
    finally:
        client.close()


@contextmanager
def _flood(served: Serving, name: str) -> Iterator[None]:
    script, count = FLOODS[name]
    if not script:
        yield
        return
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMON + script, host, port, str(count)], stderr=subprocess.DEVNULL
    )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the flood ended: {name}")
    finally:
        process.kill()
        process.wait()
