"""Programs packed as UPX packs them: the file holds a scrambled program, which unpacks itself into memory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np

from tests.support.builds import TARGETS
from tests.support.requirements import program

SOURCE = TARGETS / "packed/packed.c"
# Where no Go program is linked.
_ELSEWHERE = 0x70000000


def packed(path: Path, directory: Path) -> Path:
    """Return a packed copy of a static program, of the same name."""
    raw = np.fromfile(path, np.uint8)
    key = (0x5A + np.arange(len(raw)) * 7).astype(np.uint8)
    (directory / "payload").write_bytes((raw ^ key).tobytes())
    made = directory / path.name
    subprocess.run(
        [
            program("gcc", "gcc"), "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-mno-sse",
            f'-DPAYLOAD="{directory / "payload"}"', f"-Wl,-Ttext-segment={_ELSEWHERE:#x}", "-o", made, SOURCE,
        ],
        check=True,
    )  # fmt: skip
    (directory / "payload").unlink()
    subprocess.run([shutil.which("strip") or "strip", made], check=True)
    return made
