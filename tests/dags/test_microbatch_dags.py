"""The DAGs: what conf says is what Airflow does, and a task ends as the run's exit code demands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # a real Airflow in processes of its own

LOOK = """
import json, sys, time
import airflow.sdk
from airflow.sdk.exceptions import AirflowFailException

before = set(sys.modules)
sys.path.insert(0, DAGS)
began = time.perf_counter()
import microbatch_dags as found

seconds = time.perf_counter() - began
dags = [value for value in vars(found).values() if type(value).__name__ == "DAG"]
print(json.dumps({
    "seconds": seconds,
    "heavy": [name for name in ("microbatch", "pyspark", "pandas", "great_expectations") if name in sys.modules],
    "dags": {dag.dag_id: {
        "cron": dag.schedule.expression, "timezone": str(dag.schedule.timezone), "catchup": dag.catchup,
        "tags": sorted(dag.tags), "doc": dag.doc_md, "runs": dag.max_active_runs, "at_once": dag.max_active_tasks,
        "deadline_m": dag.deadline[0].interval.total_seconds() / 60 if dag.deadline else None,
        "told": dag.deadline[0].callback.path if dag.deadline else None,
        "tasks": {task.task_id: {
            "command": task.command, "before": sorted(task.upstream_task_ids), "owner": task.owner,
            "retries": task.retries, "delay_m": task.retry_delay.total_seconds() / 60} for task in dag.tasks}}
        for dag in dags},
}))
""".replace("DAGS", repr(str(HERE / "dags")))

ENDS = """
import sys
sys.path.insert(0, DAGS)
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from microbatch_dags import MicrobatchOperator

program = "import sys; print('working'); print('microbatch: flow x stopped: mend it', file=sys.stderr); sys.exit(%s)"
for code in range(6):
    task = MicrobatchOperator(task_id=f"x{code}", command=[sys.executable, "-c", program % code], suite=".")
    try:
        task.execute({})
        print("ended: done")
    except AirflowFailException as error:
        print("ended: never again:", error)
    except AirflowException as error:
        print("ended: again:", error)
""".replace("DAGS", repr(str(HERE / "dags")))

KILL = """
import sys, threading, time
sys.path.insert(0, DAGS)
from microbatch_dags import MicrobatchOperator

program = (
    "import signal, sys, time\\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print('ended after the batch', flush=True), sys.exit(0)))\\n"
    "print('begun', flush=True)\\n"
    "time.sleep(60)"
)
task = MicrobatchOperator(task_id="x", command=[sys.executable, "-c", program], suite=".")
thread = threading.Thread(target=task.execute, args=({},))
began = time.monotonic()
thread.start()
time.sleep(3)
task.on_kill()
thread.join()
print("took less than ten seconds:", time.monotonic() - began < 10, task.process.returncode)
""".replace("DAGS", repr(str(HERE / "dags")))


def looked_at(airflow, **variables: str) -> dict:
    done = airflow("-c", LOOK, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def edited(suite: Path, tmp_path: Path):
    """A copy of the suite, with text of one file replaced where that is said: the path of the copy."""

    def copy(file: str | None = None, old: str = "", new: str = "") -> str:
        root = tmp_path / "edited"
        shutil.copytree(suite, root, ignore=shutil.ignore_patterns("data"))
        if file is None:
            return str(root)
        text = (root / file).read_text()
        assert old in text, "the edit must change something"
        (root / file).write_text(text.replace(old, new))
        return str(root)

    return copy


def test_every_job_with_a_schedule_has_a_dag_as_its_conf_says(airflow, suite):
    found = looked_at(airflow)
    assert sorted(found["dags"]) == ["daily_sales_pipeline", "web_shop_pipeline"]
    dag = found["dags"]["daily_sales_pipeline"]
    assert (dag["cron"], dag["timezone"], dag["catchup"], dag["runs"]) == ("0 2 * * *", "UTC", False, 1)
    assert dag["tags"] == ["files", "local", "microbatch"]
    assert (dag["deadline_m"], dag["told"]) == (30, "microbatch_dags.deadline_missed")
    assert "Daily sales per store and department" in dag["doc"]
    task = dag["tasks"]["daily_sales"]
    assert (task["retries"], task["delay_m"], task["owner"]) == (3, 5, "data-team")
    assert task["command"][-6:] == ["run", "daily_sales", "--suite", str(suite), "--env", "local"]


def test_the_file_is_read_in_under_a_second_and_needs_neither_the_engine_nor_spark(airflow):
    found = looked_at(airflow)
    assert found["seconds"] < 1
    assert found["heavy"] == []


def test_a_task_a_flow_where_conf_says_so_in_the_order_of_the_tables_and_one_at_a_time(airflow, edited):
    root = edited("conf/base/daily_sales.yml", "retry_delay_m: 5}", "retry_delay_m: 5, tasks: flow}")
    dag = looked_at(airflow, MICROBATCH_SUITE=root)["dags"]["daily_sales_pipeline"]
    before = {name: task["before"] for name, task in dag["tasks"].items()}
    assert before == {
        "ingest_order_lines": [],
        "ingest_products": [],
        "refine_sales": ["ingest_order_lines", "ingest_products"],
        "total_daily_sales": ["refine_sales"],
    }
    assert dag["at_once"] == 1
    assert dag["tasks"]["refine_sales"]["command"][-2:] == ["--flow", "refine_sales"]


CONSTANTS = '''"""Orders, with their tables as constants."""
from microbatch import Append, Flow, Job, Snapshot, Source, Upsert

ORDERS, SHOPS = Source("orders", schema="id BIGINT"), "bronze.shops"
LINES = Source("lines", schema="id BIGINT")
BRONZE: str = "bronze.orders"
SAME = BRONZE
SILVER = Upsert("silver.orders", keys=["id"])
DIMENSION = Snapshot(table="bronze.lines")
SNAPSHOTS = {"lines": DIMENSION}
NAME = "refine"
JOB = Job(
    Flow(NAME, reads=SAME, snapshots=SNAPSHOTS, writes=SILVER),
    Flow("take", reads=LINES, writes=Append(BRONZE)),
    Flow("take_lines", LINES, Append(table="bronze.lines")),
    Flow("count", reads="silver.orders", snapshots={"orders": BRONZE}, writes=Append("gold.orders")),
)
'''
FLOWS = """
import json, sys
from pathlib import Path

sys.path.insert(0, DAGS)
from microbatch_dags import flows_of

found = {}
for file in map(Path, sys.argv[1:]):
    try:
        found[file.name] = flows_of(file)
    except ValueError as error:
        found[file.name] = str(error)
print(json.dumps(found))
""".replace("DAGS", repr(str(HERE / "dags")))
NOT_WRITTEN_OUT = {
    "imported.py": ('BRONZE: str = "bronze.orders"', "from transforms.tables import BRONZE", 13, "what it reads"),
    "computed.py": ('"bronze.orders"', 'f"{SHOPS}_2"', 13, "what it reads"),
    "twice.py": ("SAME = BRONZE", "SAME = BRONZE; SAME = SHOPS", 13, "what it reads"),
    "one_of_two.py": ("SAME = BRONZE", "if BRONZE: SAME = BRONZE", 13, "what it reads"),
    "another_source.py": ("reads=LINES", "reads=ORDERS", 14, "what it reads"),
    "made_snapshots.py": ("snapshots=SNAPSHOTS", "snapshots=dict(SNAPSHOTS)", 13, "its snapshots"),
    "more_snapshots.py": ('{"orders": BRONZE}', "{**SNAPSHOTS}", 16, "the table of each snapshot"),
    "made_name.py": ('NAME = "refine"', "NAME = str(1)", 13, "the flow's name"),
    "made_table.py": ("Append(BRONZE)", "Append(str(BRONZE))", 14, "the table it writes"),
}


def test_the_order_of_flows_follows_the_constants_of_the_file(airflow, tmp_path):
    (tmp_path / "orders.py").write_text(CONSTANTS)
    done = airflow("-c", FLOWS, str(tmp_path / "orders.py"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "orders.py": {"refine": ["take", "take_lines"], "take": [], "take_lines": [], "count": ["refine", "take"]}
    }


def test_a_table_that_cannot_be_read_from_the_text_is_named_with_its_line_instead_of_an_edge_being_lost(
    airflow, tmp_path
):
    for name, (old, new, _, _) in NOT_WRITTEN_OUT.items():
        assert old in CONSTANTS, "the edit must change something"
        (tmp_path / name).write_text(CONSTANTS.replace(old, new, 1))
    (tmp_path / "aliased.py").write_text("from microbatch import Flow as F\nF('take')\n")
    done = airflow("-c", FLOWS, *(str(tmp_path / name) for name in (*NOT_WRITTEN_OUT, "aliased.py")))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (_, _, line, what) in NOT_WRITTEN_OUT.items():
        assert found[name] == (
            f"jobs/{name}:{line}: `tasks: flow` reads this file without running it, and finds {what} neither as a literal "
            "nor as a constant assigned once in this file; write it out, or write `tasks: job` in conf"
        )
    assert "jobs/aliased.py: `tasks: flow` needs each Flow(...) written out here" in found["aliased.py"]


def test_an_environment_s_overlay_counts(airflow, edited):
    root = edited()
    (Path(root) / "conf" / "night").mkdir()
    overlay = 'schedule: {cron: "${env:NIGHT_CRON:-30 3 * * *}", timezone: Europe/Berlin}\n'
    (Path(root) / "conf" / "night" / "daily_sales.yml").write_text(overlay)
    dag = looked_at(airflow, MICROBATCH_SUITE=root, MICROBATCH_ENV="night")["dags"]["daily_sales_pipeline"]
    assert (dag["cron"], dag["timezone"], dag["deadline_m"]) == ("30 3 * * *", "Europe/Berlin", 30)
    assert dag["tasks"]["daily_sales"]["command"][-1] == "night"


def test_an_owner_from_the_environment_and_a_job_file_with_a_byte_order_mark_are_as_the_engine_has_them(
    airflow, edited
):
    root = edited("conf/base/daily_sales.yml", "owner: data-team", 'owner: "${env:NOBODYS_TEAM:-shop}"')
    job = Path(root) / "jobs/daily_sales.py"
    job.write_bytes(b"\xef\xbb\xbf" + job.read_bytes())
    conf = Path(root) / "conf/base/daily_sales.yml"
    conf.write_text(conf.read_text().replace("retry_delay_m: 5}", "retry_delay_m: 5, tasks: flow}"))
    dag = looked_at(airflow, MICROBATCH_SUITE=root)["dags"]["daily_sales_pipeline"]
    assert len(dag["tasks"]) > 1
    assert {task["owner"] for task in dag["tasks"].values()} == {"shop"}


def test_a_job_without_a_schedule_has_no_dag(airflow, edited):
    root = edited("conf/base/daily_sales.yml", "schedule:", "#schedule:")
    assert list(looked_at(airflow, MICROBATCH_SUITE=root)["dags"]) == ["web_shop_pipeline"]


MISTAKES = {
    "many_retries": ("conf/base/{}.yml", "retries: 3", "retries: many", "'many'"),
    "no_yaml": ("conf/base/{}.yml", "schedule:", "schedule: [", "conf/base/no_yaml.yml: is not YAML"),
    "no_schedule": ("conf/base/{}.yml", "schedule:", "schedule: nightly #", "schedule: must be keys with values"),
    "no_cron": ("conf/base/{}.yml", "0 2 * * *", "0 26 * * *", "'0 26 * * *' is no cron expression"),
    "never": ("conf/base/{}.yml", "0 2 * * *", "0 2 31 2 *", "'0 2 31 2 *' is no cron expression"),
    "no_quotes": (
        "conf/base/{}.yml",
        'cron: "0 2 * * *"',
        "cron: 0 2 * * 1,3",
        "schedule: there is no key 3, there are cron, timezone, sla_m, retries, retry_delay_m, tasks; write the cron in quotes",
    ),
    "no_zone": ("conf/base/{}.yml", "timezone: UTC", "timezone: Europe/Bern", "'Europe/Bern' is no time zone"),
    "not_set": ("conf/base/{}.yml", "0 2 * * *", "${env:NOBODY_SET_IT}", "NOBODY_SET_IT is not set for Airflow"),
    "number_as_owner": ("conf/base/{}.yml", "owner: data-team", "owner: 5", "owner: 5 must be text"),
    "a name with blanks": ("conf/base/{}.yml", "owner", "owner", "a name with blanks"),
    "a_circle": (
        "jobs/{}.py",
        "reads=ORDER_LINES",
        'reads="gold.daily_sales"',
        "AirflowDagCycleException",
    ),
    "no_python": ("jobs/{}.py", "JOB = Job(", "JOB = = Job(", "(no_python.py, line "),
}


@pytest.fixture
def mistaken(edited) -> str:
    """The suite with further jobs, each like `daily_sales` but for one mistake: its path."""
    root = Path(edited())
    for job, (mistaken_file, old, new, _) in MISTAKES.items():
        for file in ("jobs/{}.py", "conf/base/{}.yml"):
            text = (root / file.format("daily_sales")).read_text()
            assert file != mistaken_file or old in text, "the edit must change something"
            text = text.replace("retry_delay_m: 5}", "retry_delay_m: 5, tasks: flow}")
            (root / file.format(job)).write_text(text.replace(old, new) if file == mistaken_file else text)
    return str(root)


def test_a_mistake_in_one_job_leaves_the_dags_of_the_others_and_stands_in_its_own_job_s_place(airflow, mistaken):
    def listed(*command: str) -> list[dict]:
        done = airflow("-m", "airflow", "dags", *command, "--output", "json", MICROBATCH_SUITE=mistaken)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    taken = airflow("-m", "airflow", "dags", "reserialize", MICROBATCH_SUITE=mistaken)
    assert taken.returncode == 0, taken.stderr[-3000:]
    assert listed("list-import-errors") == []
    here = {f"{job.replace(' ', '_')}_pipeline" for job in ("daily_sales", "web_shop", *MISTAKES)}
    assert here <= {dag["dag_id"] for dag in listed("list")}
    for job, (*_, told) in MISTAKES.items():
        said = re.search(rf"no DAG can be made of job {job}: .*", taken.stdout + taken.stderr)
        assert said is not None, job
        assert told in said[0]
        assert f"`microbatch plan {job}` lists every mistake" in said[0]
    times = {job: listed("details", f"{job}_pipeline")[0]["timetable_summary"] for job in ("many_retries", "no_cron")}
    assert times == {"many_retries": "0 2 * * *", "no_cron": "0 0 * * *"}


def test_the_task_of_a_job_with_a_mistake_fails_with_the_sentence(airflow, suite, tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(suite / "conf", conf)
    broken = tmp_path / "jobs" / "many_retries.py"
    shutil.copytree(suite / "jobs", broken.parent)
    shutil.copy(broken.parent / "daily_sales.py", broken)
    (conf / "base/many_retries.yml").write_text('schedule: {cron: "0 3 * * *", retries: many}\n')
    done = airflow("-m", "airflow", "dags", "test", "many_retries_pipeline", MICROBATCH_SUITE=str(tmp_path))
    text = done.stdout + done.stderr
    assert "AirflowFailException: no DAG can be made of job many_retries: invalid literal for int()" in text
    assert re.search(r"state[:=]failed", text)


def test_under_spark_submit_the_task_starts_run_py_with_the_options_that_airflow_s_environment_names(airflow, suite):
    submit = "spark-submit --master spark://127.0.0.1:7077 --properties-file 'my conf/spark.conf'"
    dag = looked_at(airflow, MICROBATCH_SUBMIT=submit)["dags"]["daily_sales_pipeline"]
    command = dag["tasks"]["daily_sales"]["command"]
    assert command[:6] == [*submit.split()[:4], "my conf/spark.conf", str(suite / "run.py")]
    assert command[6:8] == ["run", "daily_sales"]


def test_the_page_that_docs_wrote_is_the_dag_s_page(airflow, edited):
    root = Path(edited())
    (root / "docs" / "pipelines").mkdir(parents=True)
    (root / "docs" / "pipelines" / "daily_sales.md").write_text("## Pipeline: daily_sales\n")
    assert looked_at(airflow, MICROBATCH_SUITE=str(root))["dags"]["daily_sales_pipeline"]["doc"] == (
        "## Pipeline: daily_sales\n"
    )


def test_exit_codes_that_need_somebody_fail_at_once_and_the_others_are_tried_again(airflow):
    done = airflow("-c", ENDS)
    assert done.returncode == 0, done.stderr[-2000:]
    ended = [line.removeprefix("ended: ") for line in done.stdout.splitlines() if line.startswith("ended: ")]
    assert [line.partition(":")[0] for line in ended] == ["done", *["never again"] * 3, *["again"] * 2]
    for code, line in enumerate(ended[1:], 1):
        assert line.endswith(f"exit {code}: microbatch: flow x stopped: mend it")


def test_a_task_that_is_ended_lets_the_batch_under_way_come_to_its_end(airflow):
    done = airflow("-c", KILL)
    assert "ended after the batch" in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "took less than ten seconds: True 0"


def test_airflow_runs_daily_sales_and_a_second_run_is_idle(airflow, suite):
    first = airflow("-m", "airflow", "dags", "test", "daily_sales_pipeline")
    text = first.stdout + first.stderr
    assert first.returncode == 0, text[-3000:]
    assert re.search(r"daily_sales\.refine_sales +done +1 +61 +60 +1 ", text)
    second = airflow("-m", "airflow", "dags", "test", "daily_sales_pipeline")
    assert second.returncode == 0, second.stderr[-3000:]
    assert "nothing to do" in second.stdout + second.stderr
    assert "starting Spark" not in second.stdout + second.stderr


def test_a_failing_run_shows_its_one_line_in_the_log_of_the_task_and_is_not_tried_again(airflow, edited):
    root = edited("transforms/sales.py", "BUSINESS_ZONE =", "BUSINESS_ZONE = =")
    done = airflow("-m", "airflow", "dags", "test", "daily_sales_pipeline", MICROBATCH_SUITE=root)
    text = done.stdout + done.stderr
    assert re.search(r"exit 2: microbatch: transforms/sales\.py:\d+: is not valid Python", text)
    assert text.count("[DAG TEST] starting task_id=daily_sales") == 1
    assert "state:failed" in text or "state=failed" in text
