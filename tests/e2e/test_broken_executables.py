"""Go programs that run although their files are truncated, corrupt or of a release that nobody knows."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import gomem, obeys_the_rules
from tests.support.parked import parked

RELEASE = "1.25.5"
BUILD_INFO = b"\xff Go buildinf:"
PT_LOAD = 1
BOUNDED = ["prlimit", "--as=4294967296"]


def _loaded_end(image: bytes) -> int:
    """Return the end of what the kernel maps of an ELF file."""
    at, size, count = *struct.unpack_from("<Q", image, 32), *struct.unpack_from("<HH", image, 54)
    ends = [0]
    for entry in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", image, at + entry * size)
        if kind == PT_LOAD:
            ends.append(offset + length)
    return max(ends)


def _overwritten(image: bytes, at: int, new: bytes) -> bytes:
    assert 0 <= at <= len(image) - len(new)
    return image[:at] + new + image[at + len(new) :]


def _noise(count: int) -> bytes:
    return random.Random(count).randbytes(count)


def _section_table(image: bytes) -> int:
    (at,) = struct.unpack_from("<Q", image, 40)
    return int(at)


def _every_section_size_huge(image: bytes) -> bytes:
    (count,) = struct.unpack_from("<H", image, 60)
    for section in range(1, count):
        image = _overwritten(image, _section_table(image) + section * 64 + 32, struct.pack("<Q", 2**62))
    return image


def _sections_that_overlap(image: bytes) -> bytes:
    (count,) = struct.unpack_from("<H", image, 60)
    for section in range(1, count):
        image = _overwritten(image, _section_table(image) + section * 64 + 24, struct.pack("<QQ", 0, len(image)))
    return image


def _function_names_of_noise(image: bytes) -> bytes:
    at = image.index(b"\0runtime.mallocinit\0")
    return _overwritten(image, at - 4096, _noise(8192))


BREAKAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated behind what is mapped": lambda image: image[: _loaded_end(image)],
    "truncated within what is not mapped": lambda image: image[: (_loaded_end(image) + len(image)) // 2],
    "section table beyond the end": lambda image: _overwritten(image, 40, struct.pack("<Q", 2**63)),
    "section table of noise": lambda image: _overwritten(image, _section_table(image), _noise(20 * 64)),
    "65535 sections": lambda image: _overwritten(image, 60, struct.pack("<HH", 0xFFFF, 0xFFFE)),
    "sections of 4 EB": _every_section_size_huge,
    "sections that overlap": _sections_that_overlap,
    "build info without its magic": lambda image: image.replace(BUILD_INFO, b"\0" * len(BUILD_INFO)),
    "build info with huge lengths": lambda image: _overwritten(
        image, image.index(BUILD_INFO) + 32, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    ),
    "build info of noise": lambda image: _overwritten(image, image.index(BUILD_INFO) + 16, _noise(64)),
    "function names of noise": _function_names_of_noise,
    "a release that nobody knows": lambda image: image.replace(b"go1.25.5", b"go1.99.1"),
    "a release that is none": lambda image: image.replace(b"go1.25.5", b"go??????"),
}


@pytest.mark.parametrize("stripped", [False, True], ids=["unstripped", "stripped"])
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_executable_costs_no_more_than_the_figures_it_hides(
    breakage: str, stripped: bool, tmp_path: Path
) -> None:
    broken = tmp_path / "program"
    broken.write_bytes(BREAKAGES[breakage](build("parked", RELEASE, stripped=stripped).read_bytes()))
    broken.chmod(0o755)
    with parked(broken, live=8) as target:
        done = gomem("snapshot", "--pid", target.pid, "--format", "json", under=BOUNDED)
        report = done.report()
        before = dict(target.emitted)
        assert target.memstats() == before, "the target is as it was"
    assert report["virtual"]["total"] > 0
    obeys_the_rules(report)
    if report["memstats"] is None:
        assert report["limits"]
    else:
        for name in ("HeapSys", "HeapInuse", "HeapReleased", "Mallocs", "StackInuse"):
            assert report["memstats"][name] in (None, before[name]), "a wrong figure is worse than none"


@pytest.mark.parametrize("stripped", [False, True], ids=["unstripped", "stripped"])
def test_an_unknown_release_is_marked_in_the_limits(stripped: bool, tmp_path: Path) -> None:
    unknown = tmp_path / "program"
    unknown.write_bytes(build("parked", RELEASE, stripped=stripped).read_bytes().replace(b"go1.25.5", b"go1.99.1"))
    unknown.chmod(0o755)
    with parked(unknown, live=8) as target:
        report = gomem("snapshot", "--pid", target.pid, "--format", "json").report()
    assert report["process"]["go_version"] == "go1.99.1"
    assert report["process"]["layout"] in ("dwarf", "nearest", None)
    if report["process"]["layout"] != "dwarf":
        assert any("1.99.1" in limit["what"] + limit["why"] for limit in report["limits"])
