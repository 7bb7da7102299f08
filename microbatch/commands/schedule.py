"""`microbatch schedule`: what runs each scheduled job without Airflow, for cron, systemd or Kubernetes.

All three follow one rule: exit codes 1, 2 and 3 need somebody and are not tried again; 4 (another run holds the job) and 5
(something is unavailable) are, as often as conf says. A run that was killed is tried again too: it goes on where it was.
"""

from __future__ import annotations

import hashlib
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from microbatch.commands.timetable import Times, times
from microbatch.config import LoadedJob, Schedule, Suite
from microbatch.config.values import is_uri
from microbatch.config.variables import variables
from microbatch.errors import ConfigError, Problem

Format = Literal["cron", "systemd", "kubernetes"]
Entries = Sequence[tuple[LoadedJob, Times, Schedule]]

GRACE_S = 1800  # SIGTERM ends a run after the batch under way: it needs the time of one batch
LONGEST_CRONJOB_NAME = 52  # Kubernetes adds eleven characters to it for each run
LONGEST_DEADLINE_S = 3600
CODES = "Exit codes: 1, 2, 3 need somebody, and are not tried again; 4 (held by another run) and 5 (unavailable) are."


def execute(suite: Suite, jobs: Sequence[LoadedJob], format_: Format, image: str) -> int:
    """Print it for the jobs, which all have a schedule.

    Raises:
        ConfigError: a job has no schedule, or one that only Airflow understands.
    """
    if not jobs:
        raise ConfigError(Problem("conf", 'no job has a schedule; write one, such as schedule: {cron: "0 2 * * *"}'))
    entries = [(job, *times(job)) for job in jobs]
    lines = {"cron": _cron, "systemd": _systemd, "kubernetes": _kubernetes}[format_](suite, entries, image)
    print("\n".join(lines))
    return 0


def _said(schedule: Schedule) -> str:
    """What a person wants to know of a schedule, on one line."""
    again = {0: "no retries", 1: "1 retry"}.get(schedule.retries, f"{schedule.retries} retries")
    apart = f", {schedule.retry_delay_m:g} minutes apart" if schedule.retries else ""
    sla = f"; to be done within {schedule.sla_m:g} minutes" if schedule.sla_m else ""
    return f"{again}{apart}{sla}"


def _needs(suite: Suite, entries: Entries) -> str:
    """The environment variables that the jobs' conf reads; empty where there are none."""
    return ", ".join(each.name for each in variables(suite.root, suite.env, [job.name for job, _, _ in entries]))


def _command(suite: Suite, job: str, program: Sequence[str], root: str) -> list[str]:
    return [*program, "run", job, "--suite", root, "--env", suite.env]


def _here(suite: Suite, job: str) -> list[str]:
    return _command(suite, job, (sys.executable, "-m", "microbatch"), str(suite.root))


def _cron(suite: Suite, entries: Entries, _: str) -> Iterator[str]:
    yield f"# {CODES}"
    yield "# CRON_TZ is read by cronie. Debian's cron does not know it, and takes the zone of the machine: make that the same."
    if needs := _needs(suite, entries):
        yield f"# Conf reads these variables; put them above, as NAME=value: {needs}"
    for job, when, schedule in entries:
        tries, pause_s = schedule.retries + 1, math.ceil(schedule.retry_delay_m * 60)
        once = shlex.join(_here(suite, job.name))
        numbers = " ".join(str(number) for number in range(1, tries + 1))
        again = (
            f"for try in {numbers}; do {once}; code=$?; [ $code -lt 4 ] && exit $code; "
            f"[ $try = {tries} ] || sleep {pause_s}; done; exit $code"
        )
        yield f"\n# {job.name}: {_said(schedule)}"
        yield f"CRON_TZ={when.zone}"
        yield f"{when.portable}  {(again if schedule.retries else once).replace('%', chr(92) + '%')}"


def _systemd(suite: Suite, entries: Entries, _: str) -> Iterator[str]:
    yield f"# {CODES}"
    yield "# Write each part to the file it names, then: systemctl daemon-reload && systemctl enable --now UNIT.timer"
    if needs := _needs(suite, entries):
        yield f"# Conf reads these variables; put them into the EnvironmentFile, as NAME=value: {needs}"
    for job, when, schedule in entries:
        unit = f"microbatch-{job.name}"
        yield f"\n# /etc/systemd/system/{unit}.service"
        yield "[Unit]"
        yield f"Description=microbatch job {job.name} ({_said(schedule)})"
        yield "After=network-online.target"
        yield "Wants=network-online.target"
        # starts that come sooner than the next one on the calendar are retries; one more than these is refused
        yield f"StartLimitIntervalSec={max(1, when.shortest_gap_s - 1)}"
        yield f"StartLimitBurst={schedule.retries + 1}"
        yield "\n[Service]"
        yield "Type=oneshot"
        yield f"WorkingDirectory={_escaped(str(suite.root))}"
        yield f"EnvironmentFile=-/etc/microbatch/{suite.env}.env"
        yield f"ExecStart={' '.join(_quoted(word) for word in _here(suite, job.name))}"
        if schedule.retries:
            yield "Restart=on-failure"
            yield f"RestartSec={math.ceil(schedule.retry_delay_m * 60)}"
            yield "RestartPreventExitStatus=1 2 3"
        yield "# the JVM belongs to the run: only the run is told to end, and ends it after the batch under way"
        yield "KillMode=mixed"
        yield f"TimeoutStopSec={GRACE_S}"
        yield f"\n# /etc/systemd/system/{unit}.timer"
        yield "[Unit]"
        yield f"Description=when microbatch job {job.name} runs: {when.cron} {when.zone}"
        yield "\n[Timer]"
        yield from (f"OnCalendar={expression}" for expression in when.calendar)
        yield "# a time that was missed while the machine was off is made up for once; a run takes in all that waits"
        yield "Persistent=true"
        yield "AccuracySec=1s"
        yield "\n[Install]"
        yield "WantedBy=timers.target"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of ExecStart=: systemd expands % and $ everywhere, and has quotes of its own."""
    text = _escaped(word).replace("$", "$$")
    return text if shlex.quote(word) == word else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _kubernetes(suite: Suite, entries: Entries, image: str) -> Iterator[str]:
    yield f"# {CODES}"
    yield f"# The image {image} holds this suite in /suite, microbatch and Java. The claim microbatch-storage outlives the pods:"
    yield "# without it each run would begin anew. Kubernetes chooses the pauses between retries: 10 s, doubling to 6 minutes."
    if needs := _needs(suite, entries):
        yield f"# Conf reads these variables; put them into the secret microbatch-{suite.env.replace('_', '-')}: {needs}"
    for job, when, schedule in entries:
        yield "---"
        yield f"# {job.name}: {_said(schedule)}"
        yield yaml.safe_dump(_cron_job(suite, job, when, schedule, image), sort_keys=False, width=120).rstrip()


def _cron_job(suite: Suite, job: LoadedJob, when: Times, schedule: Schedule, image: str) -> dict[str, Any]:
    container = {
        "name": "run",
        "image": image,
        "command": _command(suite, job.name, ("microbatch",), "/suite"),
        "workingDir": "/suite",
        "envFrom": [{"secretRef": {"name": f"microbatch-{suite.env}".replace("_", "-"), "optional": True}}],
        "volumeMounts": _mounts(suite),
    }
    pod = {
        "restartPolicy": "Never",  # what a podFailurePolicy demands
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [container],
        "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": "microbatch-storage"}}],
    }

    def on(action: str, codes: list[int]) -> dict[str, Any]:
        return {"action": action, "onExitCodes": {"containerName": "run", "operator": "In", "values": codes}}

    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    run = {
        "backoffLimit": schedule.retries,
        "podFailurePolicy": {"rules": [disrupted, on("FailJob", [1, 2, 3]), on("Count", [4, 5])]},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": _object_name(job.name), "labels": {"app.kubernetes.io/name": "microbatch"}},
        "spec": {
            "schedule": when.portable,
            "timeZone": when.zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": min(when.shortest_gap_s, LONGEST_DEADLINE_S),
            "jobTemplate": {"spec": run},
        },
    }


def _mounts(suite: Suite) -> list[dict[str, str]]:
    """Each local storage root, as it lies in the image, in a folder of its own on the volume."""
    mounts = []
    for name, place in suite.environment.storage.items():
        if not is_uri(place):
            inside = Path(place).is_relative_to(suite.root)
            path = Path("/suite", Path(place).relative_to(suite.root)) if inside else Path(place)
            mounts.append({"name": "storage", "mountPath": str(path), "subPath": name})
    return mounts


def _object_name(job: str) -> str:
    """A name that Kubernetes takes: no _, none at the end, not too long; two jobs never share one."""
    name = f"microbatch-{job.replace('_', '-')}"
    if len(name) <= LONGEST_CRONJOB_NAME and not name.endswith("-"):
        return name
    told_apart = hashlib.sha256(job.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_CRONJOB_NAME - 9].rstrip('-')}-{told_apart}"
