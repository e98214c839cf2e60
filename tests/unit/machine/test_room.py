from __future__ import annotations

from pathlib import Path

import pytest

from gomem.tracer.errors import SnapshotError
from gomem.tracer.machine.room import LARGEST_ROOM, SMALLEST_ROOM, Room, _cgroup_limits, memory_limit, room_for_one


def test_what_is_claimed_beyond_the_room_is_refused_and_what_was_given_back_can_be_taken_again() -> None:
    room = Room(1000)
    room.take(9, 100, "spans")
    with pytest.raises(SnapshotError, match="claims 2 spans"):
        room.take(2, 100, "spans")
    room.take(1, 100, "spans")
    room.give_back()
    room.take(10, 100, "spans")


def test_the_room_comes_from_our_own_limit() -> None:
    machine = int(Path("/proc/meminfo").read_text().split()[1]) << 10
    assert 0 < memory_limit() <= machine + (1 << 20)
    assert SMALLEST_ROOM <= room_for_one().size <= LARGEST_ROOM


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        ("0::/", {"memory.max": "268435456\n"}, [268435456]),
        ("0::/a/b", {"a/b/memory.max": "max\n", "a/memory.max": "1000\n"}, [1000]),
        ("0::/elsewhere/x", {"memory.max": "1000\n"}, [1000]),  # in a namespace of its own: the mount's root is ours
        ("5:cpu,memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": "4096\n"}, [4096]),
        ("5:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, []),
        ("5:cpu:/a", {"memory/a/memory.limit_in_bytes": "4096\n"}, []),
    ],
)
def test_limits_of_the_cgroup_and_its_ancestors_count(
    tmp_path: Path, membership: str, files: dict[str, str], limits: list[int]
) -> None:
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert _cgroup_limits(membership, tmp_path) == limits
