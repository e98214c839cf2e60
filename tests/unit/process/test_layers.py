from __future__ import annotations

import pytest

from gomem.tracer.proc.mounts import parse_mountinfo
from gomem.tracer.proc.served import layers


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("rw,lowerdir=/l/2:/l/1,upperdir=/u,workdir=/w", ["/l/2", "/l/1", "/u"]),
        ("ro,lowerdir+=/l/2,lowerdir+=/l/1,datadir+=/d", ["/l/2", "/l/1", "/d"]),
        ("ro,lowerdir=/l/2:/l/1::/d", ["/l/2", "/l/1", "/d"]),  # :: stands before layers of data
        ("rw,lowerdir=l/2:l/1,upperdir=u", []),  # relative to where somebody stood
        (r"ro,lowerdir=/a\:b:/c", [r"/a\:b", "/c"]),
        ("rw,xino=off", []),
    ],
)
def test_the_layers_of_an_overlay_are_those_that_its_options_name(options: str, found: list[str]) -> None:
    (mount,) = parse_mountinfo(f"36 35 0:50 / /m rw - overlay none {options}")
    assert layers(mount) == found
