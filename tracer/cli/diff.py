"""`gomem diff`: what grew between two reports, two moments of a recording, or two profiles."""

from __future__ import annotations

import os
import stat
import sys
from typing import Literal, get_args

import click

from gomem.exporters.difference.text import difference_json, difference_text
from gomem.exporters.output import check_output, write_output
from gomem.exporters.profile.difference import difference as profile_difference
from gomem.exporters.profile.difference import other_program
from gomem.exporters.text.console import Sheet, sheet_of
from gomem.exporters.text.progress import reading
from gomem.tracer.cli.durations import parse_duration
from gomem.tracer.cli.options import check_shown, say
from gomem.tracer.cli.profile_output import ProfileFormat, ProfileOutput, format_of, profile_value_options
from gomem.tracer.errors import GomemError, UsageError
from gomem.tracer.recording.frames import is_recording
from gomem.tracer.report import Report
from gomem.tracer.report.difference.compare import difference
from gomem.tracer.report.reading import read_report

DiffFormat = Literal["text", "json", "html", "top", "folded", "pprof"]
_Kind = Literal["report", "recording", "profile"]
_OF_REPORTS = ("text", "json", "html")
_SNIFFED = 1 << 16  # bytes that tell what a file is

# The first character tells click to leave the lines as they are.
_EXAMPLES = """\b
Examples:
  gomem snapshot PID --holders --format json -o before.json      now, and later the same with after.json
  gomem diff before.json after.json
  gomem diff server.rec --from 10s --to 60s                      two moments of one recording
  gomem diff monday.rec tuesday.rec                              their ends
  gomem diff before.json after.json -o grown.html
  gomem profile PID -o before.pb.gz                              and later after.pb.gz
  gomem diff before.pb.gz after.pb.gz
"""


@click.command(epilog=_EXAMPLES)
@click.argument("base", type=click.Path())
@click.argument("later", type=click.Path(), required=False)
@click.option(
    "--from", "begin", metavar="TIME",
    help="The moment of the recording BASE: 10s, 2m, or a time as 2026-03-01T12:00:00Z; the look at or before it is "
    "taken. [default: the first look of one recording, the end of the first of two]",
)  # fmt: skip
@click.option("--to", "end", metavar="TIME", help="The same of LATER, or of the one recording. [default: the end]")
@click.option(
    "--format", "form", type=click.Choice(get_args(DiffFormat)),
    help="Of reports and recordings: text, a page; json, one object (schema gomem.diff/1); html, one file that needs "
    "nothing else. Of profiles: top, a table of functions; folded, a line for each stack; html, a flame graph; pprof. "
    "[default: text and top; with -o by its ending]",
)  # fmt: skip
@profile_value_options
def diff(
    base: str,
    later: str | None,
    begin: str | None,
    end: str | None,
    form: DiffFormat | None,
    output: str | None,
    sample_type: str | None,
    most: int,
    cumulative: bool,
) -> None:
    """Show what grew from BASE to LATER: of two reports, of two moments of a recording, or of two profiles.

    Reports are what gomem snapshot, trace and replay write with --format json, of one process or of two. The first
    sentence says by what RSS grew; its parts add up to the difference, and what is not explained is said as that. What
    one of the two does not tell is said, and is not taken for 0.

    Profiles are files in pprof's format, of gomem profile, of /debug/pprof/heap, or of others. Figures are those of
    "go tool pprof -diff_base BASE LATER"; shares are of what BASE has. A profile in pprof's format has BASE's values
    negated.
    """
    kinds = [_kind(path) for path in (base, later) if path is not None]
    if len(set(kinds)) > 1 and "profile" in kinds:
        raise UsageError(f"{base} and {later} cannot be compared: one of them is a profile, the other is none")
    if kinds[0] == "profile":
        if later is None or begin is not None or end is not None:
            raise UsageError("two profiles are compared as they are", "give both: gomem diff BASE LATER")
        _diff_profiles(base, later, ProfileOutput(_profile_form(form, output), output, sample_type, most, cumulative))
        return
    if sample_type is not None or cumulative:
        raise UsageError("--sample-type and --cumulative are for profiles", "leave them out")
    _diff_reports(_moments(kinds, base, later, begin, end), _report_form(form, output), output, most)


def _kind(path: str) -> _Kind:
    """Return what a file is, by its first bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            head = b"{" if not stat.S_ISREG(os.fstat(descriptor).st_mode) else file.read(_SNIFFED)
    except OSError as error:
        raise GomemError(f"cannot read {path}: {error.strerror}", "give two reports, recordings or profiles") from error
    if is_recording(head):
        return "recording"
    return "report" if head.lstrip()[:1] in (b"{", b"[", b"<") else "profile"


def _diff_profiles(base: str, later: str, out: ProfileOutput) -> None:
    from gomem.exporters.pprof.decode import read_profile  # protobuf takes 20 ms to import

    out.check()
    before, after = read_profile(base), read_profile(later)
    if (differ := other_program(before, after)) is not None:
        say(f"these are profiles of different programs: {differ}")
    out.write(profile_difference(before, after))


def _profile_form(form: DiffFormat | None, output: str | None) -> ProfileFormat:
    if form == "text" or form == "json":
        raise UsageError(f"--format {form} is for reports", "profiles: " + ", ".join(get_args(ProfileFormat)))
    return form or format_of(output)


def _report_form(form: DiffFormat | None, output: str | None) -> Literal["text", "json", "html"]:
    if form is None:
        ending = os.path.splitext(output or "")[1].lower()
        return "json" if ending == ".json" else "html" if ending in (".html", ".htm") else "text"
    if form in ("text", "json", "html"):
        return form
    raise UsageError(f"--format {form} is for profiles", "reports: " + ", ".join(_OF_REPORTS))


_Moment = tuple[str, _Kind, str | None]  # a file, what it is, and the moment of a recording


def _moments(
    kinds: list[_Kind], base: str, later: str | None, begin: str | None, end: str | None
) -> tuple[_Moment, _Moment]:
    """Return what to compare; raises UsageError where the command line makes no sense."""
    moments = (("--from", begin, kinds[0]), ("--to", end, kinds[-1]))
    for option, moment, kind in moments:
        if moment is not None and kind != "recording":
            raise UsageError(f"{option} is for recordings: a report is of one moment", "leave it out")
    if later is None:
        if kinds[0] != "recording":
            raise UsageError("a report is of one moment", "give a second one: gomem diff BASE LATER")
        return (base, kinds[0], _asked(begin) or "0"), (base, kinds[0], _asked(end))
    return (base, kinds[0], _asked(begin)), (later, kinds[1], _asked(end))


def _asked(moment: str | None) -> str | None:
    """Return a moment as replay takes it: of 1m30s the seconds."""
    seconds = parse_duration(moment) if moment is not None else None
    return moment if seconds is None else str(seconds)


def _diff_reports(
    moments: tuple[_Moment, _Moment], form: Literal["text", "json", "html"], output: str | None, most: int
) -> None:
    check_output(output)
    check_shown(form, output)
    before, after = (_report(*moment) for moment in moments)
    (base, _, begin), (later, _, end) = moments
    found = difference(before, after, (_name(base, begin), _name(later, end)))
    if form == "json":
        text = difference_json(found)
    elif form == "html":
        from gomem.exporters.difference.page import difference_page  # jinja2 takes 20 ms to import

        text = difference_page(found)
    else:
        text = difference_text(found, most, sheet_of(sys.stdout) if output is None else Sheet())
    write_output(text, output)


def _name(path: str, moment: str | None) -> str:
    return path if moment is None else f"{path} at {moment}"


def _report(path: str, kind: _Kind, moment: str | None) -> Report:
    """Return a report, or that of a recording at the look at a moment, or before it."""
    if kind == "report":
        return read_report(path)
    from gomem.tracer.replay.file import replay_file  # two reports do not wait for it

    with reading(sys.stderr) as tick:
        report = replay_file(path, moment, tick)
        if report.between_looks is not None:
            report = replay_file(path, str(report.between_looks.look_before), tick)
    return report
