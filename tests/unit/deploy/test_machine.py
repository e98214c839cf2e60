"""The ways to run gomem on one machine: systemd, compose, the image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
RIGHTS = {"BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"}


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / "gomem.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "systemd" / "gomem.service").read_text()
    # gomem is installed elsewhere here.
    copy = tmp_path / "gomem.service"
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60)
    assert str(copy) not in done.stderr, done.stderr
    assert "gomem.service:" not in done.stderr, done.stderr


def test_the_unit_gives_what_the_manifests_give_and_process_events() -> None:
    given = set(unit()["CapabilityBoundingSet"][0].split())
    assert given == {f"CAP_{name}" for name in RIGHTS | {"NET_ADMIN"}}
    assert given == set(unit()["AmbientCapabilities"][0].split())
    assert unit()["NoNewPrivileges"] == ["yes"]
    assert unit()["ProtectSystem"] == ["strict"]


def test_the_command_of_the_unit_is_one_of_gomem() -> None:
    from gomem.tracer.cli.serve import serve

    program, command, *words = unit()["ExecStart"][0].split()
    assert (Path(program).name, command) == ("gomem", "serve")
    serve.make_context("serve", words)


def test_compose_gives_the_same_rights_and_mounts_files_that_are_there() -> None:
    directory = DEPLOY / "compose"
    services = yaml.safe_load((directory / "docker-compose.yml").read_text())["services"]
    gomem = services["gomem"]
    assert set(gomem["cap_add"]) == RIGHTS
    assert gomem["cap_drop"] == ["ALL"]
    assert gomem["read_only"] is True
    assert "privileged" not in gomem
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (directory / source).exists(), source
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    assert (directory / gomem["build"]["context"] / gomem["build"]["dockerfile"]).exists()


def test_the_image_copies_what_there_is_and_has_no_package_installer() -> None:
    text = (DEPLOY / "image" / "Containerfile").read_text()
    root = DEPLOY.parent
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert {"tracer", "bpf", "exporters", "pyproject.toml"} <= set(copied)
    for name in copied:
        assert (root / name).exists(), name
    admitted = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) <= admitted
    assert "pip uninstall --yes pip" in text


def test_the_seccomp_profile_refuses_what_an_attacker_would_want() -> None:
    profile = json.loads((DEPLOY / "seccomp" / "gomem.json").read_text())
    allowed = {name for rule in profile["syscalls"] for name in rule["names"]}
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    wanted = ("ptrace", "process_vm_writev", "mount", "setns", "unshare", "init_module", "finit_module", "kexec_load",
              "keyctl", "userfaultfd", "io_uring_setup", "pivot_root", "chroot", "setuid", "mknod")  # fmt: skip
    assert not allowed & set(wanted)
