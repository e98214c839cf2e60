"""What is installed: one package with all that the repository has of it, which works without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gomem.tracer import __version__
from tests.support.requirements import absent

ROOT = Path(__file__).parents[2]
FOLDERS = ("tracer", "bpf", "exporters")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what git would commit, built as `make wheel` does."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if name.split("/")[0] in ("tests", "docs") or not (ROOT / name).exists():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            (source / name).symlink_to(os.readlink(ROOT / name))
        else:
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    done = subprocess.run([*pip, "--wheel-dir", directory, source], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "No matching distribution" in done.stderr:
            absent(f"setuptools cannot be downloaded: {done.stderr.strip()[-300:]}")
        pytest.fail(done.stderr)
    (built,) = directory.glob("*.whl")
    return built


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, cwd=cwd)
    return done.stdout


def test_it_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *FOLDERS, cwd=ROOT).split("\0")
    of_folders = {f"gomem/{name}" for name in filter(None, listed) if (ROOT / name).exists()}
    assert of_folders - names == set()
    assert {name for name in names - of_folders} == {"gomem/__init__.py", "gomem/__main__.py", "gomem/py.typed"}
    assert wheel.name.startswith(f"gomem-{__version__}-py3-none-any")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what gomem depends on comes from where the tests have it."""
    environment = tmp_path_factory.mktemp("venv")
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    site = site_of(python)
    zipfile.ZipFile(wheel).extractall(site)
    others = [path for path in sys.path if path.endswith("-packages")]
    (site / "dependencies.pth").write_text("\n".join(others))
    return python


def site_of(python: Path) -> Path:
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def test_a_virtual_environment_with_the_wheel_alone_looks_at_a_process(python: Path, tmp_path: Path) -> None:
    site = site_of(python)
    where, version = run(
        python, "-c", "import gomem.bpf.loading as m, gomem.tracer as t; print(m.__file__); print(t.__version__)",
        cwd=tmp_path,
    ).splitlines()  # fmt: skip
    assert Path(where).is_relative_to(site)
    assert version == __version__
    assert __version__ in run(python, "-m", "gomem", "--version", cwd=tmp_path)
    assert '"schema": "gomem.report/1"' in run(
        python, "-m", "gomem", "snapshot", os.getpid(), "--format", "json", cwd=tmp_path
    ).replace('":"', '": "')


@pytest.mark.bpf
def test_the_wheel_alone_serves_events(python: Path, tmp_path: Path) -> None:
    """The programs are compiled by a child: it has to find gomem where we did, and nothing of the repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", "gomem", "serve", "--pid", str(os.getpid()), "--listen", "127.0.0.1:0"]
    served = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert served.stderr is not None
        said = next(line for line in served.stderr if "events:" in line)
    finally:
        served.terminate()
        served.communicate()
    assert "events: bpf" in said
