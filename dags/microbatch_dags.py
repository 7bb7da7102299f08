"""When: an Airflow DAG for every job of this suite that has a schedule, made from its conf.

Airflow's environment needs neither `microbatch` nor Spark: a task starts a process. Where that differs from what is tried by
itself, these variables of Airflow's environment say so:

    MICROBATCH_SUITE    the suite; the folder above this file's
    MICROBATCH_ENV      the environment, `--env`; local
    MICROBATCH_COMMAND  the program, with its arguments; the suite's .venv/bin/microbatch, else microbatch
    MICROBATCH_SUBMIT   a spark-submit with all its options; the suite's run.py then goes under it

Exit codes 1, 2 and 3 need somebody: the task fails and is not tried again. 4 (another run holds the job) and 5 (something is
unavailable) are tried again as often as conf says, and so is a run that was killed: it goes on where it was.

A job of whose conf or file no DAG can be made takes none of the others with it. Its DAG keeps its name, and has one task that
fails with the sentence, at the job's own times where those can be read, else at midnight UTC; the sentence is also its
description, and an error in the log of the DAG processor. It is no import error: of a file that has one, Airflow schedules
nothing.
"""

from __future__ import annotations

import ast
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from airflow.sdk import DAG, AsyncCallback, BaseOperator, CronTriggerTimetable, DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowException, AirflowFailException

NEEDS_SOMEBODY = (1, 2, 3)
LINES_KEPT = 20  # of errors, for the one line that a task ends with
BEGINNING = datetime(2025, 1, 1)  # noqa: DTZ001 - the schedule's own zone is added; nothing before the first run is caught up on
_FLOW = ("name", "reads", "writes", "transform", "expects", "snapshots")  # the order of its arguments
_SCHEDULE = ("cron", "timezone", "sla_m", "retries", "retry_delay_m", "tasks")
_VARIABLE = re.compile(r"\$\{env:(?P<name>\w+)(?P<given>:-(?P<default>[^}]*))?\}")


class MistakeOperator(BaseOperator):
    """Stands for a job of which no DAG can be made.

    Args:
        mistake: what is wrong, and what to do.
    """

    ui_color = "#f5d0d0"

    def __init__(self, *, mistake: str, **task: Any) -> None:
        super().__init__(**task)
        self.mistake = mistake

    def execute(self, context: Any) -> None:
        """Say it.

        Raises:
            AirflowFailException: always.
        """
        raise AirflowFailException(self.mistake)


class MicrobatchOperator(BaseOperator):
    """Runs a job, or some of its flows, as a process; its output is the task's log.

    Args:
        command: the program and its arguments.
        suite: the working directory.
    """

    template_fields = ("command",)
    ui_color = "#e8f1f5"

    def __init__(self, *, command: list[str], suite: str, **task: Any) -> None:
        super().__init__(**task)
        self.command, self.suite = command, suite
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        """Run to the end.

        Raises:
            AirflowFailException: exit code 1, 2 or 3, with the error's one line; it is not tried again.
            AirflowException: any other exit code but 0; it is tried again.
        """
        self.log.info("%s", shlex.join(self.command))
        errors: list[str] = []
        try:
            self.process = (
                subprocess.Popen(  # a session of its own: what ends the task must not end the JVM under a batch
                    self.command,
                    cwd=self.suite,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            )
        except OSError as cause:
            raise AirflowFailException(f"{self.command[0]} cannot be started: {cause.strerror or cause}") from None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.info("%s", line.rstrip())
            if line.startswith("microbatch: "):
                errors = [*errors[1 - LINES_KEPT :], line.rstrip()]
        code = self.process.wait()
        if code == 0:
            return
        told = "; ".join(errors) or f"{shlex.join(self.command)} ended without a word"
        error = AirflowFailException if code in NEEDS_SOMEBODY else AirflowException
        raise error(f"exit {code}: {told}")

    def on_kill(self) -> None:
        """Ask the run to end; it does so after the batch under way."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


async def deadline_missed(job: str, sla_m: float, **_: Any) -> None:
    """Called by Airflow's triggerer when a run is not done in time; `sla_missed` among the alerts in conf tells people."""
    logging.getLogger(__name__).error("job %s is not done %g minutes after it was started", job, sla_m)


def suite_folder() -> Path:
    """The suite whose jobs are scheduled."""
    return Path(os.environ.get("MICROBATCH_SUITE") or Path(__file__).resolve().parent.parent)


def program(suite: Path) -> list[str]:
    """What starts the engine."""
    if submit := os.environ.get("MICROBATCH_SUBMIT"):
        return [*shlex.split(submit), str(suite / "run.py")]
    if named := os.environ.get("MICROBATCH_COMMAND"):
        return shlex.split(named)
    own = suite / ".venv" / "bin" / "microbatch"
    return [str(own) if own.exists() else shutil.which("microbatch") or "microbatch"]


def conf_of(suite: Path, env: str, job: str) -> dict[str, Any]:
    """The conf of a job: the base with the environment's file over it, mappings merged, all else replaced.

    Raises:
        ValueError: a file is not YAML, or no mapping.
    """
    conf: dict[str, Any] = {}
    for folder in ("base", env):
        file = suite / "conf" / folder / f"{job}.yml"
        if file.is_file():
            conf = _over(conf, _mapping(file, f"conf/{folder}/{file.name}"))
    return conf


def _mapping(file: Path, where: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text("utf-8")) or {}
    except yaml.YAMLError as cause:
        raise ValueError(f"{where}: is not YAML: {' '.join(str(cause).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where}: must be keys with values")
    return found


def _over(under: Any, over: Any) -> Any:
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{key: _over(under.get(key), value) for key, value in over.items()}}
    return over


def _resolved(value: Any, where: str) -> Any:
    """A value of the schedule, with the environment variables in it replaced.

    Raises:
        ValueError: one is not set, and has no default.
    """

    def look_up(found: re.Match[str]) -> str:
        value = os.environ.get(found["name"])
        if found["given"]:
            return value or found["default"]  # as in a shell, an empty variable takes the default too
        if value is None:
            raise ValueError(f"{where}: the environment variable {found['name']} is not set for Airflow")
        return value

    return _VARIABLE.sub(look_up, value) if isinstance(value, str) else value


def flows_of(file: Path) -> dict[str, list[str]]:
    """The flows of a job, each with those that must be done before it; read from the file's text, nothing is run.

    Names, tables and sources are literals, or constants of the file that are assigned once.

    Raises:
        ValueError: one of them is neither, or no flow is there; an edge that is not known would be lost.
    """
    tree = _parsed(file)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) == "Flow"]
    if not calls:
        raise ValueError(
            f"jobs/{file.name}: `tasks: flow` needs each Flow(...) written out here; or write `tasks: job`"
        )
    flows = [_Flow(file, call, _constants(tree)) for call in calls]
    writers = {flow.writes: flow.name for flow in flows}
    return {
        flow.name: sorted({writers[table] for table in flow.reads if table in writers} - {flow.name}) for flow in flows
    }


class _Flow:
    """A flow as its call says.

    Attributes:
        reads: the tables it needs, its snapshots included.
    """

    def __init__(self, file: Path, call: ast.Call, constants: dict[str, ast.expr]) -> None:
        self._file, self._call, self._constants = file, call, constants
        given = dict(zip(_FLOW, call.args, strict=False)) | {str(word.arg): word.value for word in call.keywords}
        self.name = _text(self._meant(given.get("name"))) or self._unknown("the flow's name", given.get("name"))
        self.writes = self._table(given.get("writes"), "the table it writes")
        reads, snapshots = self._meant(given.get("reads")), self._meant(given.get("snapshots"))
        streamed = [] if _called(reads) == "Source" else [self._table(given.get("reads"), "what it reads")]
        if snapshots is not None and not isinstance(snapshots, ast.Dict):
            self._unknown("its snapshots", snapshots)
        values = snapshots.values if isinstance(snapshots, ast.Dict) else []
        self.reads = [*streamed, *(self._table(value, "the table of each snapshot") for value in values)]

    def _meant(self, node: ast.expr | None) -> ast.expr | None:
        """The expression itself, or what the constant that it names was assigned."""
        known = dict(self._constants)
        while isinstance(node, ast.Name) and node.id in known:
            node = known.pop(node.id)
        return node

    def _table(self, node: ast.expr | None, what: str) -> str:
        """`"silver.sales"`, or that of `Upsert("silver.sales", …)` and of `Snapshot(table="silver.sales")`."""
        meant = self._meant(node)
        if isinstance(meant, ast.Call):
            named = {word.arg: word.value for word in meant.keywords}
            meant = self._meant(meant.args[0] if meant.args else named.get("table"))
        return _text(meant) or self._unknown(what, node)

    def _unknown(self, what: str, node: ast.expr | None) -> NoReturn:
        said = f"{self._file.name}:{(node or self._call).lineno}"
        raise ValueError(
            f"jobs/{said}: `tasks: flow` reads this file without running it, and finds {what} neither as a literal nor as a "
            "constant assigned once in this file; write it out, or write `tasks: job` in conf"
        )


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """What the names of a module were assigned at its top; without those that are bound a second time, in whatever way."""
    nodes = list(ast.walk(tree))
    bound = [node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]
    bound += [node.arg for node in nodes if isinstance(node, ast.arg)]
    once = {name for name, times in Counter(bound).items() if times == 1}
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            found |= {each.id: node.value for each in targets if isinstance(each, ast.Name) and each.id in once}
    return found


def _called(node: ast.AST | None) -> str:
    """The name of what is called, without its module; empty where it is no call."""
    return getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), file.name)  # bytes: a mark of their order or of the encoding is Python's affair


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def page(suite: Path, job: str, conf: dict[str, Any]) -> str:
    """The job's page: `docs/pipelines/<job>.md` where `microbatch docs` has written it, else what its file and conf say."""
    written = suite / "docs" / "pipelines" / f"{job}.md"
    if written.is_file():
        return written.read_text("utf-8")
    doc = ast.get_docstring(_parsed(suite / "jobs" / f"{job}.py")) or ""
    sources = "\n".join(
        f"- `{name}` ({source.get('kind')}): {source.get('frequency', 'frequency not said')}, "
        f"{source.get('volume', 'volume not said')}"
        for name, source in (conf.get("sources") or {}).items()
    )
    more = f"`microbatch docs {job} > docs/pipelines/{job}.md` puts the whole page here."
    return f"## Pipeline: {job}\n\n{doc}\n\n### Sources\n\n{sources}\n\n{more}\n"


def schedule_of(conf: dict[str, Any], job: str) -> dict[str, Any]:
    """What conf says of when a job runs, without variables; empty where it says nothing.

    Raises:
        ValueError: it is no mapping, or an environment variable in it is not set.
    """
    where, said = f"conf/base/{job}.yml", conf.get("schedule") or {}
    if not isinstance(said, dict):
        raise ValueError(f'{where}: schedule: must be keys with values, such as {{cron: "0 2 * * *"}}')
    if unknown := [key for key in said if key not in _SCHEDULE]:  # `{cron: 0 2 * * 1,3}` is the key 3 to YAML
        keys = ", ".join(_SCHEDULE)
        raise ValueError(
            f"{where}: schedule: there is no key {unknown[0]!r}, there are {keys}; write the cron in quotes"
        )
    return {key: _resolved(value, where) for key, value in said.items()}


def timetable(schedule: dict[str, Any], job: str) -> CronTriggerTimetable:
    """When a job runs. Airflow itself looks at the expression only after it has taken the file's DAGs.

    Raises:
        ValueError: it is no cron expression, or there is no such zone.
    """
    where, cron, zone = f"conf/base/{job}.yml", schedule.get("cron"), schedule.get("timezone", "UTC")
    if not isinstance(cron, str) or not _is_cron(cron):
        raise ValueError(f'{where}: schedule.cron: {cron!r} is no cron expression; write one such as "0 2 * * *"')
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(
            f"{where}: schedule.timezone: {zone!r} is no time zone; write one such as Europe/Berlin"
        ) from None
    return CronTriggerTimetable(cron, timezone=zone)


def _is_cron(text: str) -> bool:
    try:
        from croniter import CroniterBadDateError, croniter
    except ImportError:  # a worker with Airflow's task SDK alone, where nothing is scheduled
        return True
    if not croniter.is_valid(text):
        return False
    try:
        croniter(text).get_next()
    except CroniterBadDateError:  # it never comes; Airflow would log that and run nothing
        return False
    return True


def dag_of(suite: Path, env: str, job: str) -> DAG | None:
    """The DAG of a job; None where its conf has no schedule.

    Raises:
        Exception: of any kind; conf or the job's file has a mistake.
    """
    conf = conf_of(suite, env, job)
    schedule = schedule_of(conf, job)
    if not schedule:
        return None
    when, zone = timetable(schedule, job), schedule.get("timezone", "UTC")
    owner = _resolved(conf.get("owner"), f"conf/base/{job}.yml") or "nobody"
    if not isinstance(owner, str):  # Airflow finds out while it writes the DAGs of all files, and writes none
        raise ValueError(f"conf/base/{job}.yml: owner: {owner!r} must be text; write it in quotes")
    kinds = sorted({str(source.get("kind")) for source in (conf.get("sources") or {}).values()})
    dag = DAG(
        f"{job}_pipeline",
        description=f"microbatch run {job}",
        doc_md=page(suite, job, conf),
        schedule=when,
        start_date=BEGINNING.replace(tzinfo=ZoneInfo(zone)),
        catchup=False,
        max_active_runs=1,
        max_active_tasks=1,  # one run at a time holds the job; the others would end with exit code 4
        tags=["microbatch", env, *kinds],
        default_args={
            "owner": owner,
            "retries": int(schedule.get("retries", 0)),
            "retry_delay": timedelta(minutes=float(schedule.get("retry_delay_m", 5))),
        },
        deadline=_deadline(job, schedule.get("sla_m")),
    )
    start = [*program(suite), "run", job, "--suite", str(suite), "--env", env]
    if schedule.get("tasks", "job") == "job":
        MicrobatchOperator(task_id=job, command=start, suite=str(suite), dag=dag)
        return dag
    flows = flows_of(suite / "jobs" / f"{job}.py")
    tasks = {
        flow: MicrobatchOperator(task_id=flow, command=[*start, "--flow", flow], suite=str(suite), dag=dag)
        for flow in flows
    }
    for flow, before in flows.items():
        for other in before:
            tasks[other] >> tasks[flow]
    dag.check_cycle()
    return dag


def dag_of_a_mistake(suite: Path, env: str, job: str, mistake: Exception) -> DAG:
    """A DAG in the place of the job's own, whose one task fails with what is wrong."""
    kind = "" if isinstance(mistake, ValueError) else f"{type(mistake).__name__}: "
    told = f"no DAG can be made of job {job}: {kind}{mistake}; `microbatch plan {job}` lists every mistake"
    logging.getLogger(__name__).error("%s", told)
    name = re.sub(r"[^\w.-]", "_", job)
    dag = DAG(
        f"{name}_pipeline",
        description=told,
        doc_md=told,
        schedule=_when(suite, env, job),
        start_date=BEGINNING.replace(tzinfo=ZoneInfo("UTC")),
        catchup=False,
        max_active_runs=1,
        tags=["microbatch", env, "mistake"],
    )
    MistakeOperator(task_id=name, mistake=told, dag=dag)
    return dag


def _when(suite: Path, env: str, job: str) -> CronTriggerTimetable:
    try:
        return timetable(schedule_of(conf_of(suite, env, job), job), job)
    except Exception:  # the mistake is there, or it is one of several
        return CronTriggerTimetable("0 0 * * *", timezone="UTC")


def _deadline(job: str, sla_m: Any) -> DeadlineAlert | None:
    """Airflow 3 has no SLA of its own: a deadline from the start of the run, which its triggerer watches.

    Source:
        apache/airflow issue 73428: up to 3.3.2 `airflow dags test` ends in a traceback after a run that went well, where the
        DAG has a deadline. There nobody waits for one, so it is left out.
    """
    if sla_m is None or sys.argv[1:3] == ["dags", "test"]:
        return None
    # by its dotted path: Airflow gives this file a name of its own, under which the triggerer would not find it
    told = AsyncCallback("microbatch_dags.deadline_missed", {"job": job, "sla_m": float(sla_m)})
    return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(minutes=float(sla_m)), told)


def dags(suite: Path, env: str) -> Iterator[DAG]:
    """The DAGs of all jobs that have a schedule; a mistake in one takes no other away."""
    for file in sorted((suite / "jobs").glob("*.py")):
        if file.stem == "__init__":
            continue
        try:
            dag = dag_of(suite, env, file.stem)
        except Exception as mistake:  # whatever it is, the other jobs have to run
            dag = dag_of_a_mistake(suite, env, file.stem, mistake)
        if dag:
            yield dag


globals().update({dag.dag_id: dag for dag in dags(suite_folder(), os.environ.get("MICROBATCH_ENV") or "local")})
