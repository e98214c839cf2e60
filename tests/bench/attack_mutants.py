"""What the parsers make of damaged input: mutants of real files, and errors that are none of ours."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gomem.exporters.http.request import BadRequest
from gomem.exporters.http.webconfig import parse_web_config
from gomem.exporters.json.report import render_json
from gomem.exporters.text.report import render_text
from gomem.tracer.binary.executable import Executable
from gomem.tracer.discovery.pods import parse_pod
from gomem.tracer.errors import GomemError
from gomem.tracer.kernel.cgroup import memory_membership
from gomem.tracer.kernel.maps import parse_maps
from gomem.tracer.kernel.smaps import parse_rollup, parse_smaps
from gomem.tracer.proc.mounts import parse_mountinfo
from gomem.tracer.proc.small_files import parse_limits, parse_status
from gomem.tracer.recording.frames import Frame, FrameReader
from gomem.tracer.replay.file import replay_file
from gomem.tracer.runtime.snapshot import RuntimeReader
from tests.support.dwarf import layout_from_dwarf
from tests.support.recordings import recorded
from tests.support.samples.dwarf import go_runtime, program
from tests.unit.binary.test_hostile_files import PROGRAMS, everything
from tests.unit.exporters.http.test_request import parse_head
from tests.unit.replay.test_recording import reframed
from tests.unit.runtime.test_snapshot import small

_FIXTURES = Path(__file__).parents[1] / "unit" / "events" / "fixtures"
_NASTY = (b"\0", b"\xff", b"\x7f", b"\x80", b"\n", b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(8), b"9" * 25, b"[" * 40)
_POD = {
    "metadata": {
        "name": "orders-7c9f-x2x4z", "namespace": "shop", "uid": "c2", "labels": {"pod-template-hash": "7c9f"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "orders-7c9f", "controller": True}],
    },
    "status": {"containerStatuses": [{"name": "app", "containerID": "containerd://" + "ab" * 32}]},
}  # fmt: skip
_REQUEST = (
    b"GET /metrics?name[]=a HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0.5, *\r\n"
    b"Authorization: Basic YTpi\r\nX: y\r\n\r\n"
)
_WEB_CONFIG = (
    b"tls_server_config:\n  cert_file: a.pem\n  key_file: b.pem\n  min_version: TLS12\n"
    b"basic_auth_users:\n  a: $2b$04$" + b"a" * 53 + b"\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n"
)


@dataclass
class Tried:
    """What came of the mutants of one kind of input."""

    mutants: int = 0
    refused: int = 0  # by an error of ours
    foreign: Counter[str] = field(default_factory=Counter)  # errors that are none of ours, and where they arose
    slowest: float = 0.0  # seconds of one mutant

    def run(self, use: Callable[[], object]) -> None:
        """Let a parser work on a mutant, and count what it does."""
        begun = time.perf_counter()
        try:
            use()
        except (GomemError, BadRequest):
            self.refused += 1
        except Exception as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
            self.foreign[f"{type(error).__name__} in {where}"] += 1
        self.mutants += 1
        self.slowest = max(self.slowest, time.perf_counter() - begun)


def damaged(raw: bytes, chance: random.Random, first: int = 0) -> bytes:
    """Return `raw` with one to eight wounds behind its first bytes: overwritten, cut out, doubled, or cut short."""
    content = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(first, max(len(content), first + 1))
        piece = chance.choice((*_NASTY, chance.randbytes(chance.randint(1, 8))))
        wound = chance.random()
        if wound < 0.8:
            content[at : at + len(piece)] = piece
        elif wound < 0.87:
            del content[at : at + chance.randint(1, 64)]
        elif wound < 0.97:
            content[at:at] = content[at : at + chance.randint(1, 64)]
        else:
            del content[at:]
    return bytes(content)


Mutate = Callable[[random.Random], Callable[[], object]]  # makes a mutant, and gives what lets a parser work on it


def _recordings(directory: Path) -> Mutate:
    path = recorded(directory / "recording")
    raw = path.read_bytes()
    reader = FrameReader(str(path))
    payloads = [one.payload() for one in reader.frames() if isinstance(one, Frame)]
    reader.close()
    mutant = directory / "mutant.recording"

    def make(chance: random.Random) -> Callable[[], object]:
        if chance.random() < 0.25:
            mutant.write_bytes(damaged(raw, chance, 8))
        else:  # every checksum is right again: what the checks behind them are for
            numbers = chance.sample(range(len(payloads)), 2)
            mutant.write_bytes(reframed(raw, {number: damaged(payloads[number], chance) for number in numbers}))
        return lambda: _replay(mutant)

    return make


def _logs(directory: Path) -> Mutate:
    logs = [path.read_bytes() for path in sorted(_FIXTURES.iterdir()) if path.name.startswith(("go", "dtruss"))]
    mutant = directory / "mutant.log"

    def make(chance: random.Random) -> Callable[[], object]:
        raw = chance.choice(logs)
        lines = raw.splitlines(keepends=True)
        begin = chance.randrange(max(len(lines) - 200, 1))
        mutant.write_bytes(damaged(b"".join(lines[begin : begin + 200]), chance))
        return lambda: _replay(mutant)

    return make


def _replay(path: Path) -> None:
    report = replay_file(str(path))
    render_json(report)
    render_text(report)


def _executables(directory: Path) -> Mutate:
    mutant = directory / "mutant.elf"
    whole = list(PROGRAMS.values())

    def make(chance: random.Random) -> Callable[[], object]:
        content = bytearray(chance.choice(whole))
        used = [at for at, byte in enumerate(content) if byte]  # most of the file is padding
        for _ in range(chance.randint(1, 6)):
            at, piece = chance.choice(used), chance.choice((*_NASTY, chance.randbytes(4)))
            content[at : at + len(piece)] = piece
        mutant.write_bytes(content[: chance.choice((len(content), len(content), chance.randrange(len(content))))])

        def use() -> None:
            errors = []
            with Executable.open(mutant) as exe:
                for part in everything(exe):
                    try:
                        part()
                    except GomemError as error:
                        errors.append(error)
            if errors:
                raise errors[0]

        return use

    return make


def _debug_information(directory: Path) -> Mutate:
    mutant = directory / "mutant.dwarf"
    samples = [go_runtime(version).sections() for version in (4, 5)]

    def make(chance: random.Random) -> Callable[[], object]:
        sections = dict(chance.choice(samples))
        name = chance.choice(list(sections))
        mutant.write_bytes(program(sections | {name: damaged(sections[name], chance)}))

        def use() -> None:
            with Executable.open(mutant) as exe:
                layout_from_dwarf(exe)

        return use

    return make


def _runtime(_: Path) -> Mutate:
    runtime = small("1.27.3")
    whole = runtime.image.copy()
    pages = sorted(whole.pages)

    def make(chance: random.Random) -> Callable[[], object]:
        image = whole.copy()
        for _ in range(chance.randint(1, 20)):
            number = chance.choice(pages)
            used = [at for at in range(0, 4096, 8) if any(whole.pages[number][at : at + 8])] or [0]
            addresses = [page * 4096 for page in pages]
            value = chance.choice((0, 1, 1 << 27, (1 << 63) - 1, (1 << 64) - 8, chance.choice(addresses)))
            image.words(number * 4096 + chance.choice(used), value)
        return RuntimeReader(image, runtime.layout, runtime.globals).snapshot

    return make


def _of_proc(name: str, parse: Callable[[bytes], object]) -> Mutate:
    raw = Path(f"/proc/self/{name}").read_bytes()

    def make(chance: random.Random) -> Callable[[], object]:
        mutant = damaged(raw, chance)
        return lambda: parse(mutant)

    return make


def _text(raw: bytes, parse: Callable[[bytes], object]) -> Mutate:
    def make(chance: random.Random) -> Callable[[], object]:
        mutant = damaged(raw, chance)
        return lambda: parse(mutant)

    return make


def _pod(raw: bytes) -> None:
    try:
        described = json.loads(raw)
    except (ValueError, RecursionError):  # as discovery takes them: no answer
        return
    parse_pod(described, ["app"])


def _web_config(raw: bytes) -> None:
    parse_web_config(raw.decode("utf-8", "replace"), Path("web.yml"))


def parsers(directory: Path) -> dict[str, Mutate]:
    """Return what makes mutants for each parser, by its name; files are written into `directory`."""
    return {
        "recordings": _recordings(directory),
        "logs of strace and dtruss": _logs(directory),
        "ELF, build information, function tables": _executables(directory),
        "DWARF": _debug_information(directory),
        "runtime structures": _runtime(directory),
        "/proc/PID/maps": _of_proc("maps", parse_maps),
        "/proc/PID/smaps": _of_proc("smaps", parse_smaps),
        "/proc/PID/smaps_rollup": _of_proc("smaps_rollup", parse_rollup),
        "/proc/PID/status": _of_proc("status", parse_status),
        "/proc/PID/limits": _of_proc("limits", parse_limits),
        "/proc/PID/mountinfo": _of_proc("mountinfo", lambda raw: parse_mountinfo(raw.decode("utf-8", "replace"))),
        "/proc/PID/cgroup": _of_proc("cgroup", lambda raw: memory_membership(raw.decode("utf-8", "replace"))),
        "HTTP requests": _text(_REQUEST, parse_head),
        "web configuration": _text(_WEB_CONFIG, _web_config),
        "pods of the Kubernetes API": _text(json.dumps(_POD).encode(), _pod),
    }


def attack(count: int, seed: int, directory: Path) -> dict[str, Tried]:
    """Try `count` mutants on each parser; those of a seed are the same at each run."""
    found = {}
    for name, make in parsers(directory).items():
        chance = random.Random(f"{seed} {name}")
        tried = found[name] = Tried()
        for _ in range(count):
            tried.run(make(chance))
    return found
