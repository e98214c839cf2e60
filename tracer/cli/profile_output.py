"""How a profile is written: the options that all commands with a profile share, and the formats."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any, Literal, get_args

import click

from gomem.exporters.output import check_output, goes_to_stdout, write_output
from gomem.exporters.profile.folded import folded
from gomem.exporters.profile.sample_type import index_of
from gomem.exporters.text.console import Sheet, sheet_of
from gomem.exporters.text.functions import render_functions
from gomem.tracer.cli.options import Command
from gomem.tracer.errors import UsageError
from gomem.tracer.report.profile import Profile

ProfileFormat = Literal["top", "folded", "html", "pprof"]
_BY_ENDING: dict[str, ProfileFormat] = {".html": "html", ".htm": "html", ".folded": "folded", ".txt": "top"}


@dataclass(frozen=True, slots=True)
class ProfileOutput:
    """What the command line asks for. `sample_type`: None for the one that the profile shows first."""

    form: ProfileFormat
    output: str | None
    sample_type: str | None
    most: int
    cumulative: bool

    def check(self) -> None:
        """Raise GomemError now if the profile cannot be written, before it is taken."""
        check_output(self.output)
        if self.form == "pprof" and goes_to_stdout(self.output) and sys.stdout.isatty():
            raise UsageError("pprof's format is not text, and this is a terminal", "name a file: -o heap.pb.gz")

    def write(self, profile: Profile) -> None:
        """Write the profile. Raises UsageError where it has not that sample type."""
        index = index_of(profile, self.sample_type)
        write_output(self._content(profile, index), self.output)

    def _content(self, profile: Profile, index: int) -> str | bytes:
        if self.form == "pprof":
            from gomem.exporters.pprof.encode import encode  # protobuf takes 20 ms to import

            return encode(profile)
        if self.form == "html":
            from gomem.exporters.flamegraph.page import flame_graph  # as jinja2 does

            return flame_graph(profile, index)
        if self.form == "folded":
            return folded(profile, index)
        sheet = sheet_of(sys.stdout) if self.output is None else Sheet()
        return render_functions(profile, index, self.most, sheet, cumulative=self.cumulative)


def profile_options(command: Command) -> Command:
    """Add the options to a command that writes a profile; it gets them as one ProfileOutput, `out`."""

    @functools.wraps(command)
    def collected(
        *args: Any, form: ProfileFormat | None, output: str | None, sample_type: str | None, most: int,
        cumulative: bool, **named: Any,
    ) -> Any:  # fmt: skip
        chosen = form or format_of(output)
        return command(*args, out=ProfileOutput(chosen, output, sample_type, most, cumulative), **named)

    formatted = click.option("--format", "form", type=click.Choice(get_args(ProfileFormat)), help=_FORMAT)
    return formatted(profile_value_options(collected))  # type: ignore[no-any-return]


def profile_value_options(command: Any) -> Any:
    """Add all of them but --format."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def format_of(output: str | None) -> ProfileFormat:
    """Return the format that a file's name asks for."""
    if output is None or output == "-":
        return "top"
    ending = next((ending for ending in _BY_ENDING if output.lower().endswith(ending)), "")
    return _BY_ENDING.get(ending, "pprof")


_FORMAT = (
    "top: a table of functions. folded: a line for each stack, for flamegraph.pl. html: a flame graph, one "
    "file that needs nothing else. pprof: for go tool pprof and all that reads its format. "
    "[default: top; with -o by its ending: .html, .folded, .txt, else pprof]"
)
_OPTIONS = (
    click.option("-o", "--output", type=click.Path(), help="Write to this file, whole or not at all."),
    click.option(
        "--sample-type", metavar="TYPE",
        help="Which value top and folded show, such as inuse_space or alloc_objects, and html at first. "
        "[default: what the profile shows first]",
    ),
    click.option(
        "--top", "most", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
        help="How many functions top shows.",
    ),
    click.option(
        "--cumulative", is_flag=True,
        help="top: order the functions by all stacks that they are in, not by those that end in them.",
    ),
)  # fmt: skip
