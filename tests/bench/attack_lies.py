"""What a target that lies makes gomem hold: the peak of its resident memory, against that of an honest target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.liar import liar
from tests.support.mapped_often import mapped_often
from tests.support.peak import peak

MIB = 1 << 20
LIMIT = 512 * MIB  # of gomem's data segment


@dataclass(frozen=True, slots=True)
class Lie:
    """What was claimed, and gomem's peak RSS when it looked at that, bytes."""

    what: str
    peak: int


def attack(directory: Path) -> Iterator[Lie]:
    """Let gomem look at an honest target and at each lie."""
    with liar() as target:
        yield Lie("none: an honest target", _peak(target.pid))
        for power in (22, 27):
            target.claim_spans(target.told("anonymous", 8 << power), 1 << power)
            yield Lie(f"allspans claims 2^{power} spans", _peak(target.pid))
    with liar() as target:
        target.told("memfd", 1024 * MIB, 2 * MIB)
        yield Lie("a file of 2 MB in RAM, mapped 512 times: 1 GB of RSS", _peak(target.pid))
    with mapped_often(directory / "mapped", 60_000, 14) as pid:
        yield Lie("60,000 mappings with paths of 3.5 KB: 210 MB of maps text", _peak(pid))


def _peak(pid: int) -> int:
    return peak("snapshot", "--pid", pid, limit=LIMIT)[0]
