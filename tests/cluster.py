"""A Spark cluster on this machine, out of pip's pyspark: `python -m tests.cluster RELEASE` runs two jobs on it.

A standalone master and two workers of one core each, on 127.0.0.1, and spark-submit in client mode from a copy of the release
folder alone. The driver's Python has the wheel and not the source tree; that of the executors has nothing at all but what
spark-submit brings them. The jobs are `daily_sales`, and of `web_shop` what it takes to have the orders of a PostgreSQL in euros.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.shop import Shop, bank, database
from microbatch.session import FIRST_COMPILER
from tests.releases import environment, without_repository
from tests.rows import rows_of

UP_WITHIN_S = 60
HOST = "127.0.0.1"
# Of all these JVMs, daemons, driver and executors: none lives long enough for the second compiler.
JAVA = {"JDK_JAVA_OPTIONS": FIRST_COMPILER}


def spark_home() -> Path:
    """The folder of pip's pyspark, which is a whole Spark."""
    spec = find_spec("pyspark")
    assert spec is not None, "pyspark is not installed"
    assert spec.submodule_search_locations, "pyspark is not installed"
    return Path(spec.submodule_search_locations[0])


@contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[str]:
    """A master and workers of one core each; gives the master's address, and ends them all.

    Args:
        folder: takes their logs and the executors' files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    master = f"spark://{HOST}:{port}"
    ports = ["--host", HOST, "--webui-port", "0"]
    started = [_start(folder / "master.log", "master.Master", *ports, "--port", str(port))]
    try:
        _wait(folder / "master.log", "I have been elected leader")
        for number in range(workers):
            log, work = folder / f"worker-{number}.log", folder / f"work-{number}"
            options = ["--cores", "1", "--memory", "2g", "--work-dir", str(work)]
            started.append(_start(log, "worker.Worker", *ports, *options, master))
        for number in range(workers):
            _wait(folder / f"worker-{number}.log", "Successfully registered with master")
        yield master
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


@dataclass(frozen=True)
class Installed:
    """A release where it is submitted from.

    Attributes:
        folder: the release's own files.
        driver: a Python that has the wheel.
        executors: a Python that has nothing.
    """

    folder: Path
    driver: Path
    executors: Path

    def submit(self, master: str, *command: str, **variables: str) -> subprocess.Popen[str]:
        """`microbatch COMMAND` by spark-submit, as the release's own page says it; its stdout and stderr are one pipe."""
        jars = ",".join(str(jar.relative_to(self.folder)) for jar in sorted(self.folder.glob("jars/*.jar")))
        engine = next(self.folder.glob("microbatch-*.zip")).name
        line = [str(spark_home() / "bin" / "spark-submit"), "--master", master]
        line += ["--properties-file", "conf/cluster/spark.conf", "--jars", jars, "--py-files", engine]
        line += ["--archives", "environment.tar.gz#environment", "--conf", "spark.executorEnv.PYTHONPATH=environment"]
        line += ["--conf", f"spark.driver.host={HOST}", "--driver-memory", "1g", "--executor-memory", "1g"]
        pythons = {"PYSPARK_PYTHON": str(self.executors), "PYSPARK_DRIVER_PYTHON": str(self.driver)}
        env = without_repository(SPARK_LOCAL_IP=HOST, **JAVA, **pythons, **variables)
        env.pop("MICROBATCH_JARS", None)
        whole = [*line, "run.py", *command, "--env", "cluster"]
        pipe = subprocess.PIPE
        return subprocess.Popen(whole, cwd=self.folder, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def done(self, master: str, *command: str, **variables: str) -> tuple[int, str]:
        """Submit a command and wait: its exit code, and what it said."""
        ended = self.submit(master, *command, **variables)
        said, _ = ended.communicate()
        return ended.returncode, said


def install(made: Path, folder: Path) -> Installed:
    """Copy a release into a folder of its own, with a Python for the driver and one for the executors.

    Spark plans a source that reads in Python on the driver's machine with the executors' Python: there, too, the libraries
    of the archive have to lie in the folder that it runs in.
    """
    release = folder / "release"
    shutil.copytree(made, release)
    shutil.unpack_archive(release / "environment.tar.gz", release / "environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "bare")], check=True)
    return Installed(release, environment(folder / "driver", release) / "python", folder / "bare" / "bin" / "python")


def _start(log: Path, what: str, *arguments: str) -> subprocess.Popen[bytes]:
    program = [str(spark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{what}", *arguments]
    env = {
        **os.environ,
        "SPARK_LOCAL_IP": HOST,
        "SPARK_DAEMON_MEMORY": "256m",
        **JAVA,
        "SPARK_NO_DAEMONIZE": "1",
    }
    with log.open("wb") as out:
        return subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=log.parent)


def _wait(log: Path, word: str) -> None:
    until = time.monotonic() + UP_WITHIN_S
    while word not in log.read_text(errors="replace"):
        if time.monotonic() > until:
            raise TimeoutError(f"not up within {UP_WITHIN_S} s; {log} says why")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def differing(shop: Shop, warehouse: Path) -> list[object]:
    """Orders that the table does not have as the database has them."""
    table = rows_of(warehouse / "silver" / "orders", ["order_id", "status", "amount"])
    found = {(row["order_id"], row["status"], row["amount"]) for row in table.to_pylist()}
    assert len(found) == table.num_rows, "an order is there twice"
    return sorted(found ^ shop.standing())


def main() -> int:
    """Run and audit both jobs on a cluster; `SALES_LANDING` and `SALES_ROOT` say where files and tables are."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that no master or worker is left behind
    with tempfile.TemporaryDirectory(prefix="microbatch-cluster-") as name, database() as uri, bank() as url:
        installed = install(Path(sys.argv[1]), Path(name))
        # Its tables are as new as its database is.
        of_shop = {"SHOP_DATABASE_URI": uri, "SHOP_RATES_URL": url, "SALES_ROOT": str(Path(name, "shop"))}

        def said(*command: str, **variables: str) -> None:
            code, told = installed.done(master, *command, **variables)
            print(told, end="", flush=True)
            if code:
                sys.exit(code)

        with cluster(Path(name, "cluster")) as master:
            said("run", "daily_sales")
            said("audit", "daily_sales")
            shop = Shop(uri)
            shop.sell(300)
            for _ in range(2):  # the table as it is, then what became of it
                said("run", "web_shop", "--flow", "keep_rates", "--flow", "keep_orders", **of_shop)
                before = differing(shop, Path(name, "shop", "warehouse"))
                shop.change(80)
            said("audit", "web_shop", **of_shop)
    print(f"orders of PostgreSQL in silver.orders: {len(before)} not as the database has them")
    return int(bool(before))


if __name__ == "__main__":
    sys.exit(main())
