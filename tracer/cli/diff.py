"""`gomem diff`: what grew between two profiles."""

from __future__ import annotations

import click

from gomem.exporters.profile.difference import difference, other_program
from gomem.tracer.cli.options import say
from gomem.tracer.cli.profile_output import ProfileOutput, profile_options


@click.command()
@click.argument("base", type=click.Path())
@click.argument("later", type=click.Path())
@profile_options
def diff(base: str, later: str, out: ProfileOutput) -> None:
    """Show what grew between two profiles, by function: what LATER has more, or less, than BASE.

    Both are files in pprof's format, of gomem profile, of /debug/pprof/heap, or of others. Figures are those of
    "go tool pprof -diff_base BASE LATER"; shares are of what BASE has. A profile in pprof's format has BASE's values
    negated.
    """
    from gomem.exporters.pprof.decode import read_profile  # protobuf takes 20 ms to import

    out.check()
    before, after = read_profile(base), read_profile(later)
    if (differ := other_program(before, after)) is not None:
        say(f"these are profiles of different programs: {differ}")
    out.write(difference(before, after))
