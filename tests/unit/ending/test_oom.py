from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.ending.oom import Victims, kernels_line, victim
from gomem.tracer.report import OomKill

V1 = """\
python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
memory: usage 65536kB, limit 65536kB, failcnt 23
memory+swap: usage 65536kB, limit 9007199254740988kB, failcnt 0
kmem: usage 208kB, limit 9007199254740988kB, failcnt 0
Memory cgroup stats for /batch:
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
[  16495]     0 16495    54664    17665    16320     1345         0   192512        0             0 python3
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/batch,task_memcg=/batch/a,\
task=python3,pid=16495,uid=0
Memory cgroup out of memory: Killed process 16495 (python3) total-vm:218656kB, anon-rss:65280kB, file-rss:5380kB, \
shmem-rss:0kB, UID:0 pgtables:188kB oom_score_adj:0
""".splitlines()
MACHINE = [
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice,"
    "task=stress,pid=911,uid=1000",
    "Out of memory: Killed process 911 (stress) total-vm:8388608kB, anon-rss:7340032kB, file-rss:128kB, shmem-rss:0kB,"
    " UID:1000 pgtables:14432kB oom_score_adj:0",
]


def test_the_victim_of_a_cgroup_at_its_limit() -> None:
    assert victim(V1, 16495) == OomKill("cgroup", "/batch", 64 << 20, True)


def test_a_process_that_is_only_listed_is_no_victim() -> None:
    others = [line.replace("16495", "16496") for line in V1]
    assert victim([*others, "[  16495]  0 16495 54664 17665 192512 0 0 python3"], 16495) is None
    assert victim([], 16495) is None


def test_the_victim_of_the_machine() -> None:
    assert victim(MACHINE, 911) == OomKill("machine", None, None, True)


def test_a_log_that_leaves_lines_out_tells_no_cgroup() -> None:
    assert victim(V1[-1:], 16495) == OomKill("cgroup", None, None, True)


def test_the_limit_of_another_kill_is_not_this_ones() -> None:
    other = [line.replace("16495", "7").replace("65536kB", "1kB") for line in V1]
    assert victim([*other, *V1[-2:]], 16495) == OomKill("cgroup", "/batch", None, True)
    assert victim([*V1, *other], 16495) == OomKill("cgroup", "/batch", 64 << 20, True)


def test_a_name_that_looks_like_a_pid_fools_nobody() -> None:
    fooling = [line.replace("task=python3", "task=x,pid=7,uid=0") for line in V1]
    assert victim(fooling, 7) is None
    assert victim(fooling, 16495) == OomKill("cgroup", "/batch", 64 << 20, True)
    called = "Memory cgroup out of memory: Killed process 5 (Killed process 7 () total-vm:1kB"
    assert victim([called], 7) is None


def test_a_log_that_is_read_in_pieces_names_all_its_victims_until_they_are_forgotten() -> None:
    victims = Victims()
    for line in [*V1, *MACHINE]:
        victims.read([line])
    assert victims.of(16495) == OomKill("cgroup", "/batch", 64 << 20, True)
    assert victims.of(911) == OomKill("machine", None, None, True)
    victims.forget(911)
    assert victims.of(911) is None


def test_the_last_victims_are_kept_however_many_there_are() -> None:
    victims = Victims()
    for pid in range(1, 5000):
        victims.read(line.replace("16495", str(pid)) for line in V1)
    assert victims.of(1) is None
    assert victims.of(4999) == OomKill("cgroup", "/batch", 64 << 20, True)


@given(st.lists(st.text(max_size=80), max_size=5), st.integers(1, 1 << 22))
def test_any_log_is_survived(lines: list[str], pid: int) -> None:
    victim(lines, pid)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (b"3,1405,88133,-;Out of memory: Killed process 1 (x)\n SUBSYSTEM=x\n", "Out of memory: Killed process 1 (x)"),
        (b"12,339,5140900,-;Out of memory: Killed process 1 (x)\n", None),  # LOG_USER: anybody who may write to the log
        (b"6,339,5140900,-", None),
        (b"", None),
        (b"x;y", None),
    ],
)
def test_only_what_the_kernel_says_itself_counts(record: bytes, line: str | None) -> None:
    assert kernels_line(record) == line
