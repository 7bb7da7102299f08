"""An S3 server on this machine: moto's, which keeps its objects in memory, and answers conditional puts as Amazon does.

It has an environment of its own (`.s3`, from `tests/servers/constraints.txt`): what it is built on wants older libraries.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import httpx

PROGRAM = Path(os.environ.get("MICROBATCH_S3_SERVER", ".s3/bin/moto_server")).absolute()
START_S = 60  # until it must be up
KEY, SECRET = "the-key", "the-secret-of-the-store"  # moto takes any; the tests look where they turn up


class S3:
    """One server. What it holds goes when it stops."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            RuntimeError: it does not come up; its log says why.
        """
        program = [str(PROGRAM), "-H", "127.0.0.1", "-p", str(self.port)]
        with (self.folder / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(program, stdout=log, stderr=log)
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"the server did not start; see {self.folder / 's3.log'}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def bucket(self, name: str) -> str:
        """Make a bucket, and say how Spark calls it."""
        signed = (
            f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=any"
        )
        httpx.put(f"{self.endpoint}/{name}", headers={"Authorization": signed}).raise_for_status()
        return f"s3a://{name}"

    def settings(self) -> dict[str, str]:
        """What a suite's `spark.conf` says of it."""
        return {
            "spark.hadoop.fs.s3a.endpoint": self.endpoint,
            "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.access.key": KEY,
            "spark.hadoop.fs.s3a.secret.key": SECRET,
        }


def free_port() -> int:
    """A port of 127.0.0.1 where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
