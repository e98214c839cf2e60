"""Kernels without cookies (before Linux 5.15): what they refuse is taken out of the BPF programs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from gomem.bpf.program import SOURCE

_UNKNOWN_HELPER = 9999  # to every kernel, as 174 is to those before 5.15
_COMMAND = """\
#!{python}
import os
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command line does before it imports NumPy
from pathlib import Path
from gomem.bpf import allocations, shared_program
from gomem.tracer.cli import main
allocations.SOURCE = Path({programs!r}) / allocations.SOURCE.name
shared_program.SOURCE = Path({programs!r}) / shared_program.SOURCE.name
main()
"""


def programs_without_cookies(directory: Path) -> Path:
    """Return a copy of the programs' sources that calls a helper which no kernel has, in place of that for cookies."""
    copy = directory / "programs"
    shutil.copytree(SOURCE.parent, copy)
    header = copy / "arguments.h"
    text = header.read_text()
    asks = "u64 cookie = bpf_get_attach_cookie(ctx)"
    assert text.count(asks) == 1
    unknown = f"u64 (*unknown)(void *) = (void *){_UNKNOWN_HELPER}, cookie = unknown(ctx)"
    header.write_text(text.replace(asks, unknown))
    return copy


def command_without_cookies(directory: Path) -> Path:
    """Return a command that is gomem with these programs."""
    command = directory / "gomem"
    command.write_text(_COMMAND.format(python=sys.executable, programs=str(programs_without_cookies(directory))))
    command.chmod(0o755)
    return command
