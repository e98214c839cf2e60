"""The cache of layouts from DWARF: what comes out of it is what the program's DWARF says, whatever is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import LayoutError
from gomem.tracer.layout import dwarf_cache
from gomem.tracer.layout.comparison import contradictions
from gomem.tracer.layout.dwarf_cache import cached_layout_from_dwarf, entry_key
from gomem.tracer.layout.layout import Layout
from gomem.tracer.machine.entry_cache import MOST_ENTRIES, cache_directory
from tests.live.layout.conftest import probe
from tests.support.dwarf import layout_from_dwarf
from tests.support.requirements import program as tool

RELEASE = "1.25.5"


@pytest.fixture
def path() -> Path:
    return probe(RELEASE, "amd64")


def through_the_cache(path: Path, directory: Path) -> tuple[Layout, dict[str, int]]:
    with Executable.open(path) as exe:
        return cached_layout_from_dwarf(exe, directory)


def the_same(left: tuple[Layout, dict[str, int]], right: tuple[Layout, dict[str, int]]) -> bool:
    assert left[0].struct_names == right[0].struct_names
    assert left[0].constant_names == right[0].constant_names
    return not contradictions(left[0], right[0]) and left[1] == right[1] and left[0].source == right[0].source


@pytest.fixture
def truth(path: Path) -> tuple[Layout, dict[str, int]]:
    with Executable.open(path) as exe:
        return layout_from_dwarf(exe)


def test_the_second_look_parses_nothing_and_says_the_same(
    path: Path, truth: tuple[Layout, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert the_same(through_the_cache(path, tmp_path / "a" / "b"), truth)
    monkeypatch.setattr(dwarf_cache, "read_raw_layout", lambda exe: pytest.fail("parsed again"))
    assert the_same(through_the_cache(path, tmp_path / "a" / "b"), truth)
    (entry,) = (tmp_path / "a" / "b").iterdir()
    assert entry.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "no JSON", "another's", "directory", "FIFO", "link"])
def test_a_damaged_entry_is_ignored_and_written_anew(
    damage: str, path: Path, truth: tuple[Layout, dict[str, int]], tmp_path: Path
) -> None:
    through_the_cache(path, tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    if damage == "another's":
        other = probe("1.27.3", "amd64")
        through_the_cache(other, tmp_path)
        (theirs,) = set(tmp_path.iterdir()) - {entry}
        theirs.replace(entry)
    elif damage in ("directory", "FIFO", "link"):
        entry.unlink()
        make: dict[str, Callable[[], None]] = {
            "directory": entry.mkdir,
            "FIFO": partial(os.mkfifo, entry),
            "link": partial(entry.symlink_to, "/dev/zero"),
        }
        make[damage]()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        entry.write_bytes({"empty": b"", "cut": whole[:-1], "flipped": flipped, "no JSON": b"x\n{"}[damage])
    assert the_same(through_the_cache(path, tmp_path), truth)
    if damage != "directory":
        assert entry.read_bytes() == whole


def test_an_entry_that_somebody_else_could_have_written_is_not_read(path: Path, tmp_path: Path) -> None:
    through_the_cache(path, tmp_path)
    (entry,) = tmp_path.iterdir()
    before = entry.stat().st_ino
    entry.chmod(0o666)
    through_the_cache(path, tmp_path)
    assert entry.stat().st_ino != before
    assert entry.stat().st_mode & 0o077 == 0


def test_a_program_gets_only_what_its_own_build_id_and_its_own_dwarf_say(path: Path, tmp_path: Path) -> None:
    raw = path.read_bytes()
    with Executable.open(path) as exe:
        build_id, key, info = exe.go_build_id, entry_key(exe), exe.section(".debug_info") or exe.section(".zdebug_info")
        assert build_id is not None
        assert info is not None
    other_id = raw.replace(build_id.encode(), build_id[::-1].encode())
    other_dwarf = bytearray(raw)
    other_dwarf[info.offset + info.size // 2] ^= 1
    keys = {key}
    for content in (other_id, bytes(other_dwarf), raw + b"\0"):
        (tmp_path / "program").write_bytes(content)
        with Executable.open(tmp_path / "program") as exe:
            keys.add(entry_key(exe))
    assert len(keys) == 4
    without = raw.replace(b"Go\0\0" + build_id.encode(), b"No\0\0" + build_id.encode())
    (tmp_path / "program").write_bytes(without)
    with Executable.open(tmp_path / "program") as exe:
        assert entry_key(exe) is None or exe.gnu_build_id


def test_a_cache_that_cannot_be_written_changes_nothing(
    path: Path, truth: tuple[Layout, dict[str, int]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert the_same(through_the_cache(path, tmp_path / "file" / "below"), truth)
    assert the_same(through_the_cache(path, Path("/proc/gomem")), truth)


def test_no_dwarf_is_an_error_with_or_without_a_cache(path: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    subprocess.run([tool("strip", "binutils"), "-o", stripped, path], check=True)
    with Executable.open(stripped) as exe, pytest.raises(LayoutError):
        cached_layout_from_dwarf(exe, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_cache_stays_small_and_keeps_what_is_used(path: Path, tmp_path: Path) -> None:
    through_the_cache(path, tmp_path)
    (used,) = tmp_path.iterdir()
    long_ago = time.time() - 86400
    for number in range(MOST_ENTRIES + 20):
        old = tmp_path / f"{number:064x}"
        old.write_bytes(b"old")
        os.utime(old, (long_ago, long_ago))
    os.utime(used, (long_ago - 1, long_ago - 1))
    half_written = tmp_path / ".new-abandoned"
    half_written.write_bytes(b"")
    os.utime(half_written, (long_ago, long_ago))
    through_the_cache(path, tmp_path)
    through_the_cache(probe("1.27.3", "amd64"), tmp_path)
    assert used.exists()
    assert not half_written.exists()
    assert len(list(tmp_path.iterdir())) == MOST_ENTRIES


def test_many_at_once_see_whole_entries_only(path: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.live.layout.test_dwarf_cache import *\n"
        "entries = Path(sys.argv[2])\n"
        "with Executable.open(sys.argv[1]) as exe: truth = layout_from_dwarf(exe)\n"
        "for turn in range(20):\n"
        "    assert the_same(through_the_cache(Path(sys.argv[1]), entries), truth)\n"
        "    for entry in entries.iterdir():\n"
        "        if turn % 3 == 0: entry.unlink(missing_ok=True)\n"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path)]
    root = Path(__file__).parents[3]
    runs = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    assert all(not entry.name.startswith(".new-") for entry in tmp_path.iterdir())


NOBODY = 65534
_AS_ROOT = "only root can run with another user's HOME"


def forgotten(directory: Path, count: int = MOST_ENTRIES + 20, owner: int = NOBODY) -> set[Path]:
    """Write files that look like the oldest entries of a cache."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / f"{number:064x}" for number in range(count)]
    for file in (*files, directory / ".new-keepsake", directory / "keepsake"):
        file.write_bytes(b"somebody's")
        os.utime(file, (1, 1))
        os.chown(file, owner, owner)
    return set(directory.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason=_AS_ROOT)
@pytest.mark.parametrize("level", ["home", ".cache", "gomem", "dwarf"])
def test_a_link_of_another_user_leads_nobody_into_anothers_files(level: str, path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    levels = ["home", ".cache", "gomem", "dwarf"]
    below = levels[levels.index(level) + 1 :]
    there = forgotten(victim.joinpath(*below), owner=0)
    at = tmp_path
    for name in levels[: levels.index(level)]:
        at = at / name
        at.mkdir()
        os.chown(at, NOBODY, NOBODY)
    (at / level).symlink_to(victim)
    os.chown(at / level, NOBODY, NOBODY, follow_symlinks=False)
    through_the_cache(path, tmp_path.joinpath(*levels))
    assert set(victim.joinpath(*below).iterdir()) == there


@pytest.mark.skipif(os.geteuid() != 0, reason=_AS_ROOT)
@pytest.mark.parametrize("whose", ["another's", "writable for a group", "below another's"])
def test_a_directory_in_which_others_have_a_say_is_left_alone(whose: str, path: Path, tmp_path: Path) -> None:
    directory = tmp_path / "home" / "dwarf"
    there = forgotten(directory, owner=0)
    if whose == "writable for a group":
        directory.chmod(0o770)
    else:
        os.chown(directory if whose == "another's" else directory.parent, NOBODY, NOBODY)
    through_the_cache(path, directory)
    assert set(directory.iterdir()) == there


@pytest.mark.skipif(os.geteuid() != 0, reason=_AS_ROOT)
def test_only_entries_that_are_our_own_are_deleted(path: Path, tmp_path: Path) -> None:
    theirs = forgotten(tmp_path / "cache")
    through_the_cache(path, tmp_path / "cache")
    assert len(set((tmp_path / "cache").iterdir()) - theirs) == 1
    assert theirs < set((tmp_path / "cache").iterdir())
    ours = {file for file in forgotten(tmp_path / "mine", owner=os.geteuid()) if len(file.name) < 64}
    through_the_cache(path, tmp_path / "mine")
    left = set((tmp_path / "mine").iterdir())
    assert ours - left == {tmp_path / "mine" / ".new-keepsake"}
    assert len([file for file in left if len(file.name) == 64]) == MOST_ENTRIES


def test_a_link_that_is_our_own_or_roots_is_followed_on_the_way(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    through_the_cache(path, tmp_path / "link" / "gomem" / "dwarf")
    assert len(list((tmp_path / "real" / "gomem" / "dwarf").iterdir())) == 1


@pytest.mark.parametrize("level", ["gomem", "dwarf"])
def test_a_link_in_place_of_the_cache_is_not_followed_even_if_it_is_our_own(
    level: str, path: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "gomem" / "dwarf"
    elsewhere = tmp_path / "elsewhere"
    below = cache.relative_to(tmp_path / "gomem" if level == "gomem" else cache)
    there = forgotten(elsewhere / below, owner=os.geteuid())
    link = cache if level == "dwarf" else cache.parent
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    through_the_cache(path, cache)
    assert set((elsewhere / below).iterdir()) == there


def test_the_directory_is_where_the_xdg_specification_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/gopher")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/gopher")
    assert cache_directory("dwarf") == Path("/var/cache/gopher/gomem/dwarf")
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_directory("dwarf") == Path("/home/gopher/.cache/gomem/dwarf")


def test_a_program_of_50_mb_takes_less_than_two_seconds_without_the_cache(path: Path, tmp_path: Path) -> None:
    """As many bytes of DWARF as a large program has: copies of what this one says of packages other than runtime."""
    objcopy = tool("objcopy", "binutils")
    plain, large = tmp_path / "plain", tmp_path / "large"
    subprocess.run([objcopy, "--decompress-debug-sections", path, plain], check=True)
    with Executable.open(plain) as exe:
        section = exe.section(".debug_info")
        assert section is not None
        content = exe.read_at(section.offset, section.size)
    at, others = 0, b""
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        others += content[at:end] if b"runtime\0" not in content[at : at + 64] else b""
        at = end
    missing = (50 << 20) - plain.stat().st_size
    (tmp_path / "info").write_bytes(content + others * (missing // len(others) + 1))
    shutil.copy2(plain, large)
    subprocess.run([objcopy, "--update-section", f".debug_info={tmp_path / 'info'}", large], check=True)
    assert large.stat().st_size >= 50 << 20
    spent: list[float] = []
    while not spent or (min(spent) >= 2 and len(spent) < 5):  # a machine may be slow for a while
        started = time.process_time()
        _, addresses = through_the_cache(large, tmp_path / f"cache{len(spent)}")
        spent.append(time.process_time() - started)
    assert min(spent) < 2
    with Executable.open(path) as exe:
        assert addresses == layout_from_dwarf(exe)[1]
