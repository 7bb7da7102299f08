"""What executors need to read a database: `python -m microbatch.libraries FILE WHEEL` packs the engine and its libraries.

A file system, a topic or an API is read by the JVM. A source of kind `postgres` reads in Python where the executors are: what
it needs reaches them as `--archives FILE#environment` with `spark.executorEnv.PYTHONPATH=environment`. The engine has to be in it
too: the Python that Spark starts for a stream looks for `--py-files` in a folder of its session, where they are not. The
executors' Python must be of the same version as this one.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "adbc-driver-manager",
    "adbc-driver-postgresql",
    "numpy",
    "psycopg",
    "psycopg-binary",
    "pyarrow",
    "typing-extensions",
)
# Half of pyarrow: what other programs are compiled with, and tests.
LEFT_OUT = ("include", "tests", "__pycache__", "src")


def pack(into: Path, wheel: Path) -> None:
    """Write the archive in one step.

    Args:
        wheel: the engine's.

    Raises:
        importlib.metadata.PackageNotFoundError: one of the packages is not installed here.
    """
    half = into.with_name(f"_{into.name}")
    with tempfile.TemporaryDirectory() as engine, tarfile.open(half, "w:gz", compresslevel=1) as archive:
        for package in PACKAGES:
            for file in sorted(metadata.files(package) or ()):
                where = Path(str(file.locate()))
                if not set(file.parts).intersection((*LEFT_OUT, "..")) and where.is_file():
                    archive.add(where, str(file))
        shutil.unpack_archive(wheel, engine, "zip")
        archive.add(engine, ".")
    half.rename(into)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
