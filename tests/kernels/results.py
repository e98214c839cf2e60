"""What came of a run on a kernel: kept as JSON beside this file, and made into docs/support.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.kernels.debian import KERNELS
from tests.kernels.features import FEATURES, Feature
from tests.kernels.guest import ANSWERS, RELEASE, TESTS
from tests.kernels.recorder import Tried

KEPT = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "support.md"
WORKS, FALLS_BACK, NOT, FAILS, UNTRIED = "works", "falls back", "not", "**fails**", "not tried"


@dataclass(frozen=True, slots=True)
class Results:
    """Of one kernel. `checks`: what `gomem doctor` says there, by name."""

    kernel: str
    release: str
    checks: Mapping[str, str]
    tests: Sequence[Tried]


def read(kernel: str, directory: Path) -> Results:
    """Return what the guest has written; what it has not is missing."""
    lines = _text(directory / TESTS).splitlines()
    checks = json.loads(_text(directory / ANSWERS) or '{"checks": []}')["checks"]
    return Results(
        kernel,
        _text(directory / RELEASE).strip(),
        {check["name"]: check["detail"] for check in checks},
        [Tried(**json.loads(line)) for line in lines],
    )


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def keep(results: Results) -> None:
    """Write them to where they are committed, beside those of other tests on the same release of the kernel.

    Seconds are left out: they differ with each run.
    """
    earlier = next((one for one in kept() if (one.kernel, one.release) == (results.kernel, results.release)), None)
    whole = results if earlier is None else merged(earlier, results)
    raw = asdict(whole)
    told = {feature.check for feature in FEATURES}
    raw["checks"] = {name: detail for name, detail in whole.checks.items() if name in told}
    for test in raw["tests"]:
        del test["seconds"]
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{results.kernel}.json").write_text(json.dumps(raw, indent=2) + "\n")


def merged(earlier: Results, later: Results) -> Results:
    """Return the later ones, and the earlier ones of tests that were not run again."""
    again = {test.test for test in later.tests}
    rest = [test for test in earlier.tests if test.test not in again]
    return replace(later, tests=[*rest, *later.tests], checks=later.checks or earlier.checks)


def kept() -> list[Results]:
    """Return what is committed, the oldest kernel first."""
    found = []
    for kernel in KERNELS:
        text = _text(KEPT / f"{kernel.name}.json")
        if text:
            raw = json.loads(text)
            tests = [Tried(**test, seconds=0.0) for test in raw.pop("tests")]
            found.append(Results(**raw, tests=tests))
    return found


def outcome(feature: Feature, results: Results) -> tuple[str, str]:
    """Return how a feature does on a kernel, and in what way or why not."""
    mine = [test for test in results.tests if test.test.startswith(feature.tests)]
    failed = [test for test in mine if test.outcome == "failed"]
    missing = [one for one in feature.tests if not any(test.test.startswith(one) for test in mine)]
    if failed:
        return FAILS, failed[0].reason
    if missing:
        return UNTRIED, ""
    skipped = [test for test in mine if test.outcome == "skipped"]
    if skipped:
        return NOT, skipped[0].reason
    how = results.checks.get(feature.check, "")
    return (FALLS_BACK, how) if feature.best and feature.best not in how else (WORKS, "")


def page(all_results: Sequence[Results]) -> str:
    """Return docs/support.md."""
    lines = [
        "# Kernels",
        "",
        "`make test-kernels` boots Debian's kernels in virtual machines (qemu, interpreted), runs tests in them, and",
        "writes this page: nothing here is written by hand. What is behind a line are the tests that",
        "`tests/kernels/features.py` names; what each said is in `tests/kernels/results/`.",
        "",
        "- **works**: all its tests have passed, in the best way that gomem knows.",
        "- **falls back**: they have passed, in another way, which is named below the table.",
        "- **not**: the kernel has not what it takes; why is below the table.",
        "- **not tried**: its tests have not been run there yet, which says nothing of how it does.",
        "",
    ]
    lines += _table([["", *(one.kernel for one in all_results)], *_rows(all_results)])
    lines += ["", "The kernels were:", ""]
    lines += [f"- {one.kernel}: `{one.release}`" for one in all_results]
    notes = _notes(all_results)
    if notes:
        lines += ["", "## In what way, and why not", "", *notes]
    return "\n".join(lines) + "\n"


def _rows(all_results: Sequence[Results]) -> list[list[str]]:
    return [
        [feature.name, *(state for state, _ in (outcome(feature, one) for one in all_results))] for feature in FEATURES
    ]


def _notes(all_results: Sequence[Results]) -> list[str]:
    """Return a line for each feature and each way in which it does other than work."""
    notes = []
    for feature in FEATURES:
        kernels: dict[tuple[str, str], list[str]] = {}
        for one in all_results:
            state, why = outcome(feature, one)
            if state not in (WORKS, UNTRIED):
                kernels.setdefault((state, why), []).append(one.kernel)
        for (state, why), names in kernels.items():
            notes.append(f"- {feature.name} on {', '.join(names)}: {state}: {why}")
    return notes


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, f"|{' --- |' * len(rows[0])}", *body]
