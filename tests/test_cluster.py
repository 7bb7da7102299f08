"""Beyond one process: a standalone cluster gives the same tables, and a submitted session has to be right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from microbatch.config import load
from microbatch.runner import run
from tests import small_sales
from tests.cluster import cluster, spark_home, submit
from tests.releases import release, without_repository

pytestmark = pytest.mark.slow  # several JVMs
HERE = Path(__file__).resolve().parents[1]
TABLES = ("bronze.order_lines", "bronze.products", "silver.sales", "gold.daily_sales")


def content(warehouse: Path, table: str) -> list[tuple[str, ...]]:
    """Every row of a table as text, sorted; without where a run put it."""
    rows = DeltaTable(str(warehouse / table.replace(".", "/"))).to_pyarrow_table()
    names = sorted(rows.column_names)
    return sorted(tuple(str(row[name]) for name in names) for row in rows.to_pylist())


def test_a_cluster_gives_the_tables_of_a_local_run_from_the_release_folder_alone(spark, tmp_path, capfd):
    landing = tmp_path / "landing"
    small_sales.land(landing)
    local = {"landing": str(landing), **{name: str(tmp_path / "local" / name) for name in ("warehouse", "checkpoints")}}
    assert run(load(HERE, storage=local), ["daily_sales"]).exit_code == 0

    elsewhere = tmp_path / "release"
    shutil.copytree(release(), elsewhere)
    variables = {"SALES_LANDING": str(landing), "SALES_ROOT": str(tmp_path / "far")}
    with cluster(tmp_path / "cluster") as master:
        assert submit(elsewhere, master, "run", "daily_sales", "--env", "cluster", variables=variables) == 0
        assert submit(elsewhere, master, "audit", "daily_sales", "--env", "cluster", variables=variables) == 0
    assert "every row is accounted for" in capfd.readouterr().out
    for table in TABLES:
        here, there = content(tmp_path / "local/warehouse", table), content(tmp_path / "far/warehouse", table)
        assert there == here, table
        assert here
    executors = list((tmp_path / "cluster").glob("work-*/app-*/*/stderr"))
    assert len({log.parts[-4] for log in executors}) == 2  # both workers took part


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
