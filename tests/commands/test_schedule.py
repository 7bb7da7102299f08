"""`schedule`: the same times as conf says, in the words of three schedulers, with retries only where they help."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from croniter import croniter

from microbatch.commands.timetable import times
from microbatch.config import load
from tests.commands.conftest import called
from tests.orders import ORDERS_CONF

EVERY_TWO_HOURS = (
    'schedule: {cron: "30 */2 * * 1-5", timezone: Europe/Berlin, sla_m: 20, retries: 2, retry_delay_m: 1}\n'
)


@pytest.fixture
def scheduled(house):
    """The suite of orders, on a schedule: `scheduled("cron", "schedule: …")` is what the command printed."""

    def printed(format_: str, schedule: str = EVERY_TWO_HOURS, *arguments: str) -> str:
        (house.root / "conf/base/orders.yml").write_text(ORDERS_CONF + schedule)
        done = house.call("schedule", "--format", format_, *arguments)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    printed.root = house.root
    return printed


def refused(house, schedule: str, *arguments: str) -> str:
    (house.root / "conf/base/orders.yml").write_text(ORDERS_CONF + schedule)
    done = house.call("schedule", "--format", "systemd", *arguments)
    assert done.exit_code == 2
    return done.stderr


def units(text: str) -> dict[str, str]:
    """The systemd units by their file name."""
    parts = re.split(r"^# /etc/systemd/system/(\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_job_without_a_schedule_is_refused_when_it_is_named(house):
    assert "conf/base/orders.yml: has no schedule" in refused(house, "", "orders")


def test_a_suite_without_any_schedule_says_what_to_write(house):
    assert "no job has a schedule" in refused(house, "")


@pytest.mark.parametrize("cron", ["0 0 L * *", "0 0 * * 1#2", "0 0 * * L5", "R * * * *", "0 0 15W * *"])
def test_what_only_croniter_reads_is_refused(house, cron):
    assert "list the days" in refused(house, f'schedule: {{cron: "{cron}"}}\n')


def test_a_date_that_never_comes_is_refused(house):
    assert "never comes" in refused(house, 'schedule: {cron: "0 0 31 2 *"}\n')


def test_cron_names_its_zone_before_the_line(scheduled):
    lines = scheduled("cron").splitlines()
    at = lines.index("CRON_TZ=Europe/Berlin")
    assert lines[at + 1].startswith("30 */2 * * 1-5  ")
    assert "microbatch run orders" in lines[at + 1]


@pytest.mark.parametrize(
    ("code", "tries"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 3), (5, 3), (137, 3)], ids=lambda value: str(value)
)
def test_a_line_of_cron_tries_again_only_where_that_helps(scheduled, tmp_path, code, tries):
    """The line runs as cron would run it, with a program in the place of Python that ends as the run would."""
    line = scheduled("cron", EVERY_TWO_HOURS.replace("retry_delay_m: 1", "retry_delay_m: 0")).splitlines()[-1]
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit {code}\n')
    program.chmod(0o755)
    command = re.sub(r"do \S+ -m", f"do {program} -m", line.partition("  ")[2].replace("\\%", "%"))
    done = subprocess.run(["sh", "-c", command], check=False)
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"-m microbatch run orders --suite {scheduled.root} --env local"] * tries


def test_the_variables_that_conf_reads_are_named_and_their_values_are_not(scheduled, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "zebra")
    environment = 'channels: {ops: {url: "https://x/${env:SHOP_PASSWORD}"}}\n'
    (scheduled.root / "conf/base/environment.yml").write_text(environment)
    for format_ in ("cron", "systemd", "kubernetes"):
        printed = scheduled(format_)
        assert "SHOP_PASSWORD" in printed
        assert "zebra" not in printed


def test_systemd_tries_again_only_where_that_helps_and_no_more_often_than_conf_says(scheduled):
    service = units(scheduled("systemd"))["microbatch-orders.service"]
    assert "Restart=on-failure" in service
    assert "RestartPreventExitStatus=1 2 3" in service
    assert "RestartSec=60" in service
    assert "StartLimitBurst=3" in service
    assert "StartLimitIntervalSec=7199" in service  # a second less than two hours: the next start is no retry
    assert "KillMode=mixed" in service


def test_a_job_without_retries_is_not_restarted_by_systemd(scheduled):
    service = units(scheduled("systemd", 'schedule: {cron: "0 2 * * *"}\n'))["microbatch-orders.service"]
    assert "Restart=" not in service


def test_systemd_finds_nothing_wrong_with_the_units(scheduled, tmp_path):
    analyze = systemd_analyze()
    written = []
    for name, text in units(scheduled("systemd")).items():
        (tmp_path / name).write_text(text)
        written.append(str(tmp_path / name))
    done = subprocess.run([analyze, "verify", *written], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_path_with_blanks_dollars_and_percents_reaches_the_command_whole(tmp_path, house):
    root = tmp_path / "a b$c%d"
    shutil.copytree(house.root, root, ignore=shutil.ignore_patterns("a b*"))
    (root / "conf/base/orders.yml").write_text(ORDERS_CONF + EVERY_TWO_HOURS)
    service = units(called(root, "schedule", "--format", "systemd").stdout)["microbatch-orders.service"]
    assert f'--suite "{tmp_path}/a b$$c%%d" --env' in service
    assert f"WorkingDirectory={tmp_path}/a b$c%%d\n" in service
    line = called(root, "schedule", "--format", "cron").stdout.splitlines()[-1]
    assert f"'{tmp_path}/a b$c\\%d'" in line


def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing: apt-get install systemd")
        pytest.skip("systemd-analyze is missing; `apt-get install systemd` makes this test run")
    return found


@pytest.mark.parametrize(
    ("cron", "calendar"),
    [
        ("0 2 * * *", ["*-*-* 02:00:00 UTC"]),
        ("*/15 * * * *", ["*-*-* *:00/15:00 UTC"]),
        ("5-55/10 * * * *", ["*-*-* *:05/10:00 UTC"]),
        ("0 9-17 * * MON-FRI", ["Mon..Fri *-*-* 09..17:00:00 UTC"]),
        ("0 0 1,15 * *", ["*-*-01,15 00:00:00 UTC"]),
        ("30 6 * * 0", ["Sun *-*-* 06:30:00 UTC"]),
        ("30 6 * * 7", ["Sun *-*-* 06:30:00 UTC"]),
        ("30 6 * * 5-7", ["Fri..Sun *-*-* 06:30:00 UTC"]),
        ("0 0 1 1-6/2 *", ["*-01,03,05-01 00:00:00 UTC"]),
        ("0 0 13 * 5", ["*-*-13 00:00:00 UTC", "Fri *-*-* 00:00:00 UTC"]),
        ("0 22-2 * * *", ["*-*-* 00..02,22,23:00:00 UTC"]),
        ("7,8,9,30 4 */10 * *", ["*-*-01/10 04:07..09,30:00 UTC"]),
    ],
)
def test_a_timer_has_the_times_of_the_cron_expression(house, cron, calendar):
    (house.root / "conf/base/orders.yml").write_text(ORDERS_CONF + f'schedule: {{cron: "{cron}"}}\n')
    assert times(load(house.root).jobs["orders"])[0].calendar == calendar
    assert elapses(systemd_analyze(), calendar, 40) == expected(cron, "UTC", 40)


DAYS = ("*", "*/2", "*/10", "*/1", "*/31", "13", "1-31", "1-31/2", "2/9", "29-31", "1,15,*/20", "*,5", "?")
WEEKDAYS = ("*", "*/2", "*/3", "*/1", "1", "7", "0-6", "1-7", "5-7", "MON-FRI", "3/2", "1,*/4", "*,5", "?")


@pytest.mark.parametrize("day", DAYS)
def test_every_scheduler_means_the_days_that_croniter_means(house, day):
    """Vixie cron, which has days that begin with `*` in a way of its own, is what croniter calls a bug it can have too."""
    analyze, count = systemd_analyze(), 60
    start = datetime(2025, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    conf = house.root / "conf/base/orders.yml"
    for weekday in WEEKDAYS:
        cron = f"30 4 {day} */2 {weekday}"
        conf.write_text(ORDERS_CONF + f'schedule: {{cron: "{cron}"}}\n')
        when, _ = times(load(house.root).jobs["orders"])
        meant = expected(cron, "UTC", count)
        vixie = croniter(when.portable, start, implement_cron_bug=True)
        assert [vixie.get_next(datetime) for _ in range(count)] == meant, (cron, when.portable)
        assert expected(when.portable, "UTC", count) == meant, (cron, when.portable)
        assert elapses(analyze, when.calendar, count) == meant, (cron, when.calendar)
        days = when.portable.split()[2::2]  # Kubernetes takes only the bare star for all days
        assert all(field == "*" or "*" not in field for field in days), when.portable


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/New_York"])
def test_the_zone_is_the_job_s_own(scheduled, zone):
    schedule = f'schedule: {{cron: "15 3 * * *", timezone: {zone}}}\n'
    timer = units(scheduled("systemd", schedule))["microbatch-orders.timer"]
    calendar = re.findall(r"^OnCalendar=(.+)$", timer, flags=re.MULTILINE)
    assert elapses(systemd_analyze(), calendar, 200) == expected("15 3 * * *", zone, 200)  # summer and winter


def elapses(analyze: str, calendar: list[str], count: int) -> list[datetime]:
    """When systemd would start the timer, from the beginning of 2026 on."""
    command = [analyze, "calendar", f"--iterations={count}", "--base-time=2025-12-31 23:59:59 UTC", *calendar]
    env = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    found = re.findall(
        r"(?:elapse|#\d+): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC|\(in UTC\): \w{3} (\S+ \S+) UTC", printed
    )
    stamps = {datetime.fromisoformat(a or b).replace(tzinfo=timezone.utc) for a, b in found}
    return sorted(stamps)[:count]


def expected(cron: str, zone: str, count: int) -> list[datetime]:
    start = datetime(2025, 12, 31, 23, 59, 59, tzinfo=timezone.utc).astimezone(ZoneInfo(zone))
    times_ = croniter(cron, start)
    return [times_.get_next(datetime).astimezone(timezone.utc) for _ in range(count)]


def test_kubernetes_gets_a_cronjob_that_forbids_two_at_once_and_retries_only_where_that_helps(scheduled):
    [job] = yaml.safe_load_all(scheduled("kubernetes", EVERY_TWO_HOURS, "--image", "shop/orders:7"))
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == (
        "30 */2 * * 1-5",
        "Europe/Berlin",
        "Forbid",
    )
    run = spec["jobTemplate"]["spec"]
    assert run["backoffLimit"] == 2
    by_action = {
        rule["action"]: rule["onExitCodes"]["values"]
        for rule in run["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert by_action == {"FailJob": [1, 2, 3], "Count": [4, 5]}
    pod = run["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["image"] == "shop/orders:7"
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} >= {"/suite/data/checkpoints"}


@pytest.mark.parametrize(
    ("cron", "portable"),
    [
        ("0 2 * * MON-FRI", "0 2 * * 1,2,3,4,5"),
        ("0 2 * * 7", "0 2 * * 0"),
        ("0  2 * * *", "0 2 * * *"),
        ("0 2 ? jan *", "0 2 * 1 *"),
        ("*/15 8-18/2 1-15 1,7 1-5", "*/15 8-18/2 1-15 1,7 1-5"),
        ("0 2 */10 * 1", "0 2 1,11,21,31 * 1"),
        ("0 2 1-31 * */2", "0 2 * * 0,2,4,6"),
        ("5/20 22-2 * * *", "5,25,45 0,1,2,22,23 * * *"),
    ],
)
def test_an_expression_is_written_so_that_every_scheduler_reads_it(scheduled, cron, portable):
    schedule = f'schedule: {{cron: "{cron}"}}\n'
    [job] = yaml.safe_load_all(scheduled("kubernetes", schedule))
    assert job["spec"]["schedule"] == portable
    assert any(line.startswith(f"{portable}  ") for line in scheduled("cron", schedule).splitlines())


def test_a_name_too_long_for_kubernetes_is_cut_and_stays_one_of_its_own(house):
    names = ["a" * 60, "a" * 61, "a_", "a"]
    for name in names:
        for file in ("jobs/{}.py", "conf/base/{}.yml"):
            text = (house.root / file.format("orders")).read_text()
            target = house.root / file.format(name)
            target.write_text(
                text.replace("silver.orders", f"silver.{name}").replace("bronze.orders", f"bronze.{name}")
            )
        conf = house.root / f"conf/base/{name}.yml"
        conf.write_text(conf.read_text() + EVERY_TWO_HOURS)
        shutil.copytree(house.root / "expectations/orders", house.root / f"expectations/{name}")
    done = house.call("schedule", "--format", "kubernetes")
    assert done.exit_code == 0, done.stderr
    made = [job["metadata"]["name"] for job in yaml.safe_load_all(done.stdout)]
    assert len(set(made)) == 4
    assert all(len(name) <= 52 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in made)


def test_this_repository_s_own_main_job_runs_at_two(scheduled):
    done = called(Path(__file__).resolve().parents[2], "schedule", "daily_sales", "--format", "cron")
    assert re.search(r"^0 2 \* \* \*  .*microbatch run daily_sales ", done.stdout, flags=re.MULTILINE)
