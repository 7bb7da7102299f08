"""The SparkSession: the one place that starts a JVM, and every Spark and Delta setting with its reason.

Under spark-submit the session that was submitted is taken as it is; elsewhere a local one is made. Figures beside a setting
were measured on two cores with Spark 4.2.0 and Delta 4.4.0, warm batches of 1,000 rows.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from microbatch.errors import ConfigError, Problem

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What every session needs to be right, wherever it runs.
CORRECT = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # A parser that skips columns nobody asked for lets a bad value in a dropped column pass unseen.
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    # The pinned batch is the source of the MERGE: Delta would make a second copy of it.
    "spark.databricks.delta.merge.materializeSource": "none",
    # Secrets are redacted by value too; these keys are the ones Spark itself prints.
    "spark.redaction.regex": "(?i)secret|password|token|access[.]?key|uri|dsn|webhook|authorization|apikey|jaas|keystore",
    # Each Column would record a Python stack trace: 2 ms a column for nobody.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # Generated code is found again by its text. Five flows make more kinds of it than the hundred that are kept: of 374 pieces
    # that a second round compiled, 50 ms each, 140 are left.
    "spark.sql.codegen.cache.maxEntries": "5000",
    # A stream reader of an upserted table must never be left half-read by a change of Spark's defaults.
    "spark.sql.streaming.stopTimeout": "60s",
}

# Of these, what a session that runs already cannot be given any more: it is refused without them. The pattern of redaction is
# not among them: secrets are taken out by value, too.
FROM_THE_START = ("spark.sql.extensions", "spark.sql.catalog.spark_catalog")
LATER = tuple(key for key in CORRECT if key.startswith(("spark.sql.session", "spark.sql.csv", "spark.databricks")))

# What makes small batches fast on one machine. `conf/<env>/spark.conf` overrides each of them.
LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # 50 tasks to rebuild the state of a table with ten files: 2.5 to 3.2 times slower batches together with the next one.
    "spark.databricks.delta.snapshotPartitions": "1",
    # Adaptive execution makes each exchange a job of its own: 4 and 13 jobs a batch instead of 2 and 6.
    "spark.sql.adaptive.enabled": "false",
    # The defaults fork `chmod` for every file of a checkpoint: 70 to 96 ms a batch against 8 to 12.
    "spark.sql.streaming.checkpointFileManagerClass": "org.apache.spark.sql.execution.streaming.checkpointing."
    "FileSystemBasedCheckpointFileManager",
    # Without Hadoop's native library its local file system forks `chmod` for each file and writes a `.crc` beside it:
    # 55 ms a file against 0.14 ms for the raw one, 0.87 to 0.93 of an append.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "spark.hadoop.fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
    # S3A would keep what it uploads on the disk, through a class that the raw file system is not; in memory it needs none.
    "spark.hadoop.fs.s3a.fast.upload.buffer": "bytebuffer",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
}

CLASS_PATH = "spark.driver.extraClassPath"

# Java's second compiler begins ten times later than it would: a short run ends before its work pays, and two cores are few
# for both. A cold first commit comes after 7.2 s instead of 7.9, with 12.6 s of CPU instead of 15.6; a year of sales takes as
# long as before (55 s).
SECOND_COMPILER = (
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
    "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000"
)

# Generated code of a wide schema is a method HotSpot would leave to the interpreter: 3.5 s against 2.7 to parse 360,000 lines.
JAVA_OPTIONS = (
    f"-Duser.timezone=UTC -XX:-DontCompileHugeMethods -XX:+UseParallelGC {SECOND_COMPILER} "
    "-XX:+IgnoreUnrecognizedVMOptions --add-modules=jdk.incubator.vector"
)

# What a local session is started with besides where little is to be done: the time that goes into generating a plan's code, and
# into compiling it well, never comes back. Cold, one flow of five rows takes 11.7 s instead of 15.2, and 11 s of CPU instead of
# 19 (a slow machine). A year of sales would take half as long again.
LITTLE = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
FIRST_COMPILER = "-XX:TieredStopAtLevel=1"

# Java's classes as they are in memory, beside the jars; `classes` makes it.
ARCHIVE = "classes.jsa"


def start(name: str, conf: Mapping[str, str], jars: Path | None = None, *, little: bool = False) -> SparkSession:
    """The session of this process: the one that runs, the one that was submitted, or a new local one.

    Args:
        name: the application's name.
        conf: settings of the environment; they win over the engine's.
        jars: the folder that holds Delta's jars; None: `jars_folder()`.
        little: few small batches are all that the session is for; a local one is made so that it starts quickly.

    Raises:
        ConfigError: Java or the jars are missing, with the command that gets them; or a session that was submitted, or made
            by somebody else, lacks a setting of `FROM_THE_START`, which is named.
    """
    # A Python data source would otherwise run another python3. What a submitter names may lie on the executors' machines only.
    os.environ["PYSPARK_PYTHON"] = os.environ.get("PYSPARK_PYTHON", sys.executable) if _submitted() else worker_python()
    silence()
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._active_spark_context is not None:
        # The active session is one of a thread; and behind a query it is a clone, so that each further run's would be a clone
        # of that one's.
        return _held(SparkSession.builder.getOrCreate())
    settings = {**CORRECT, **conf} if _submitted() else {**CORRECT, **_with(local_settings(jars, little), conf)}
    builder = SparkSession.builder.appName(name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        with _quiet_start():
            spark = builder.getOrCreate()
    except Exception as cause:
        if type(cause).__name__ == "PySparkRuntimeError" and "JAVA_GATEWAY" in str(cause):
            what = "could not be started; `make setup` or `apt-get install openjdk-17-jre-headless` gets one"
            raise ConfigError(Problem("Java", what)) from cause
        raise
    # What stops a flow is said once, in a line, by the engine.
    spark.sparkContext.setLogLevel("FATAL" if _LOUD is None else "WARN")
    return _held(spark)


def _held(spark: SparkSession) -> SparkSession:
    """The session with what makes a run right: set where that is still possible, whoever set it otherwise, else refused."""
    problems = []
    for key in FROM_THE_START:
        if CORRECT[key] not in (spark.conf.get(key, None) or "").split(","):
            how = f"add `{key} {CORRECT[key]}` to the file that spark-submit takes as --properties-file"
            problems.append(Problem("Spark", f"the session that runs already has no {key}; {how}"))
    try:
        spark.sparkContext._jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(  # type: ignore[union-attr]
            CORRECT["spark.sql.extensions"]
        )
    except Exception:  # py4j raises the JVM's ClassNotFoundException as an error of its own
        problems.append(
            Problem("Spark", "the session that runs already has no jars of Delta; spark-submit --jars JARS")
        )
    if problems:
        raise ConfigError(*problems)
    for key in LATER:
        spark.conf.set(key, CORRECT[key])
    return spark


def stop() -> None:
    """End the session of this process, where there is one."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._active_spark_context is not None:
        SparkSession.builder.getOrCreate().stop()


def silence() -> None:
    """Keep PySpark's own JSON loggers off stderr: they print queries, and with them what a query holds."""
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        logging.getLogger(name).disabled = True
    py4j = logging.getLogger("py4j")  # prints the traceback of what the engine raises to Spark, and tells itself
    py4j.handlers, py4j.propagate = [logging.NullHandler()], False


_LOUD: Callable[[str], None] | None = None


def loud(say: Callable[[str], None]) -> None:
    """From the next start on, hand each line that Java and Spark log at WARN or worse to `say`, which takes secrets out."""
    global _LOUD
    _LOUD = say


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep what Java and Log4j print while they start off stderr: ten lines that no setting of Spark's reaches.

    The JVM inherits the file it is given for as long as it lives; `MICROBATCH_JVM_LOG` names one to read. It is given that one
    for stdout too: Java ends half a second after the command, and whoever reads the command's output would wait for both.
    """
    named = os.environ.get("MICROBATCH_JVM_LOG", os.devnull)
    if _LOUD is None or named != os.devnull:
        log = os.open(named, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    else:
        out, log = os.pipe()
        threading.Thread(target=_pass_on, args=(out, _LOUD), daemon=True).start()
    sys.stdout.flush()
    sys.stderr.flush()
    ours = os.dup(1), os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        yield
    finally:
        for number, own in enumerate(ours, 1):
            os.dup2(own, number)
            os.close(own)


def _pass_on(out: int, say: Callable[[str], None]) -> None:
    with os.fdopen(out, errors="replace") as lines:
        for line in lines:
            say(line.rstrip())


def worker_python() -> str:
    """What a local session starts its Python processes with.

    Spark puts an archive of PySpark's sources before all that is installed, and no compiled file is kept of an archive: each kind
    of process took 0.6 s of CPU to begin, and takes 0.13; a source in Python needs five. So a script takes the archive
    out of PYTHONPATH, where this Python has PySpark of its own.

    Source: Spark 4.2, `PythonUtils.sparkPythonPath`; Python, `zipimport`.
    """
    import pyspark

    script = Path(__file__).with_name("worker_python.sh")
    installed = Path(pyspark.__file__).parent.parent == Path(sysconfig.get_path("purelib"))
    if not installed or not os.access(script, os.X_OK):
        return sys.executable
    os.environ["MICROBATCH_PYTHON"] = sys.executable
    return str(script)


def jars_folder() -> Path | None:
    """Where Delta's jars lie: `MICROBATCH_JARS`, `.jars` of the working directory, or `.jars` beside the engine."""
    named = os.environ.get("MICROBATCH_JARS")
    beside = (Path.cwd() / ".jars", Path(__file__).resolve().parent.parent / ".jars")
    for folder in (Path(named),) if named else beside:
        if any(folder.glob("delta-spark_*.jar")):
            return folder
    return None


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _submitted() -> bool:
    """Whether spark-submit started this process: then master and jars are its affair."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _with(local: Mapping[str, str], conf: Mapping[str, str]) -> dict[str, str]:
    """The settings of the environment over the engine's; further jars beside Delta's, not in their place."""
    more = conf.get(CLASS_PATH)
    return {**local, **conf, CLASS_PATH: f"{local[CLASS_PATH]}{os.pathsep}{more}" if more else local[CLASS_PATH]}


def local_settings(jars: Path | None, little: bool) -> dict[str, str]:
    """The settings of a local session beside `CORRECT`; `conf/<env>/spark.conf` overrides them.

    Raises:
        ConfigError: the jars are missing, with the command that gets them.
    """
    folder = jars or jars_folder()
    if folder is None:
        raise ConfigError(
            Problem(
                ".jars", "Delta's jars are missing; `make setup` fetches them, or `python -m microbatch.jars .jars`"
            )
        )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    java = java_options(folder)
    return {
        **LOCAL,
        **(LITTLE if little else {}),
        "spark.master": f"local[{cores()}]",
        "spark.driver.memory": f"{max(1, min(8, int(memory_gib / 3)))}g",
        "spark.sql.shuffle.partitions": str(cores()),
        # Spark makes this folder at its start, by default in the working directory; no table lies in it.
        "spark.sql.warehouse.dir": os.path.join(tempfile.gettempdir(), "microbatch-spark-warehouse"),
        CLASS_PATH: os.pathsep.join(str(jar) for jar in sorted(folder.glob("*.jar"))),
        "spark.driver.extraJavaOptions": f"{java} {FIRST_COMPILER}" if little else java,
    }


def java_options(jars: Path | None) -> str:
    """What Java is told, with the archive of classes where one lies beside the jars; one that does not fit is passed over."""
    archive = jars.resolve() / ARCHIVE if jars else None
    if archive is None or not archive.exists():
        return JAVA_OPTIONS
    # Java would say on stdout that an archive does not fit.
    return f"{JAVA_OPTIONS} -XX:SharedArchiveFile={archive} -Xshare:auto -Xlog:disable -Xlog:all=error:stderr"
