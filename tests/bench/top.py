"""What `gomem top` costs with many processes, half of them busy: CPU and memory, of the screen too.

`make bench-top`, or: python -m tests.bench.top --processes 20 --seconds 60
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

from tests.bench.fleet import populate
from tests.bench.soak import cpu_seconds, status
from tests.support.churn import crowd
from tests.support.tmux import Window, window

CPU_LIMIT = 0.05  # of one core
_FIRST_LINE = re.compile(r"looks every (\S+ \S+)")


def main() -> None:
    """Measure and print; fail where gomem takes more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--warm-up", type=float, default=40.0, help="seconds after all have been looked at")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gomem-top-") as directory, crowd(Path(directory)) as there:
        populate(there, given.processes)
        began = time.monotonic()
        with window("top", "--exe", f"{directory}/*", columns=120, lines=40) as shown:
            shown.until(lambda lines: _all_there(lines, given.processes), "all being looked at")
            print(
                f"{given.processes} processes in the table {time.monotonic() - began:.1f} s after the start", flush=True
            )
            time.sleep(given.warm_up)
            over = [_measured(shown, "the table", given.seconds)]
            shown.press("Enter")
            time.sleep(10)
            _measured(shown, "one process opened, its map shown", given.seconds)
            shown.press("q")
            shown.status()
    if any(share > CPU_LIMIT for share in over):
        raise SystemExit(f"over the budget of {CPU_LIMIT:.0%} of a core")


def _all_there(lines: list[str], count: int) -> bool:
    text = "\n".join(lines)
    return f"{count} Go processes" in text and "starting:" not in text


def _measured(shown: Window, what: str, seconds: float) -> float:
    pid = shown.pid()
    before, used = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    share = (cpu_seconds(pid) - used) / (time.monotonic() - before)
    found = _FIRST_LINE.search(shown.screen()[0])
    memory = status(pid)
    print(
        f"{what}: CPU {share:.2%} of one core (budget {CPU_LIMIT:.0%}), RSS {memory['VmRSS'] / 1024:.0f} MB, "
        f"{memory['RssAnon'] / 1024:.0f} MB of it anonymous, looks every {found[1] if found else '?'}",
        flush=True,
    )
    return share


if __name__ == "__main__":
    main()
