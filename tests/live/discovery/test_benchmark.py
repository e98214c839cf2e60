from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_benchmark_runs_and_prints_its_figures() -> None:
    command = [sys.executable, "-m", "tests.bench.discovery", "--seconds", "0.3", "--rate", "100"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^a Go program +first time +\d+ us +remembered +[\d.]+ us$", done.stdout, re.MULTILINE)
    assert re.search(r"^scan +\d+ processes in", done.stdout, re.MULTILINE)
    assert len(re.findall(r"% of a core; heard of \d+ of \d+, at most", done.stdout)) == 4
