"""A shell, or one command, as root in a virtual machine with one of the kernels and this machine's files.

    python -m tests.kernels.shell [--boot-with WORDS] KERNEL [-- COMMAND...]

What is written there is gone afterwards, but for what is in /run/results: build/kernels/shell-KERNEL here. The exit
status is the command's; 125 if there was no machine to run it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from tests.kernels.debian import KERNELS, KernelMissing, fetched
from tests.kernels.guest import entered
from tests.kernels.machine import MachineFailed, boot

ROOT = Path(__file__).parents[2]
_NO_MACHINE = 125
# The terminal's size does not reach the machine by itself, and is forgotten when nobody has the terminal open. A
# command's output is not changed on its way.
_SHELL = """\
{entered}
export PATH={ours}:$PATH TERM={term}
exec setsid --ctty sh -c 'stty {stty}; exec "$@"' sh {command} </dev/ttyS1 >/dev/ttyS1 2>&1
"""


def main() -> int:
    """Return the command's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.shell", description=(__doc__ or "").splitlines()[0])
    names = [kernel.name for kernel in KERNELS]
    parser.add_argument("kernel", metavar="KERNEL", choices=names, help=", ".join(names))
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="bash if there is none")
    parser.add_argument("--boot-with", metavar="WORDS", default="", help="for the kernel, such as lockdown=integrity")
    asked = parser.parse_args()
    kernel = next(one for one in KERNELS if one.name == asked.kernel)
    stty = "raw -echo" if asked.command else "sane"
    if not asked.command and sys.stdin.isatty():
        size = os.get_terminal_size(sys.stdin.fileno())
        stty += f" rows {size.lines} cols {size.columns}"
    command = shlex.join(asked.command or ["bash", "-l"])
    ours, term = shlex.quote(str(Path(sys.executable).parent)), shlex.quote(os.environ.get("TERM", "dumb"))
    script = _SHELL.format(entered=entered(ROOT), ours=ours, term=term, stty=stty, command=command)
    results = ROOT / "build" / "kernels" / f"shell-{kernel.name}"
    try:
        return boot(fetched(kernel), script, results, None, boot_with=asked.boot_with, terminal=True)
    except (KernelMissing, MachineFailed) as error:
        print(f"{kernel.name}: {error}", file=sys.stderr)
        return _NO_MACHINE


if __name__ == "__main__":
    sys.exit(main())
