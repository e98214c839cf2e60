from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.discovery.process_info import Identity, ProcessInfo
from gomem.tracer.discovery.selection import Conditions, Selection, parse_selection
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.errors import UsageError
from gomem.tracer.process.target import ExeIdentity

ID = "0123456789abcdef" * 4
CHECKOUT = Workload(
    container_id=ID,
    pod_uid="6f1c3c2e-9b1a-4d6e-8a53-2f0d3c9e7b11",
    pod="checkout-7d9f-xk2",
    namespace="shop",
    container="server",
    node="node-1",
    labels={"app.kubernetes.io/name": "checkout", "tier": "front"},
)
NONE = Workload()


def info(
    pid: int = 7, exe: str = "/usr/bin/etcd", uid: int | None = 1000, cgroups: tuple[str, ...] = ("/a/b.service",)
) -> ProcessInfo:
    return ProcessInfo(Identity(pid, 99, ExeIdentity(1, 2, 3, 4)), "comm", exe, uid, cgroups)


def include(**words: list[str]) -> Selection:
    return parse_selection(include=words)


def exclude(**words: list[str]) -> Selection:
    return parse_selection(exclude=words)


def test_without_conditions_every_go_process_is_wanted() -> None:
    assert Selection().wants(info(), NONE)
    assert not Selection().only_pids


def test_with_pids_alone_no_other_process_is_wanted() -> None:
    selection = parse_selection(pids=[7])
    assert selection.only_pids
    assert not selection.wants(info(pid=8), NONE)


def test_pids_beside_conditions_do_not_narrow_them() -> None:
    selection = parse_selection(pids=[7], include={"exe": ["etcd"]})
    assert not selection.only_pids
    assert selection.wants(info(pid=8), NONE)


def test_pids_with_something_excluded_are_still_only_pids() -> None:
    assert parse_selection(pids=[7], exclude={"exe": ["etcd"]}).only_pids


@pytest.mark.parametrize(
    ("glob", "wanted"),
    [("etcd", True), ("et*", True), ("etcdctl", False), ("ETCD", False), ("/usr/bin/etcd", True), ("/usr/*", True),
     ("bin/etcd", False), ("*/etcd", True), ("/opt/*", False), ("[e]tc?", True)],
)  # fmt: skip
def test_executables_are_matched_by_name_or_by_path(glob: str, wanted: bool) -> None:
    assert include(exe=[glob]).wants(info(), NONE) is wanted
    assert exclude(exe=[glob]).wants(info(), NONE) is not wanted


def test_an_executable_that_may_not_be_read_is_matched_by_what_the_kernel_calls_it() -> None:
    assert include(exe=["comm"]).wants(info(exe=""), NONE)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [(ID, True), (ID[:12], True), (ID[:4], True), (ID[1:9], False), ("server", True), ("serv*", True), ("*", True),
     ("client", False), (f"containerd://{ID}", True), ("docker://" + ID[:12], True)],
)  # fmt: skip
def test_containers_are_matched_by_the_beginning_of_the_id_or_by_name(word: str, wanted: bool) -> None:
    assert include(container=[word]).wants(info(), CHECKOUT) is wanted
    assert not include(container=[word]).wants(info(), NONE)


@pytest.mark.parametrize(
    ("label", "wanted"),
    [("namespace=shop", True), ("namespace=sh*", True), ("namespace=prod", False), ("pod=checkout-*", True),
     ("container=server", True), ("node=node-1", True), ("app.kubernetes.io/name=checkout", True), ("tier=", False),
     ("tier=front", True), ("team=front", False), ("tier==front", False)],
)  # fmt: skip
def test_labels_are_those_of_the_pod_and_its_place(label: str, wanted: bool) -> None:
    assert include(label=[label]).wants(info(), CHECKOUT) is wanted
    assert not include(label=[label]).wants(info(), NONE)


def test_cgroups_are_matched_by_any_of_a_processs_paths() -> None:
    two = info(cgroups=("/", "/system.slice/etcd.service"))
    assert include(cgroup=["/system.slice/*"]).wants(two, NONE)
    assert include(cgroup=["/"]).wants(two, NONE)
    assert not include(cgroup=["/user.slice/*"]).wants(two, NONE)
    assert not include(cgroup=["*"]).wants(info(cgroups=()), NONE)


def test_user_ids_are_matched_exactly() -> None:
    assert include(uid=["0", "1000"]).wants(info(), NONE)
    assert not include(uid=["100"]).wants(info(), NONE)
    assert not include(uid=["0"]).wants(info(uid=None), NONE)


def test_one_of_each_kind_must_match_and_none_that_is_excluded() -> None:
    both = include(exe=["etcd", "prometheus"], uid=["1000"])
    assert both.wants(info(), NONE)
    assert not both.wants(info(uid=0), NONE)
    assert not both.wants(info(exe="/bin/other"), NONE)
    without = parse_selection(include={"exe": ["etcd"]}, exclude={"uid": ["1000"], "exe": ["nothing"]})
    assert not without.wants(info(), NONE)
    assert without.wants(info(uid=0), NONE)


def test_the_pod_labels_that_decide_are_known() -> None:
    selection = parse_selection(include={"label": ["app=x", "namespace=y"]}, exclude={"label": ["tier=z"]})
    assert selection.label_keys == {"app", "tier"}


@pytest.mark.parametrize(
    ("kind", "word", "message"),
    [
        ("container", "abc", "too short to tell containers apart"),
        ("container", "/system.slice", "neither a container's id nor its name"),
        ("container", "docker://", "neither a container's id nor its name"),
        ("cgroup", "system.slice", "a cgroup's path starts with a slash"),
        ("uid", "root", "not a user id"),
        ("uid", "-1", "not a user id"),
        ("uid", "4294967295", "not a user id"),
        ("uid", "\u0661", "not a user id"),
        ("label", "app", "not KEY=VALUE"),
        ("label", "=x", "not KEY=VALUE"),
        ("exe", "", "not a value"),
        ("exe", "a\0b", "not a value"),
        ("exe", "x" * 5000, "not a value"),
    ],
)
def test_words_that_can_never_match_are_usage_errors(kind: str, word: str, message: str) -> None:
    for option, ask in ((f"--{kind}", include), (f"--exclude-{kind}", exclude)):
        with pytest.raises(UsageError, match=message) as raised:
            ask(**{kind: [word]})
        assert raised.value.what.startswith(option)
        assert raised.value.fix


@pytest.mark.parametrize("pid", [0, -1, 1 << 23])
def test_numbers_that_no_process_has_are_usage_errors(pid: int) -> None:
    with pytest.raises(UsageError, match="no process has this number"):
        parse_selection(pids=[pid])


@given(st.sampled_from(["exe", "container", "cgroup", "uid", "label"]), st.text(max_size=40))
def test_any_word_is_accepted_or_refused_with_a_reason(kind: str, word: str) -> None:
    try:
        selection = include(**{kind: [word]})
    except UsageError:
        return
    assert selection.include != Conditions()
    selection.wants(info(), CHECKOUT)
