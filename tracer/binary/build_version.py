"""The Go release of a program without build information (Go 1.12 and older): the string runtime.buildVersion.

cmd/link writes it into the program's data (-X runtime.buildVersion), and runtime.schedinit compares it with "".
"""

from __future__ import annotations

import re

from gomem.tracer.binary.code import references
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.errors import BinaryError

_VERSION = re.compile(rb"(?:go\d{1,3}\.\d{1,4}[ -~]{0,100}|devel [ -~]{1,120})")
_LONGEST = 128


def read_build_version(exe: Executable, functions: FunctionTable) -> str | None:
    """Return the release as the runtime knows it ("go1.11.2"), None when the code does not lead to exactly one."""
    found = functions.lookup("runtime.schedinit")
    if not found:
        return None
    try:
        read = {reference.target for reference in references(exe, found[0]) if reference.access == "read"}
    except BinaryError:
        return None
    # What is compared is the string's length, behind its pointer.
    versions = {version for target in read if (version := _string(exe, target - 8))}
    return versions.pop() if len(versions) == 1 else None


def _string(exe: Executable, header: int) -> str | None:
    try:
        start, length = exe.relocated(header), exe.relocated(header + 8)
        if not start or not length or length > _LONGEST:
            return None
        text = exe.read(start, length)
    except BinaryError:
        return None
    return text.decode() if _VERSION.fullmatch(text) else None
