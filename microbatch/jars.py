"""The jars that pyspark does not ship: `python -m microbatch.jars DIR` fetches them once, for all later starts.

`python -m microbatch.jars DIR s3` fetches those for `s3a://` into a folder of their own.

The resolver is Spark's own (Ivy), which knows the machine's mirrors and proxies; here no host is named.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile, copytree

from microbatch.errors import MicrobatchError, TransientError

DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"
# 4.2.0 is not to be had everywhere; 4.1.1 reads and writes Avro, files and payloads, on Spark 4.2.0
AVRO = "org.apache.spark:spark-avro_2.13:4.1.1"
# S3A, of the Hadoop that pyspark ships. Fetched on request only: the SDK beside it has 686 MB.
S3 = "org.apache.hadoop:hadoop-aws:3.5.0"
KAFKA = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"
# Of the jars that a package draws in, these do the work. The others serve Unity Catalog and Delta's kernel reader,
# which nothing here asks for, or come with pyspark in newer versions that must not be shadowed.
KEPT = {
    DELTA: ("delta-spark_4.2_2.13-4.4.0.jar", "delta-storage-4.4.0.jar"),
    AVRO: ("spark-avro_2.13-4.1.1.jar",),
    KAFKA: (
        "spark-sql-kafka-0-10_2.13-4.2.0.jar",
        "spark-token-provider-kafka-0-10_2.13-4.2.0.jar",
        "kafka-clients-3.9.2.jar",
        "commons-pool2-2.13.1.jar",
    ),
    S3: ("hadoop-aws-3.5.0.jar", "bundle-2.35.4.jar", "analyticsaccelerator-s3-1.3.1.jar"),
}

ATTEMPTS = 3  # a first fetch through a slow mirror times out now and then
TIMEOUT_S = 300  # per attempt
TIMEOUT_OF_S3_S = 1200


class JarsUnavailable(TransientError):
    """The resolver did not get a jar, or did not come to an end."""

    def __init__(self, package: str, cause: str) -> None:
        super().__init__(package, cause)
        self.package, self.cause = package, cause

    def __str__(self) -> str:
        return f"{self.package} could not be fetched in {ATTEMPTS} tries: {self.cause}; try again later"


def missing(folder: Path) -> bool:
    """Whether `folder` lacks a jar without which no job runs: Delta's. The others are wanted only where they are used."""
    return not _there(DELTA, folder)


def fetch(into: Path) -> None:
    """Bring Delta's jars, and Avro's and Kafka's where they can be had, into the flat folder `into`; what is there is not
    fetched.

    Guarantee:
        A jar that lies in `into` under its own name is whole (it is copied beside and then renamed), and no other
        version of it is left there: two on one class path would be a matter of luck.

    Raises:
        JarsUnavailable: Delta's jars could not be fetched. The others are missed with a warning.
        MicrobatchError: pyspark is not installed here, or Java is missing.
    """
    into.mkdir(parents=True, exist_ok=True)
    _resolve(DELTA, into)
    for package, what in ((AVRO, "format avro"), (KAFKA, "sources of kind kafka")):
        try:
            _resolve(package, into)
        except JarsUnavailable as error:
            _say(f"warning: {error}; all but {what} works without it")


def fetch_s3(into: Path) -> None:
    """Bring what Spark needs for `s3a://` into a flat folder of its own; what is there is not fetched.

    Raises:
        JarsUnavailable, MicrobatchError: as `fetch`.
    """
    into.mkdir(parents=True, exist_ok=True)
    _resolve(S3, into)


def resolve(package: str, into: Path) -> None:
    """Bring a package and all that it draws in into a folder of its own, under the resolver's names.

    Raises:
        JarsUnavailable: it could not be fetched.
    """
    cause = ""
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="microbatch-jars-") as cache:
            if not (cause := _run_resolver(package, Path(cache))):
                copytree(Path(cache, "jars"), into, dirs_exist_ok=True)
                return
    raise JarsUnavailable(package, cause)


def _there(package: str, folder: Path) -> bool:
    return all((folder / name).exists() for name in KEPT[package])


def _resolve(package: str, into: Path) -> None:
    cause = ""
    for attempt in range(1, ATTEMPTS + 1):
        if _there(package, into):
            return
        _say(f"fetching {package}, try {attempt} of {ATTEMPTS}")
        with tempfile.TemporaryDirectory(prefix="microbatch-jars-") as cache:
            cause = _run_resolver(package, Path(cache)) or _keep(package, Path(cache, "jars"), into)
    if cause:
        raise JarsUnavailable(package, cause)


def _run_resolver(package: str, cache: Path) -> str:
    """Let spark-submit resolve a package for a script that does nothing.

    Returns:
        Why it failed, in a line; empty where the jars lie in `cache/jars`.
    """
    limit_s = TIMEOUT_OF_S3_S if package == S3 else TIMEOUT_S
    nothing = cache / "nothing.py"
    nothing.touch()
    command = [_spark_submit(), "--packages", package, "--conf", f"spark.jars.ivy={cache}", str(nothing)]
    try:
        env = {**os.environ, "PYSPARK_PYTHON": sys.executable}  # what would run the script that does nothing
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False, env=env)
    except subprocess.TimeoutExpired:
        return f"no answer within {limit_s} s"
    if done.returncode == 0:
        return ""
    if "JAVA_HOME" in done.stderr or "java: " in done.stderr:
        raise MicrobatchError("Java is missing: `make setup` installs it, or apt-get install openjdk-17-jre-headless")
    lines = [line.strip() for line in done.stderr.splitlines() if re.search(r"not found|rror|xception", line)]
    return (lines or [f"spark-submit ended with {done.returncode}"])[-1][:200]


def _keep(package: str, fetched: Path, into: Path) -> str:
    """Copy what is wanted of the resolver's folder; the answer is as that of `_run_resolver`."""
    for name in KEPT[package]:
        found = next(fetched.glob(f"*_{name}"), None)  # Ivy writes <organisation>_<artifact>-<version>.jar
        if found is None:
            return f"the resolver brought no {name}"
        copyfile(found, into / f".{name}.part")
        (into / f".{name}.part").rename(into / name)
        for other in into.glob(f"{name.rpartition('-')[0]}-[0-9]*.jar"):
            if other.name != name:
                other.unlink()
    return ""


def _spark_submit() -> str:
    spec = find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise MicrobatchError("pyspark is not installed for this Python: pip install microbatch")
    return str(Path(spec.submodule_search_locations[0], "bin", "spark-submit"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Fetch into the folder that is named, Delta's jars or with `s3` those for `s3a://`; 0 when they are there."""
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["s3"]):
        _say("usage: python -m microbatch.jars DIR [s3]")
        return 2
    try:
        (fetch_s3 if sys.argv[2:] else fetch)(Path(sys.argv[1]))
    except MicrobatchError as error:
        _say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
