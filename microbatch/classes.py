"""An archive of Java's classes, so that a start does not load and check them anew: `python -m microbatch.classes DIR`.

A start of Spark loads some twenty thousand classes out of two hundred jars. Java can keep them as they are in memory, in one
file beside Delta's jars. It is made by a small job that appends, merges and judges, and it fits one Java and one class path:
where either has changed Java goes on without it, and says nothing.

Source:
    Java 17, "Class Data Sharing", dynamic archives (`-XX:ArchiveClassesAtExit`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from microbatch import session

LONGEST_S = 300
WRITTEN_S = 120  # the archive is written after the last class was used, when the process that asked has ended


def make(folder: Path) -> str:
    """Make the archive beside the jars of `folder`, in place of the one that is there.

    Returns:
        Why there is none, in a line; empty where there is one. Everything works without it, more slowly.
    """
    archive = folder.resolve() / session.ARCHIVE
    part = archive.with_name(f".{archive.name}.part")
    archive.unlink(missing_ok=True)
    part.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="microbatch-classes-", ignore_cleanup_errors=True) as home:
        suite = Path(home, "suite")
        env = {**os.environ, "MICROBATCH_JARS": str(folder.resolve())}
        for words in (["init", str(suite)], ["run", "orders", "--suite", str(suite)]):
            if words[0] == "run":
                conf = suite / "conf" / "local" / "spark.conf"
                conf.parent.mkdir(parents=True, exist_ok=True)
                options = f"{session.JAVA_OPTIONS} -XX:ArchiveClassesAtExit={part}"
                with conf.open("a") as file:
                    file.write(f"\nspark.driver.extraJavaOptions {options}\n")
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "microbatch", *words],
                    env=env,
                    capture_output=True,
                    text=True,
                    timeout=LONGEST_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return f"the job that is to be archived took longer than {LONGEST_S} s"
            if done.returncode:
                return (done.stderr.strip().splitlines() or [f"{words[0]} ended with {done.returncode}"])[-1][:200]
        if not _is_whole(part):
            return "Java wrote no archive"
    part.rename(archive)
    return ""


def _is_whole(file: Path) -> bool:
    """Wait until a file is there and grows no more."""
    until, size = time.monotonic() + WRITTEN_S, -1
    while time.monotonic() < until:
        now = file.stat().st_size if file.exists() else 0
        if now and now == size:
            return True
        size = now
        time.sleep(2)
    return False


def main() -> int:
    """Make the archive for the folder that is named; 0 also where there is none, with a line that says why."""
    if len(sys.argv) != 2:
        print("usage: python -m microbatch.classes DIR", file=sys.stderr)
        return 2
    print("archiving Java's classes, for quicker starts", file=sys.stderr, flush=True)
    if why := make(Path(sys.argv[1])):
        print(f"warning: no archive of classes: {why}; Spark starts more slowly", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
