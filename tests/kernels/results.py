"""What came of a run on a kernel: kept as JSON beside this file, and made into docs/support.md."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tests.kernels.debian import KERNELS
from tests.kernels.features import FEATURES, Feature
from tests.kernels.guest import ANSWERS, RELEASE, TESTS
from tests.kernels.least import FILE as RIGHTS
from tests.kernels.least import Confined, Need, Rights, blocks, replaced
from tests.kernels.recorder import Tried

KEPT = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[2] / "docs"
PAGE, SECURITY = DOCS / "support.md", DOCS / "security.md"
_HERE = "here"
_OLDER = (
    "What is between two of them does what the older one does, or better: gomem asks for no release, it tries.",
    "Debian's mirrors have no older kernels. Before Linux 5.8, as RHEL 8's 4.18 is where Red Hat did not bring ring",
    "buffers of BPF to it, `--backend bpf` and `gomem doctor` say \"this kernel's BPF has no ring buffers: needs Linux",
    '5.8; this is 4.18", and `auto` tells states without events. The words are tested; such a kernel was not.',
)
_RUNS = (
    "Each of these was one machine. A test that ran again counts as it ended the last time: `tests/kernels/results/`",
    "has that time, and how long it took there.",
    "",
)
ENDED = "The machine ended with its tests."
One = TypeVar("One")
WORKS, FALLS_BACK, NOT, FAILS, UNTRIED = "works", "falls back", "not", "**fails**", "not tried"


@dataclass(frozen=True, slots=True)
class Run:
    """One machine's: when it began (UTC), how long it ran, how it ended, and how many tests ended there how."""

    began: str
    seconds: float
    ended: str
    tests: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Results:
    """Of one kernel. `checks`: what `gomem doctor` says there, by name."""

    kernel: str
    release: str
    checks: Mapping[str, str]
    tests: Sequence[Tried]
    rights: Rights = field(default_factory=Rights)
    runs: Sequence[Run] = ()


def run_of(directory: Path, began: str, seconds: float, ended: str) -> Run:
    """Return what is to be told of a machine that has ended."""
    states = Counter(test.outcome for test in _tests(directory))
    return Run(began, round(seconds), ended, dict(sorted(states.items())))


def _tests(directory: Path) -> list[Tried]:
    return [Tried(**json.loads(line)) for line in _text(directory / TESTS).splitlines()]


def read(kernel: str, directory: Path, *runs: Run) -> Results:
    """Return what the guest has written; what it has not is missing."""
    checks = json.loads(_text(directory / ANSWERS) or '{"checks": []}')["checks"]
    return Results(
        kernel,
        _text(directory / RELEASE).strip(),
        {check["name"]: check["detail"] for check in checks},
        _tests(directory),
        _rights([json.loads(line) for line in _text(directory / RIGHTS).splitlines()]),
        runs,
    )


def _rights(raw: Iterable[dict[str, Any]]) -> Rights:
    needs, confined = [], []
    for one in raw:
        if "surrounding" in one:
            confined.append(Confined(**one))
        else:
            needs.append(Need(**one))
    return Rights(needs, confined)


def write() -> None:
    """Write the pages, or what is generated of them, anew."""
    found = kept()
    PAGE.write_text(page(found))
    SECURITY.write_text(replaced(SECURITY.read_text(), blocks([*found, *kept_here()])))


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def keep(results: Results) -> None:
    """Write them to where they are committed, beside those of other tests on the same release of the kernel."""
    earlier = next((one for one in kept() if (one.kernel, one.release) == (results.kernel, results.release)), None)
    whole = results if earlier is None else merged(earlier, results)
    raw = asdict(whole)
    told = {feature.check for feature in FEATURES}
    raw["checks"] = {name: detail for name, detail in whole.checks.items() if name in told}
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{results.kernel}.json").write_text(json.dumps(raw, indent=2) + "\n")


def merged(earlier: Results, later: Results) -> Results:
    """Return the later ones, and the earlier ones of tests that were not run again."""
    again = {test.test for test in later.tests}
    rest = [test for test in earlier.tests if test.test not in again]
    rights = Rights(
        _newer(earlier.rights.needs, later.rights.needs, lambda one: one.mode),
        _newer(earlier.rights.confined, later.rights.confined, lambda one: (one.surrounding, one.mode)),
    )
    return replace(
        later,
        tests=[*rest, *later.tests],
        checks=later.checks or earlier.checks,
        rights=rights,
        runs=[*earlier.runs, *later.runs],
    )


def _newer(earlier: Sequence[One], later: Sequence[One], key: Callable[[One], object]) -> list[One]:
    """Return all of both, those of the later where both have one; the order of the earlier stays."""
    both = {key(one): one for one in earlier} | {key(one): one for one in later}
    return list(both.values())


def keep_here(results: Results) -> None:
    """Write what was found on this machine's own kernel to where it is committed."""
    raw = {"kernel": results.kernel, "release": results.release, "rights": asdict(results.rights)}
    (KEPT / f"{_HERE}.json").write_text(json.dumps({**raw, "checks": {}, "tests": []}, indent=2) + "\n")


def kept() -> list[Results]:
    """Return what is committed of Debian's kernels, the oldest first."""
    return _kept([kernel.name for kernel in KERNELS])


def kept_here() -> list[Results]:
    """Return what is committed of the kernel of the machine on which gomem is made."""
    return _kept([_HERE])


def _kept(names: Iterable[str]) -> list[Results]:
    found = []
    for name in names:
        text = _text(KEPT / f"{name}.json")
        if text:
            raw = json.loads(text)
            tests = [Tried(**test) for test in raw.pop("tests")]
            runs = [Run(**run) for run in raw.pop("runs", [])]
            rights = raw.pop("rights", {"needs": [], "confined": []})
            both = _rights([*rights["needs"], *rights["confined"]])
            found.append(Results(**raw, tests=tests, rights=both, runs=runs))
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
    lines += ["", *_OLDER]
    notes = _notes(all_results)
    if notes:
        lines += ["", "## In what way, and why not", "", *notes]
    lines += ["", "## What ran, and how it ended", "", *_RUNS, *_runs(all_results)]
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


def _runs(all_results: Sequence[Results]) -> list[str]:
    """Return a line for each machine that ran."""
    lines = []
    for one in all_results:
        for run in one.runs:
            states = ", ".join(f"{number} {state}" for state, number in run.tests.items()) or "nothing"
            lines.append(f"- {one.kernel}, {run.began} UTC: {states}, in {run.seconds:.0f} s. {run.ended}")
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, f"|{' --- |' * len(rows[0])}", *body]
