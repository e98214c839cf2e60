"""The directory of black boxes: whole or not at all, within bounds, and nothing of anybody else's is touched."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.exporters.black_box.storage import NotKept, Storage, name_of
from gomem.tracer.errors import GomemError, NotPermitted

FILES = {"report.json": b"{}\n" * 1000, "heap.pb.gz": b"x" * 5000}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(tmp_path / "boxes", 1 << 20, 3)
    made.open()
    yield made
    made.close()


def name(number: int, program: str = "api") -> str:
    return name_of(program, 4711, f"20260301T1200{number:02}Z")


def there(storage: Storage) -> list[str]:
    return sorted(os.listdir(storage.path))


def test_a_black_box_is_ours_alone(storage: Storage) -> None:
    path = storage.save(name(1), FILES)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == FILES
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(storage.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


def test_the_oldest_go_when_there_are_too_many(storage: Storage) -> None:
    for number in (3, 1, 2):
        storage.save(name(number, f"p{number}"), FILES)
    storage.save(name(4), FILES)
    assert there(storage) == sorted([name(2, "p2"), name(3, "p3"), name(4)])


def test_the_oldest_go_when_they_take_too_much(tmp_path: Path) -> None:
    storage = Storage(tmp_path, 100 << 10, 1000)
    storage.open()
    for number in range(10):
        storage.save(name(number), {"report.json": bytes(20 << 10)})  # 24 KB on the disk
        taken = sum(path.stat().st_size + 4096 for path in tmp_path.glob("*/*"))
        assert taken <= 100 << 10
    assert there(storage) == [name(number) for number in (6, 7, 8, 9)]
    with pytest.raises(NotKept, match="more than all may have"):
        storage.save(name(11), {"report.json": bytes(101 << 10)})
    assert there(storage) == [name(number) for number in (6, 7, 8, 9)]
    storage.close()


def test_what_is_somebody_elses_is_neither_counted_nor_removed(storage: Storage, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "report.json").write_text("kept")
    (storage.path / name(0)).symlink_to(elsewhere)
    noted = storage.save(name(1), FILES)
    (noted / "notes.txt").write_text("why it died")
    (storage.path / "README").write_text("")
    for number in range(2, 8):
        storage.save(name(number), FILES)
    assert there(storage) == sorted(["README", *(name(number) for number in (0, 1, 5, 6, 7))])
    assert (elsewhere / "report.json").read_text() == "kept"
    assert len(list(noted.iterdir())) == 3


@pytest.mark.parametrize("fails_at", [0, 1, 3, 5])
def test_a_disk_that_is_full_at_any_moment_leaves_what_was_there(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    before = storage.save(name(1), FILES)
    calls = 0
    real = os.write

    def write(fd: int, content: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls > fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, content[:4000])

    monkeypatch.setattr(os, "write", write)
    if fails_at == 5:
        storage.save(name(2), {"report.json": b"short"})
    else:
        with pytest.raises(OSError, match="No space left"):
            storage.save(name(2), {"report.json": bytes(20000)})
    monkeypatch.undo()
    assert there(storage) == [name(1)] + [name(2)] * (fails_at == 5)
    assert {file.name for file in before.iterdir()} == set(FILES)


def test_what_was_left_half_written_goes_at_the_next_start(tmp_path: Path) -> None:
    half = tmp_path / f".{name(1)}"
    half.mkdir()
    (half / "report.json").write_text("{")
    (tmp_path / ".other").mkdir()
    storage = Storage(tmp_path)
    storage.open()
    assert there(storage) == [".other"]
    storage.close()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "boxes").symlink_to(tmp_path / "real")
    with pytest.raises(GomemError, match="boxes"):
        Storage(tmp_path / "boxes").open()


def test_a_directory_that_others_may_write_into_is_taken_over_only_while_it_is_empty(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    storage = Storage(tmp_path)
    storage.open()
    storage.close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    (tmp_path / "theirs").write_text("")
    tmp_path.chmod(0o777)
    with pytest.raises(NotPermitted, match="others may write into it"):
        storage.open()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("program", "begin"),
    [("api", "api-"), ("../../etc/x", "_.._etc_x-"), ("-rf", "rf-"), (".hidden", "hidden-"), ("a\nb\x1b[", "a_b__-"),
     ("", "unknown-"), ("é" * 300, "_" * 64 + "-")],
)  # fmt: skip
def test_the_name_of_a_program_leads_nowhere(program: str, begin: str, storage: Storage) -> None:
    made = name_of(program, 7, "20260301T120000Z")
    assert made.startswith(begin + "7-")
    assert storage.save(made, FILES).parent == storage.path
    assert there(storage) == [made]
