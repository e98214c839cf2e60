"""The build information that cmd/link puts into every Go program: release, modules, build settings.

Source: debug/buildinfo/buildinfo.go and runtime/debug/mod.go. Up to Go 1.17 the header points at two Go
strings; from Go 1.18 on the strings follow it, each after its length as a varint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct, field

from gomem.tracer.binary.elf import PF_W, SHT_NOBITS
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError

MAGIC = b"\xff Go buildinf:"
_ALIGN = 16
_HEADER_SIZE = 32
_POINTER_SIZE_AT, _FLAGS_AT = 14, 15
_BIG_ENDIAN, _INLINE = 1, 2
# The framing that cmd/go puts around the module lines, so that tools can find them.
_FRAME = 16
_MAX_VERSION = 4096
_MAX_MODULES = 1 << 24
# The magic may also stand in a program's own data (one that reads build information itself).
_MAX_CANDIDATES = 64


class Module(Struct, frozen=True):
    """A module that was linked in; `replaced_by` is its "=>" line."""

    path: str
    version: str
    replaced_by: Module | None = None


class BuildInfo(Struct, frozen=True):
    """What `go version -m` shows. Fields are "" (or empty) where the program was built without them."""

    go_version: str  # "go1.23.9", also "go1.22.1 X:boringcrypto" or "devel go1.24-..."
    main_path: str = ""  # import path of the main package
    main_module: str = ""
    main_version: str = ""
    settings: dict[str, str] = field(default_factory=dict)  # "CGO_ENABLED", "-buildmode", "GOARCH", "vcs.revision"
    dependencies: tuple[Module, ...] = ()


def read_build_info(exe: Executable) -> BuildInfo | None:
    """Return the build information; None when there is none, so that it is no Go program (of Go 1.13 or later).

    BinaryError when it is there but broken: a Go program of unknown release is another case than none.
    """
    broken: BinaryError | None = None
    for address in _candidates(exe):
        try:
            version, lines = _read_strings(exe, address)
        except BinaryError as why:
            broken = broken or why
            continue
        if version:
            return parse_modules(version, lines)
    if broken:
        raise broken
    return None


def _candidates(exe: Executable) -> Iterator[int]:
    section = exe.section(".go.buildinfo")
    if section is not None and section.type != SHT_NOBITS:
        yield section.address
        return
    found = 0
    for segment in sorted(exe.segments, key=lambda segment: not segment.flags & PF_W):
        for address in exe.occurrences(MAGIC, segment, align=_ALIGN):
            yield address
            found += 1
            if found >= _MAX_CANDIDATES:
                return


def _read_strings(exe: Executable, address: int) -> tuple[str, str]:
    header = exe.read(address, _HEADER_SIZE)
    if not header.startswith(MAGIC):
        raise exe.error("corrupt build information: its section does not start with the magic")
    flags = header[_FLAGS_AT]
    if flags & _INLINE:
        version, end = _inline_string(exe, address + _HEADER_SIZE, _MAX_VERSION)
        lines, _ = _inline_string(exe, end, _MAX_MODULES)
    elif flags & _BIG_ENDIAN or header[_POINTER_SIZE_AT] != 8:
        raise exe.error("corrupt build information: written for another kind of machine")
    else:
        version = _pointed_string(exe, exe.relocated(address + 16), _MAX_VERSION)
        lines = _pointed_string(exe, exe.relocated(address + 24), _MAX_MODULES)
    framed = len(lines) >= 2 * _FRAME + 1 and lines[-_FRAME - 1 : -_FRAME] == b"\n"
    text = lines[_FRAME:-_FRAME] if framed else b""
    return version.decode("utf-8", "replace"), text.decode("utf-8", "replace")


def _inline_string(exe: Executable, address: int, limit: int) -> tuple[bytes, int]:
    """Return the string whose varint length stands at the address, and the address behind it."""
    length = 0
    for position, byte in enumerate(exe.read_up_to(address, 5)):
        length |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            if length > limit:
                break
            start = address + position + 1
            return (exe.read(start, length) if length else b""), start + length
    raise exe.error("corrupt build information: a string without a plausible length")


def _pointed_string(exe: Executable, address: int | None, limit: int) -> bytes:
    """Return the Go string (pointer, length) at the address; a missing one is empty, as is one that lies in bss."""
    if not address or exe.in_bss(address):
        return b""
    start, length = exe.relocated(address), exe.relocated(address + 8)
    if start is None or length is None or length > limit:
        raise exe.error("corrupt build information: a string outside the file")
    return exe.read(start, length) if length else b""


def parse_modules(go_version: str, lines: str) -> BuildInfo:
    """Parse the module lines ("path", "mod", "dep", "=>", "build", each with a tab); skip what is not understood."""
    main_path, main = "", Module("", "")
    dependencies: list[Module] = []
    settings: dict[str, str] = {}
    for line in lines.split("\n"):
        kind, _, rest = line.partition("\t")
        columns = rest.split("\t")
        version = columns[1] if len(columns) > 1 else ""
        if kind == "path":
            main_path = rest
        elif kind == "mod":
            main = Module(columns[0], version)
        elif kind == "dep":
            dependencies.append(Module(columns[0], version))
        elif kind == "=>" and dependencies:
            last = dependencies[-1]
            dependencies[-1] = Module(last.path, last.version, Module(columns[0], version))
        elif kind == "build":
            key, value = _setting(rest)
            if key:
                settings[key] = value
    return BuildInfo(go_version, main_path, main.path, main.version, settings, tuple(dependencies))


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|`([^`]*)`')
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))")
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _setting(text: str) -> tuple[str, str]:
    """Split key=value, either of which may be a quoted Go string."""
    quoted = _QUOTED.match(text)
    if quoted:
        key, value = _unquote(quoted), text[quoted.end() :].removeprefix("=")
    else:
        key, _, value = text.partition("=")
    quoted = _QUOTED.fullmatch(value)
    return key, _unquote(quoted) if quoted else value


def _unquote(match: re.Match[str]) -> str:
    raw = match.group(2)
    return raw if raw is not None else _ESCAPE.sub(_unescape, match.group(1))


def _unescape(match: re.Match[str]) -> str:
    two, four, eight, octal, simple = match.groups()
    if simple is not None:
        return _SIMPLE.get(simple, simple)
    code = int(octal, 8) if octal else int(two or four or eight, 16)
    return chr(code) if code <= 0x10FFFF else "\ufffd"
