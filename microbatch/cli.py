"""The command line: arguments, exit codes, and the one line an error is.

Progress and messages go to stderr, results to stdout. Imports happen inside the commands: a run with nothing to do starts
in a fraction of a second.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from microbatch.commands.completion import EnvironmentName, JobName
from microbatch.commands.usage import Commands, closed
from microbatch.errors import ConfigError, MicrobatchError, Problem, redacted

SUITE = click.option(
    "--suite", default=".", metavar="DIR", help="The suite's folder; the working directory unless said."
)
ENV = click.option(
    "--env", type=EnvironmentName(), default="local", metavar="NAME", help="The environment: conf/NAME over conf/base."
)
DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error, and what Spark logs.")


def command(group: click.Group, name: str, loads: bool = True) -> Callable[[Callable[..., int]], click.Command]:
    """Register a command that takes --suite, --env and --debug and returns its exit code.

    Args:
        loads: whether its function gets the loaded suite; otherwise it gets the suite's folder and the environment's name,
            as what works where a suite is broken, or not there yet.
    """

    def wrap(function: Callable[..., int]) -> click.Command:
        def called(suite: str, env: str, debug: bool, **arguments: Any) -> None:
            if loads:
                sys.exit(_guarded(function, suite, env, debug, arguments))
            sys.exit(_guarded(partial(function, Path(suite), env), None, env, debug, arguments))

        called.__doc__ = function.__doc__
        parameters = list(getattr(function, "__click_params__", []))
        for parameter in parameters:
            if loads and parameter.name in ("job", "jobs"):
                parameter.type = JobName()  # so that the shell completes it
        called.__click_params__ = parameters  # type: ignore[attr-defined]
        return group.command(name)(SUITE(ENV(DEBUG(called))))

    return wrap


def _guarded(function: Callable[..., int], suite: str | None, env: str, debug: bool, arguments: dict[str, Any]) -> int:
    """Call a command, with the suite where one is named; an error becomes its one line on stderr and its exit code, with
    every secret taken out."""
    loaded: list[Any] = []
    try:
        if suite is not None:
            from microbatch.config import load

            loaded.append(load(Path(suite), env))
            if debug:
                from microbatch import session

                session.loud(lambda line: print(redacted(line, loaded[0].secrets), file=sys.stderr))
        code = function(*loaded, **arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError as error:
        return closed(error)
    except (Exception, SystemExit) as error:  # a transform or a job file may raise either
        print_errors([error], loaded[0].secrets if loaded else (), as_json=arguments.get("log") == "json")
        return error.exit_code if isinstance(error, MicrobatchError) else 1
    except KeyboardInterrupt:
        print("microbatch: interrupted; run again to go on from the last batch", file=sys.stderr)
        return 130


def print_errors(errors: Iterable[BaseException], secrets: Iterable[str], as_json: bool = False) -> None:
    """One line an error (a configuration error: one a mistake), secrets replaced by value; with --debug its traceback."""
    from microbatch.observers import JsonLines

    secrets = tuple(secrets)
    for error in errors:
        if click.get_current_context().params.get("debug"):
            print(redacted("".join(traceback.format_exception(error)), secrets), file=sys.stderr)
        known = isinstance(error, MicrobatchError)
        text = (
            str(error)
            if known
            else f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}; run again with --debug to see where"
        )
        for line in redacted(text, secrets).splitlines():  # a secret of several lines is found in the whole only
            if as_json:
                JsonLines().failed(line)
            else:
                print(f"microbatch: {line}", file=sys.stderr)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="microbatch")
def group() -> None:
    """Declared micro-batch jobs on Spark: checked, accounted for, exactly once."""


@command(group, "run")
@click.argument("jobs", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every job of the suite.")
@click.option("--flow", "flows", multiple=True, metavar="F", help="Only this flow; may be given more than once.")
@click.option(
    "--accept", type=click.Choice(["checkpoint", "files", "batch"]), help="Give something up on purpose; see the guide."
)
@click.option(
    "--log", type=click.Choice(["text", "json"]), help="Lines instead of a progress bar; json: an object a line."
)
@click.option("--continuous", "on", is_flag=True, help="Go on until SIGTERM or SIGINT, each flow at its own pace.")
def run(
    suite: Any, jobs: tuple[str, ...], everything: bool, flows: tuple[str, ...], accept: Any, log: Any, on: bool
) -> int:
    """Take in all that is there, then exit. Several jobs share one session."""
    from microbatch.commands import run as command_

    if bool(jobs) == everything:
        raise ConfigError(Problem("run", f"name jobs or say --all; there are {', '.join(suite.jobs)}"))
    if accept and on:
        raise ConfigError(Problem("--accept", "gives something up once; run it without --continuous"))
    report = command_.execute(suite, jobs or tuple(suite.jobs), flows, accept, log, on)
    print_errors(report.errors, suite.secrets, as_json=log == "json")
    return report.exit_code


@command(group, "audit")
@click.argument("job")
def audit(suite: Any, job: str) -> int:
    """Prove from the tables that nothing was lost or doubled; exit 1 if an equation fails."""
    from microbatch.commands import audit as command_

    return command_.execute(suite, suite.job(job))


@command(group, "plan")
@click.argument("job")
def plan(suite: Any, job: str) -> int:
    """Show the flows in order, their schemas, what is expected of which columns, and what is pending. Writes nothing."""
    from microbatch.commands import plan as command_

    return command_.execute(suite, suite.job(job))


@command(group, "preview")
@click.argument("job")
@click.option("--flow", required=True, metavar="F", help="The flow whose rows are shown.")
@click.option("-n", "count", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many rows.")
def preview(suite: Any, job: str, flow: str, count: int) -> int:
    """Show rows as they would come out, and the reasons of those that would leave. Writes nothing."""
    from microbatch.commands import preview as command_

    loaded = suite.job(job)
    return command_.execute(suite, loaded, loaded.flow(flow), count)


@command(group, "status")
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="A list of objects, for programs.")
def status(suite: Any, job: str | None, as_json: bool) -> int:
    """Show per flow the last run, its rows, what is pending, how fresh it is, and open letters."""
    from microbatch.commands import status as command_

    return command_.execute(suite, [suite.job(job)] if job else list(suite.jobs.values()), as_json)


@command(group, "trace")
@click.argument("job")
@click.option(
    "--key", "keys", multiple=True, required=True, metavar="COLUMN=VALUE", help="May be given more than once: all hold."
)
def trace(suite: Any, job: str, keys: tuple[str, ...]) -> int:
    """Show where a row is: each table, quarantine, deleted or superseded, and which batch brought it. Starts no JVM."""
    from microbatch.commands import trace as command_

    return command_.execute(suite, suite.job(job), keys)


@command(group, "report")
@click.argument("job", required=False)
@click.option("--open", "open_", is_flag=True, help="Show it in the browser, too.")
def report(suite: Any, job: str | None, open_: bool) -> int:
    """Write the page of what the jobs did, with Great Expectations' Data Docs beside it; print its path. Starts no JVM."""
    from microbatch.commands import report as command_

    jobs = [suite.job(job)] if job else list(suite.jobs.values())
    return command_.execute(suite, jobs, job or "index", open_)


@command(group, "docs")
@click.argument("job")
def docs(suite: Any, job: str) -> int:
    """Print the page of a job in Markdown, from code, conf and ledger, with its lineage down to columns."""
    from microbatch.commands import docs as command_

    return command_.execute(suite, suite.job(job))


@group.group("quarantine")
def quarantine() -> None:
    """Dead letters: rows, texts and files that left, each with its reasons."""


def chooses_letters(function: Callable[..., int]) -> Callable[..., int]:
    """The options that say which letters of a job are meant."""
    flow = click.option("--flow", metavar="F", help="Only the letters of this flow.")
    batch = click.option("--batch", type=int, metavar="N", help="Only those of this batch.")
    where = click.option(
        "--where", metavar="SQL", help="Only those it is true for; over the columns of ops.quarantine."
    )
    return flow(batch(where(function)))


@command(quarantine, "list")
@click.argument("job")
@chooses_letters
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=0), help="How many letters.")
def quarantine_list(suite: Any, job: str, flow: str | None, batch: int | None, where: str | None, limit: int) -> int:
    """Count the letters of a job by reason, and list the newest."""
    from microbatch.commands import quarantine as command_

    return command_.list_(command_.Letters(suite, suite.job(job), flow, batch, where), limit)


@command(quarantine, "show")
@click.argument("job")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@chooses_letters
def quarantine_show(
    suite: Any, job: str, ids: tuple[str, ...], flow: str | None, batch: int | None, where: str | None
) -> int:
    """Show whole letters: the input as it came, every reason, the status. The beginning of an id is enough."""
    from microbatch.commands import quarantine as command_

    return command_.show(command_.Letters(suite, suite.job(job), flow, batch, where), ids)


@command(quarantine, "replay")
@click.argument("job")
@chooses_letters
def quarantine_replay(suite: Any, job: str, flow: str | None, batch: int | None, where: str | None) -> int:
    """Send the recorded input of open letters through today's transform and rules. Twice is the same as once."""
    from microbatch.commands import replay as command_
    from microbatch.commands.quarantine import Letters

    return command_.replay(Letters(suite, suite.job(job), flow, batch, where))


@command(quarantine, "discard")
@click.argument("job")
@chooses_letters
def quarantine_discard(suite: Any, job: str, flow: str | None, batch: int | None, where: str | None) -> int:
    """Mark open letters as not wanted. They stay to be read, and are never replayed."""
    from microbatch.commands import replay as command_
    from microbatch.commands.quarantine import Letters

    return command_.discard(Letters(suite, suite.job(job), flow, batch, where))


@command(group, "backfill")
@click.argument("job")
@click.option("--flow", required=True, metavar="F", help="The flow whose target is derived again.")
@click.option("--where", metavar="SQL", help="Only the rows of the target it is true for.")
@click.option("--downstream", is_flag=True, help="Derive the tables of its readers again, too.")
def backfill(suite: Any, job: str, flow: str, where: str | None, downstream: bool) -> int:
    """Derive a flow's target again from its input table, beside its checkpoint, in one commit."""
    from microbatch.commands import backfill as command_

    return command_.execute(suite, suite.job(job), flow, where, downstream)


@command(group, "maintain")
@click.argument("job")
@click.option(
    "--keep-days", default=30, show_default=True, help="How far back tables can be read, and the job rewound."
)
@click.option("--ledger-days", default=400, show_default=True, help="Older batches are folded, older results go.")
def maintain(suite: Any, job: str, keep_days: int, ledger_days: int) -> int:
    """Compact, cluster and vacuum a job's tables, and fold its old ledger. Safe beside a run."""
    from microbatch.commands import maintain as command_

    return command_.execute(suite, suite.job(job), keep_days, ledger_days)


@command(group, "rewind")
@click.argument("jobs", nargs=-1, required=True)
@click.option(
    "--to", metavar="TIME", help="ISO 8601, UTC unless it says otherwise; not needed to finish one that was begun."
)
def rewind(suite: Any, jobs: tuple[str, ...], to: str | None) -> int:
    """Set tables, checkpoints, quarantine and ledger back to the end of the last successful run before a time."""
    from microbatch.commands import rewind as command_

    return command_.execute(suite, jobs, to)


@command(group, "init", loads=False)
@click.argument("directory", metavar="DIR")
def init(_suite: Path, _env: str, directory: str) -> int:
    """Make a new suite that runs: one job over files, its rules, its tests, and a file to take in."""
    from microbatch.commands import scaffold

    return scaffold.init(Path(directory))


@command(group, "new", loads=False)
@click.argument("job")
def new(suite: Path, env: str, job: str) -> int:
    """Make a job in this suite: declaration, transform, conf, expectations and tests that pass."""
    from microbatch.commands import scaffold

    return scaffold.new(suite, env, job)


@command(group, "schema", loads=False)
@click.option("--file", "of", type=click.Choice(["job", "environment"]), help="Of which file; either unless said.")
@click.option("--overlay", is_flag=True, help="Of a file in conf/<env>, which repeats only what differs.")
def schema(_suite: Path, _env: str, of: Any, overlay: bool) -> int:
    """Print the JSON Schema of the files of conf, with which an editor completes and checks them."""
    from microbatch.commands import schema as command_

    return command_.execute(of, overlay)


@command(group, "schedule")
@click.argument("jobs", nargs=-1)
@click.option("--format", "format_", required=True, type=click.Choice(["cron", "systemd", "kubernetes"]))
@click.option("--image", default="microbatch:latest", show_default=True, metavar="NAME", help="What a pod runs.")
def schedule(suite: Any, jobs: tuple[str, ...], format_: Any, image: str) -> int:
    """Print what runs the scheduled jobs without Airflow: all of them, or those that are named."""
    from microbatch.commands import schedule as command_

    chosen = [suite.job(name) for name in jobs] or [job for job in suite.jobs.values() if job.conf.schedule]
    return command_.execute(suite, chosen, format_, image)


@command(group, "doctor", loads=False)
def doctor(suite: Path, env: str) -> int:
    """Say what is wrong with this machine or environment, and what to type. Starts no Spark."""
    from microbatch.commands import doctor as command_

    return command_.execute(suite, env)


def main() -> None:
    """The console script. Spark's own session is left to the end of the process: stopping it takes a second for nothing."""
    code = 0
    try:
        group(standalone_mode=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if "pyspark" in sys.modules else sys.exit(code)


__all__ = ["group", "main"]
