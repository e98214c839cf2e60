"""Write the man pages, made of what `--help` says, into a directory.

python -m deploy.man DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click_man.core import write_man_pages

from gomem.tracer import __version__
from gomem.tracer.cli import Gomem, main


def write(directory: Path) -> None:
    """Write one page for gomem and one for each command: gomem-trace(1) and so on."""
    assert isinstance(main, Gomem)
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    main.commands = {name: command for name, command in found.items() if command is not None}
    directory.mkdir(parents=True, exist_ok=True)
    write_man_pages("gomem", main, version=__version__, target_dir=str(directory))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
