"""How the process ended, and which programs it ran before: said before everything else."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.text.page import PageStyle, lines, section, words
from gomem.exporters.units import clean, plural, seconds, size
from gomem.exporters.verdict import verdict
from gomem.tracer.report import FailedCall, OomKill, ProcessEnding, ProcessFacts, Report

_JUST_BEFORE = 2.0  # seconds; a call that failed earlier need not have to do with the end
_CALLS_TOLD = 3
_LACK = ("ENOMEM", "EAGAIN", "EPERM", "EACCES")


def ending(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the chapters, a line each, and how the process ended; None if it ran one program and was not seen to end."""
    told = [_chapter(number, chapter) for number, chapter in enumerate(report.chapters or (), start=1)]
    if report.ending is not None:
        style = "dim" if report.ending.exit_code == 0 else "critical" if report.ending.signal else "warning"
        told.append(words((_how(report), style)))
        told += [words(_call(call)) for call in _last_calls(report.ending)]
    return lines(*told) if told else None


def children(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the child processes that were followed: who each is, how it ended, and what its RSS is made of."""
    if report.children is None:
        return None
    if not report.children:
        return section("Children: no Go process was seen to be started")
    told: list[Text] = []
    for child in report.children:
        process = child.process
        program = clean(" ".join(process.cmdline) or process.exe, 60)
        who = f" ({release_of(process)}), watched {seconds(child.duration_seconds)}"
        told.append(words((f"{process.pid} ", "heading"), program + who))
        told += [_chapter(number, chapter) for number, chapter in enumerate(child.chapters or (), start=1)]
        if child.ending is not None:
            told.append(words(_how(child)))
        told.append(words(verdict(child)))
    return section(f"Children {len(report.children)} (--format json has a report of each)", lines(*told))


def release_of(process: ProcessFacts) -> str:
    """Return the Go release, or that there is none, or that nobody knows."""
    if process.go_version:
        return clean(process.go_version, 30)
    return "no Go" if process.exe else "not looked at"


def _chapter(number: int, report: Report) -> Text:
    program = clean(" ".join(report.process.cmdline) or report.process.exe or "a program", 60)
    rss = f", RSS {size(report.resident.total)} when seen last" if report.resident else ""
    watched = f"watched {seconds(report.duration_seconds)}{rss}"
    what = f"{program} ({release_of(report.process)}), {watched}; executed the next"
    return words((f"Chapter {number}: ", "heading"), what)


def _how(report: Report) -> str:
    assert report.ending is not None
    return way_of(report.ending, report.duration_seconds)


def way_of(end: ProcessEnding, watched: float = 0.0) -> str:
    """Return in a sentence how a process ended, after so many seconds of watching (0: not told)."""
    said = f"{_way(end)} after {seconds(watched)} of watching" if watched else _way(end).rstrip(",")
    if end.core_dumped:
        said += ", core dumped"
    if end.oom is not None:
        said += _by_oom_killer(end.oom)
    if end.peak_rss is not None:
        said += f"; its peak RSS was {size(end.peak_rss)}"
    return said + "."


def _way(end: ProcessEnding) -> str:
    if end.signal is not None:
        return f"Killed by {end.signal}"
    if end.exit_code is not None:
        return f"Exited with code {end.exit_code}"
    return "Ended, nobody tells how,"


def _by_oom_killer(kill: OomKill) -> str:
    if not kill.proven:
        count = plural(kill.kills or 0, "OOM kill")
        return f"; its cgroup {clean(kill.cgroup or '?', 60)} counted {count} meanwhile, and it may be among them"
    if kill.by == "machine":
        return ": the OOM killer took it, as the machine had no memory left"
    if kill.cgroup is None:
        return ": the OOM killer took it, as its memory cgroup or one above was at its limit"
    limit = f" of {size(kill.limit)}" if kill.limit is not None else ""
    return f": the OOM killer took it, as cgroup {clean(kill.cgroup, 60)} was at its limit{limit}"


def _last_calls(end: ProcessEnding) -> list[FailedCall]:
    if end.exit_code == 0:
        return []
    return [call for call in end.failed_calls if call.seconds <= _JUST_BEFORE and call.error in _LACK][-_CALLS_TOLD:]


def _call(call: FailedCall) -> str:
    wanted = f" of {size(call.bytes)}" if call.bytes is not None else ""
    by = f", called by {clean(call.function, 60)}" if call.function else ""
    return f"{seconds(call.seconds)} before its end {call.call}{wanted} failed with {call.error}{by}."
