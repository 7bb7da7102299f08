"""The release folder, made once for all tests that start from it, and an environment that has only the wheel of it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp

HERE = Path(__file__).resolve().parents[1]
# Setting up is done: these tests run in what it made. Without this, `make` would ask whether it is still new enough.
MADE = "--old-file=setup --old-file=land"


@lru_cache(maxsize=1)
def release() -> Path:
    """The folder that `make dist` makes; one for all processes of a test run, for they would build in the same place."""
    of_run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = Path(gettempdir(), f"microbatch-dist-{of_run}") if of_run else Path(mkdtemp(prefix="microbatch-dist-"))
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "release" / "MANIFEST").exists():
            done = subprocess.run(
                ["make", "--silent", *MADE.split(), "dist", f"DIST={folder}"],
                cwd=HERE,
                capture_output=True,
                text=True,
                check=False,
                env=without_repository(),
            )
            assert done.returncode == 0, done.stderr
    return folder / "release"


def environment(folder: Path, made: Path | None = None) -> Path:
    """The bin of a new environment with a release's wheel installed; what it needs is lent by the tests' own environment.

    A line in a .pth file adds a folder and not the .pth files inside it, so an editable install there stays out of sight.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    wheel = next((made or release()).glob("*.whl"))
    program = str(folder / "bin" / "python")
    install = ["pip", "--python", program, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, env=without_repository())
    for tool in ("pytest", "spark-submit"):
        (folder / "bin" / tool).write_text(_TOOLS[tool].format(python=program))
        (folder / "bin" / tool).chmod(0o755)
    return folder / "bin"


_TOOLS = {
    "pytest": '#!/bin/sh\nexec {python} -m pytest "$@"\n',
    "spark-submit": (
        "#!/bin/sh\nexport PYSPARK_PYTHON={python}\n"
        'exec "$({python} -c \'import pyspark; print(pyspark.__path__[0])\')/bin/spark-submit" "$@"\n'
    ),
}


def without_repository(**more: str) -> dict[str, str]:
    """This process's environment variables without what leads to the source tree."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")
    return {**{name: value for name, value in os.environ.items() if name not in hidden}, **more}
