"""What `kubectl apply -k` would send: kustomizations of the repository, and of somebody who builds on them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.requirements import program

KUSTOMIZE = Path(__file__).parents[2] / "deploy" / "kustomize"


def built(directory: Path) -> list[dict[str, Any]]:
    """Return the documents that a kustomization makes."""
    kubectl = program("kubectl", "kubectl")
    done = subprocess.run([kubectl, "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def built_with(
    directory: Path, documents: Sequence[dict[str, Any]], components: Sequence[str], **more: object
) -> list[dict[str, Any]]:
    """Return what a user's kustomization in `directory` makes of their `documents` with components of ours.

    `more` are other fields of their kustomization.
    """
    (directory / "theirs.yaml").write_text(yaml.safe_dump_all(documents))
    ours = [os.path.relpath(KUSTOMIZE / "components" / name, directory.resolve()) for name in components]
    kustomization = {"resources": ["theirs.yaml"], "components": ours, **more}
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return built(directory)
