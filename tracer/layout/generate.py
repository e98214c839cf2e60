"""Make the layout table of a Go release: `python -m gomem.tracer.layout.generate --toolchain GOROOT`.

Builds a small program with the toolchain, offline, and reads the DWARF of its runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import GomemError, LayoutError
from gomem.tracer.layout.dwarf import read_raw_layout
from gomem.tracer.layout.layout import RawLayout
from gomem.tracer.layout.patches import add_measured
from gomem.tracer.layout.tables import minor_of

TABLES = Path(__file__).parent / "tables"

# Touches the parts of the runtime whose types the linker would else leave out of the DWARF.
_PROGRAM = """package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
)

func main() {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	debug.FreeOSMemory()
	_ = pprof.Lookup("heap").WriteTo(os.Stdout, 0)
}
"""


def generate(goroot: Path, goarch: str = "amd64") -> RawLayout:
    """Return the table of the toolchain at `goroot` for linux/`goarch`. Raises LayoutError when it cannot build."""
    with tempfile.TemporaryDirectory(prefix="gomem-layout-") as directory:
        program = build_probe(goroot, goarch, Path(directory))
        with Executable.open(program) as exe:
            raw, _ = read_raw_layout(exe)
    raw["measured"] = [raw["go"]]
    raw["provenance"] = {
        "structs": f"DWARF of a linux/{goarch} program built with go{raw['go']}",
        "constants": f"DWARF constants and read-only data of the same program (go{raw['go']})",
    }
    return raw


def build_probe(goroot: Path, goarch: str, directory: Path) -> Path:
    """Build the unstripped program whose runtime is read; return its path. Needs no network."""
    (directory / "go.mod").write_text("module layoutprobe\n\ngo 1.17\n")
    (directory / "main.go").write_text(_PROGRAM)
    output = directory / "layoutprobe"
    environment = os.environ | {
        "GOROOT": str(goroot),
        "GOOS": "linux",
        "GOARCH": goarch,
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "GOWORK": "off",
    }
    command = [str(goroot / "bin" / "go"), "build", "-o", str(output), "."]
    try:
        subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        what = f"the Go toolchain at {goroot} cannot build: {reason}"
        raise LayoutError(what, "give GOROOT of a working toolchain") from error
    return output


def file_name(raw: RawLayout) -> str:
    """Return the table's file name: its minor release and architecture."""
    minor = minor_of("go" + raw["go"])
    if minor is None:
        raise LayoutError(f"{raw['go']!r} names no Go release")
    return f"go{minor[0]}.{minor[1]}-{raw['goarch']}.json"


def to_text(raw: RawLayout) -> str:
    """Return the table as JSON, one struct, global or constant a line, sorted: a diff shows what a release changed."""
    parts = [f'"{key}": {json.dumps(raw[key])}' for key in ("go", "goarch", "measured")]
    parts += [_section(name, raw[name]) for name in ("provenance", "constants", "globals", "structs")]
    earlier = [
        "{\n"
        + ",\n".join(
            [f'"measured": {json.dumps(block["measured"])}']
            + [_section(name, block[name]) for name in ("constants", "globals", "structs")]
        )
        + "\n}"
        for block in raw.get("earlier", [])
    ]
    if earlier:
        parts.append('"earlier": [' + ",\n".join(earlier) + "]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _section(name: str, rows: Mapping[str, object]) -> str:
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in sorted(rows.items()))
    return f'"{name}": {{\n{lines}\n}}'


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m gomem.tracer.layout.generate", description=__doc__)
    parser.add_argument("--toolchain", type=Path, required=True, metavar="GOROOT", help="root of a Go toolchain")
    parser.add_argument(
        "--patch",
        type=Path,
        action="append",
        default=[],
        metavar="GOROOT",
        help="root of an earlier patch release of the same minor, whose differences the table shall hold too",
    )
    parser.add_argument("--goarch", default="amd64", help="architecture to build for (default: amd64)")
    parser.add_argument("-o", "--output", type=Path, default=TABLES, metavar="DIR", help="where the table goes")
    options = parser.parse_args(arguments)
    try:
        raw = generate(options.toolchain, options.goarch)
        for other in options.patch:
            add_measured(raw, generate(other, options.goarch))
        path = options.output / file_name(raw)
        path.write_text(to_text(raw), encoding="utf-8")
    except (GomemError, OSError) as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
