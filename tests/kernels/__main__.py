"""Try gomem on other kernels, and write docs/support.md.

    python -m tests.kernels [--always] [--only WORD]... [KERNEL...]

With --always only what is tried on each change is, and nothing is written. The logs of each machine are in
build/kernels/KERNEL.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from tests.kernels import results as outcomes
from tests.kernels.debian import KERNELS, Kernel, KernelMissing, fetched
from tests.kernels.features import DOCTOR, FEATURES, Feature
from tests.kernels.guest import RELEASE
from tests.kernels.machine import MachineFailed, boot

ROOT = Path(__file__).parents[2]
_LONGEST = 3600.0  # seconds that a machine may take
_SCRIPT = """\
cd {root}
export HOME={home} PATH={path} LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 {cache}
{python} -m tests.kernels.guest /run/results {tests} >/run/results/guest.log 2>&1
"""


def main() -> int:
    """Return 1 if a test has failed or could not be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(kernel.name for kernel in KERNELS))
    parser.add_argument("--only", metavar="WORD", action="append", help="the features with this word in their names")
    parser.add_argument("--always", action="store_true", help="only what is tried on each change; writes nothing")
    asked = parser.parse_args()
    known = {kernel.name: kernel for kernel in KERNELS}
    unknown = sorted(set(asked.kernels) - set(known))
    if unknown:
        parser.error(f"no such kernel: {', '.join(unknown)}")
    words = asked.only or [""]
    wanted = [feature for feature in FEATURES if feature.always or not asked.always]
    features = [
        feature for feature in wanted if any(word in feature.name for word in words) or feature.tests == (DOCTOR,)
    ]
    status = 0
    for kernel in [known[name] for name in asked.kernels] or KERNELS:
        try:
            found = _run(kernel, features)
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
    if not asked.always:
        outcomes.PAGE.write_text(outcomes.page(outcomes.kept()))
    return int(status)


def _run(kernel: Kernel, features: list[Feature]) -> outcomes.Results:
    directory = ROOT / "build" / "kernels" / kernel.name
    shutil.rmtree(directory, ignore_errors=True)
    tests = dict.fromkeys(test for feature in features for test in feature.tests if test != DOCTOR)
    cache = os.environ.get("XDG_CACHE_HOME")
    script = _SCRIPT.format(
        root=shlex.quote(str(ROOT)), home=shlex.quote(str(Path.home())), path=shlex.quote(os.environ["PATH"]),
        cache=f"XDG_CACHE_HOME={shlex.quote(cache)}" if cache else "", python=shlex.quote(sys.executable),
        tests=shlex.join(tests),
    )  # fmt: skip
    began = time.monotonic()
    files = fetched(kernel)
    try:
        boot(files, script, directory, _LONGEST)
    except MachineFailed as error:
        if not (directory / RELEASE).exists():
            raise
        print(f"{kernel.name}: {error}", file=sys.stderr)  # what it has written is what there is
    print(f"{kernel.name}: {time.monotonic() - began:.0f} s; logs in {directory}", file=sys.stderr)
    return outcomes.read(kernel.name, directory)


if __name__ == "__main__":
    sys.exit(main())
