"""A JVM that the commands of a test share, one after the other: each is a process of its own, with a session of its own.

Most of the time of a short command is Java's start. Spark's own way to hand a JVM that runs to a Python process, which
spark-submit takes for one, works for several in turn, as long as the SparkContext of one is stopped before the next begins.
Not for what is killed: there the JVM has to die, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microbatch import session
from microbatch.testing import brief

# Stops the session that a command left at its end, which would have ended with a JVM of its own.
CLEAR = """
import os
from py4j.clientserver import ClientServer, JavaParameters, PythonParameters

port, secret = int(os.environ["PYSPARK_GATEWAY_PORT"]), os.environ["PYSPARK_GATEWAY_SECRET"]
java = JavaParameters(port=port, auth_token=secret)
gateway = ClientServer(java_parameters=java, python_parameters=PythonParameters(port=0, eager_load=False))
active = getattr(getattr(gateway.jvm.org.apache.spark, "SparkContext$"), "MODULE$").getActive()
if active.isDefined():
    active.get().stop()
os._exit(0)
"""


@contextmanager
def warm_jvm(folder: Path, tools: Path) -> Iterator[dict[str, str]]:
    """A JVM for the programs in `tools`; the environment variables that hand it to them, PATH among them."""
    from pyspark import SparkConf
    from pyspark.java_gateway import launch_gateway

    folder.mkdir(parents=True)
    (folder / "clear.py").write_text(CLEAR)
    for tool in ("microbatch", "pytest"):
        (folder / tool).write_text(f'#!/bin/sh\n{sys.executable} {folder}/clear.py\nexec {tools}/{tool} "$@"\n')
        (folder / tool).chmod(0o755)
    conf: Any = SparkConf(loadDefaults=False)
    conf.setAll(
        [*{**session.local_settings(None, little=False), **brief()}.items()]
    )  # the rest each command sets itself
    with (folder / "jvm.log").open("ab") as log:
        gateway: Any = launch_gateway(conf, {"stdout": log, "stderr": log})
    parameters = gateway.java_parameters
    try:
        yield {
            "PATH": f"{folder}{os.pathsep}{tools}{os.pathsep}{os.environ['PATH']}",
            "PYSPARK_GATEWAY_PORT": str(parameters.port),
            "PYSPARK_GATEWAY_SECRET": parameters.auth_token,
        }
    finally:
        gateway.close()
        gateway.proc.stdin.close()  # the JVM ends with it
        gateway.proc.wait(30)
