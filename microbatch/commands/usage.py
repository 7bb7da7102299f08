"""A wrong use of the command line is one line, as every error is; and a reader that has seen enough is none."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

import click

USAGE = 2
CLOSED = 128 + 13  # what a shell says of a process that SIGPIPE ended


class Commands(click.Group):
    """A group whose mistakes are told as the engine tells its own: what, where, what to do."""

    def main(self, args: Any = None, prog_name: Any = None, **extra: Any) -> Any:  # type: ignore[override]  # click says it twice, by whether it ends the process
        """Call a command and end the process with its exit code."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            print(error.format_message(), file=sys.stderr)
            code = USAGE
        except click.UsageError as error:
            print(f"microbatch: {line_of(error)}", file=sys.stderr)
            code = USAGE
        except click.Abort:
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


def line_of(error: click.UsageError) -> str:
    """`preview: missing option '--flow'; microbatch preview --help says what it takes`."""
    called = error.ctx.command_path.split()[1:] if error.ctx else []
    if called[:1] == ["-m"]:  # python -m microbatch
        called = called[2:]
    said = " ".join(error.format_message().split()).replace(". Did you", "; did you").replace(". Choose", "; choose")
    where, help_ = " ".join(called), " ".join(["microbatch", *called, "--help"])
    end = "" if said.endswith("?") else f"; {help_} says what it takes"
    return f"{where}{': ' if where else ''}{said[:1].lower()}{said[1:].rstrip('.')}{end}"


def closed(error: BrokenPipeError) -> int:
    """The exit code where whoever read stdout has gone; nothing more is written there, nor complained of.

    Raises:
        BrokenPipeError: it was another pipe.
    """
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    if not any(happened & select.POLLERR for _, happened in watched.poll(0)):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED
