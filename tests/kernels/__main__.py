"""Try gomem on other kernels, and write docs/support.md, and the tables of docs/security.md.

    python -m tests.kernels --here
    python -m tests.kernels [--always] [--only WORD]... [--but WORD]... [KERNEL...]

With --always only what is tried on each change is, and nothing is written. The logs of each machine are in
build/kernels/KERNEL.
"""

from __future__ import annotations

import argparse
import sys

from tests.kernels import results as outcomes
from tests.kernels.debian import KERNELS, KernelMissing
from tests.kernels.features import DOCTOR, FEATURES, Feature
from tests.kernels.machine import MachineFailed
from tests.kernels.trial import rights_here, tried

_LONGEST = 7200.0  # seconds that a machine may take


def main() -> int:
    """Return 1 if a test has failed or could not be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(kernel.name for kernel in KERNELS))
    parser.add_argument("--only", metavar="WORD", action="append", help="the features with this word in their names")
    parser.add_argument("--but", metavar="WORD", action="append", default=[], help="not those with this word")
    parser.add_argument("--always", action="store_true", help="only what is tried on each change; writes nothing")
    parser.add_argument("--here", action="store_true", help="which rights are enough on this machine's own kernel")
    asked = parser.parse_args()
    if asked.here:
        outcomes.keep_here(rights_here())
        outcomes.write()
        return 0
    known = {kernel.name: kernel for kernel in KERNELS}
    unknown = sorted(set(asked.kernels) - set(known))
    if unknown:
        parser.error(f"no such kernel: {', '.join(unknown)}")
    wanted = [feature for feature in FEATURES if feature.always or not asked.always]
    features = [feature for feature in wanted if _is_asked_for(feature, asked.only or [""], asked.but)]
    status = 0
    for kernel in [known[name] for name in asked.kernels] or KERNELS:
        try:
            found = tried(kernel, features, _LONGEST)
        except (KernelMissing, MachineFailed) as error:
            print(f"{kernel.name}: {error}", file=sys.stderr)
            status = 1
            continue
        states = [outcomes.outcome(feature, found) for feature in features]
        status |= any(state in (outcomes.FAILS, outcomes.UNTRIED) for state, _ in states)
        for feature, (state, why) in zip(features, states, strict=True):
            print(f"{kernel.name}  {feature.name}: {state} {why}".rstrip())
        if not asked.always:
            outcomes.keep(found)
            outcomes.write()
    return int(status)


def _is_asked_for(feature: Feature, only: list[str], but: list[str]) -> bool:
    if feature.tests == (DOCTOR,):
        return True  # in what way the others work
    return any(word in feature.name for word in only) and not any(word in feature.name for word in but)


if __name__ == "__main__":
    sys.exit(main())
