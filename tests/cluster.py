"""A Spark cluster on this machine, out of pip's pyspark: `python -m tests.cluster RELEASE` runs `daily_sales` on it.

A standalone master and two workers of one core each, on 127.0.0.1, and spark-submit in client mode from a copy of the release
folder alone, in a folder of its own: neither driver nor executors see the source tree.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

UP_WITHIN_S = 60
HOST = "127.0.0.1"


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


def submit(release: Path, master: str, *command: str, variables: Mapping[str, str] | None = None) -> int:
    """`microbatch COMMAND` by spark-submit, as the release's own page says it; the exit code."""
    jars = ",".join(str(jar.relative_to(release)) for jar in sorted(release.glob("jars/*.jar")))
    engine = next(release.glob("microbatch-*.zip")).name
    line = [str(spark_home() / "bin" / "spark-submit"), "--master", master]
    line += ["--properties-file", "conf/cluster/spark.conf", "--jars", jars, "--py-files", engine]
    line += ["--conf", f"spark.driver.host={HOST}", "--driver-memory", "1g", "--executor-memory", "1g"]
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MICROBATCH_JARS")}
    env = {**plain, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": HOST, **(variables or {})}
    return subprocess.run([*line, "run.py", *command], cwd=release, env=env, check=False).returncode


def _start(log: Path, what: str, *arguments: str) -> subprocess.Popen[bytes]:
    program = [str(spark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{what}", *arguments]
    env = {**os.environ, "SPARK_LOCAL_IP": HOST, "SPARK_DAEMON_MEMORY": "256m", "SPARK_NO_DAEMONIZE": "1"}
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


def main() -> int:
    """Run and audit `daily_sales` on a cluster; `SALES_LANDING` and `SALES_ROOT` say where its files and tables are."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that no master or worker is left behind
    with tempfile.TemporaryDirectory(prefix="microbatch-cluster-") as name:
        release = Path(name, "release")
        shutil.copytree(sys.argv[1], release)
        with cluster(Path(name, "cluster")) as master:
            for command in (("run", "daily_sales"), ("audit", "daily_sales")):
                if code := submit(release, master, *command, "--env", "cluster"):
                    return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
