"""Plugins that a program has loaded before it is watched, and libraries that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.go_marks import shares_packages
from gomem.tracer.watch.backend import TraceRequest
from gomem.tracer.watch.plugins import Plugin, Plugins
from tests.live.recording.test_recording_live import both, differences
from tests.support.builds import build
from tests.support.processes import running, wait_until
from tests.support.recording_until import LIMIT, Until

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

RELEASE = "1.25.5"


@pytest.fixture
def host() -> Path:
    return build("restless", RELEASE, mode="cgo", extra_flags=["-tags=plugins"])


@pytest.fixture
def plugin() -> Path:
    return build("extension", RELEASE, mode="cgo", extra_flags=["-buildmode=plugin"])


def test_a_running_programs_plugin_is_probed_and_named_also_in_a_recording(
    host: Path, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = tmp_path / "after"
    after.touch()
    search = Plugins.search
    loaded: list[str] = []

    def search_and_go_on(plugins: Plugins) -> list[Plugin]:
        found = search(plugins)
        loaded.extend(plugin.name for plugin in found)
        after.unlink()
        return found

    monkeypatch.setattr(Plugins, "search", search_and_go_on)
    command = host, "-seconds", "600", "-mb", "10", "-rest", "100ms", "-plugins", plugin, "-after", after
    with running(*command) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: str(plugin) in maps.read_text(), "the loading of the plugin")
        recorder = Until(tmp_path / "recording", lambda recorder: recorder.looks > 2 and all(recorder.hits("used")))
        traced, replayed = both(TraceRequest(process.pid, (), LIMIT, "bpf", True), recorder)
    assert loaded == [str(plugin)]
    assert [row.hits > 0 for row in traced.overhead.probes if row.role == "used"] == [True, True]
    assert traced.drift is not None
    assert traced.event_loss is not None
    assert (traced.event_loss.drift_bytes, traced.drift.illegal_count) == (0, 0), traced.drift
    assert traced.drift.exact_looks > 0
    assert traced.transitions
    assert all(row.function and row.function.startswith("runtime.") for row in traced.transitions), traced.transitions
    assert differences(traced, replayed) == {}


def test_what_shares_its_packages_is_told_from_programs_and_libraries(host: Path, plugin: Path) -> None:
    libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    assert libraries
    others = [build("restless", RELEASE), build("restless", RELEASE, mode="cgo-pie"), *map(Path, libraries)]
    for path, expected in [(plugin, True), *((path, False) for path in others)]:
        with Executable.open(path) as exe:
            assert shares_packages(exe) is expected, path
