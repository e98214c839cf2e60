"""Who attacks gomem, and what comes of it: targets, parsers, scrapers, and our own memory.

`python -m tests.bench.attack` kills gomem 200 times and stops it 50 times at random moments while it looks at a target
that checks itself, gives mutants of real files to its parsers, floods its server, and lets a target lie to it. With
--quick it does a little of each. As root, with BPF.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.bench import attack_floods, attack_lies, attack_mutants, attack_signals
from tests.bench.attack_signals import SLOW, Felt
from tests.bench.overhead_noise import moment, quietness

_FULL, _QUICK = (200, 50, 1000, 12.0), (3, 2, 25, 1.0)


def signals(kills: int, stops: int, seed: int) -> None:
    """Print what the targets felt."""
    found, quiet = attack_signals.attack(kills, stops, seed)
    print(f"{'':<42} {'times':>6} {'probes on':>9} {'killed':>7} {'hung':>5} {'wrong':>6} {'slowed':>7} {'left':>5}")
    for number, what in enumerate(("SIGKILL", "SIGSTOP")):
        total = Felt()
        for name, felt in found.items():
            print(_felt(f"{what} of gomem {name}", felt[number]))
            total.add(felt[number])
        print(_felt(f"{what}, together", total))
        if total.paces:
            print(
                f"  while gomem was stopped, from 2 s on, the target made {min(total.paces):.2f} to "
                f"{max(total.paces):.2f} (median {statistics.median(total.paces):.2f}) of the rounds per CPU second of "
                f"its twin that nobody traced; with no tracer {min(quiet):.2f} to {max(quiet):.2f}"
            )
    print(
        f"  hung: no round in 3 s; wrong: rounds with a wrong sum; slowed: less than {SLOW} of its twin's rounds; "
        "left: a probe still there after 10 s",
        flush=True,
    )


def _felt(what: str, felt: Felt) -> str:
    slowed = str(felt.slowed) if felt.paces else "-"
    return (
        f"{what:<42} {felt.attacks:>6} {felt.probed:>9} {felt.killed:>7} {felt.hung:>5} {felt.wrong:>6} {slowed:>7} "
        f"{felt.left:>5}"
    )


def mutants(count: int, seed: int, directory: Path) -> None:
    """Print what the parsers made of them."""
    print(f"\n{'mutants of':<42} {'tried':>6} {'refused':>9} {'foreign errors':>15} {'slowest':>9}")
    for name, tried in attack_mutants.attack(count, seed, directory).items():
        foreign = sum(tried.foreign.values())
        print(f"{name:<42} {tried.mutants:>6} {tried.refused:>9} {foreign:>15} {1e3 * tried.slowest:>6.0f} ms")
        for error, times in tried.foreign.most_common(5):
            print(f"  {times} times {error}")
    print(
        "  refused: by an error of gomem's own; else the mutant was read, or passed over where it was damaged",
        flush=True,
    )


def floods(found: Iterable[attack_floods.Withstood]) -> None:
    """Print what scrapers got."""
    print(f"\n{'flood of gomem serve':<70} {'answered':>9} {'beside it':>10} {'slowest':>9} {'looks/s':>8}")
    for one in found:
        answered, own = f"{one.answered}/{one.asked}", f"{one.from_flood}/{one.asked}"
        print(f"{one.flood:<70} {answered:>9} {own:>10} {1e3 * one.slowest:>6.0f} ms {one.looks:>8.2f}", flush=True)
    print(
        "  answered: scrapes within 2 s from an address of their own; beside it: from the flood's address; slowest: of "
        "the former"
    )


def lies(found: Iterable[attack_lies.Lie]) -> None:
    """Print what they cost."""
    print(f"\n{'lie of a target':<70} {'peak of our RSS':>16}")
    for lie in found:
        print(f"{lie.what:<70} {lie.peak / attack_lies.MIB:>12.0f} MiB", flush=True)


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a little of each: whether it works")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the mutants")
    given = parser.parse_args()
    kills, stops, count, seconds = _QUICK if given.quick else _FULL
    begun, before = time.monotonic(), moment([])
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs, seed {given.seed}")
    signals(kills, stops, given.seed)
    with tempfile.TemporaryDirectory(prefix="gomem-attack-") as directory:
        mutants(count, given.seed, Path(directory))
        floods(attack_floods.attack(seconds))
        lies(attack_lies.attack(Path(directory)))
    _, sentence = quietness([before.until(moment([]))], os.cpu_count() or 1)
    print(f"{time.monotonic() - begun:.0f} s. {sentence}")


if __name__ == "__main__":
    main()
