"""Programs without what names them, as garble leaves them: no build information, no release, another magic.

garble (its patches of cmd/link) draws another magic for the function table of each program, and changes the runtime
that checks it. The names of the runtime's own functions stay.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from tests.support.builds import build
from tests.support.requirements import program

# Differs from all releases' in its lowest byte, the one that the runtime's code has (cmp edx, -15).
_LOWEST = b"\xe5"


def garbled(target: str, release: str, directory: Path) -> Path:
    """Return a program that runs as ever and says neither its release nor, by its magic, what it is."""
    path = build(target, release, stripped=True, extra_ldflags="-X=runtime.buildVersion=unknown")
    made = directory / target
    subprocess.run(
        [
            program("objcopy", "binutils"), "--remove-section=.go.buildinfo", "--remove-section=.note.go.buildid",
            path, made,
        ],
        check=True,
    )  # fmt: skip
    content = bytearray(made.read_bytes())
    with Executable.open(made) as exe:
        functions = FunctionTable.find(exe)
        at = exe.file_offset(functions.address)
        check = functions.lookup("runtime.moduledataverify1")[0]
        code = slice(exe.file_offset(check.entry), exe.file_offset(check.entry) + check.end - check.entry)
    pattern = b"\x83[\xf8-\xff]" + re.escape(bytes(content[at : at + 1]))
    content[code], changed = re.subn(pattern, lambda found: found[0][:2] + _LOWEST, content[code], flags=re.DOTALL)
    assert changed == 1
    content[at : at + 1] = _LOWEST
    made.write_bytes(content)
    made.chmod(0o755)
    return made
