"""The guide cannot rot: every `bash` block of each page is typed, in order, by somebody who has only the wheel.

The commands of a page share a JVM (see `warm`): `test_wheel` types what a newcomer does with a JVM for each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from microbatch.config.schema import schema_of
from tests import small_sales
from tests.releases import MADE, environment, without_repository
from tests.warm import warm_jvm

HERE = Path(__file__).resolve().parents[1]
PAGES = sorted(HERE.glob("docs/*.md"))
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#([^)]+))?\)")
IN_A_CLONE = ("cluster",)  # pages that begin in a clone of this repository


@pytest.fixture(scope="module")
def bin_(tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("guide") / "env")


@pytest.fixture(scope="module")
def warm(bin_, tmp_path_factory) -> Iterator[dict[str, str]]:
    with warm_jvm(tmp_path_factory.mktemp("guide") / "warm", bin_) as variables:
        yield variables


def test_every_page_is_there():
    assert {page.stem for page in PAGES} >= {"first-job", "sources", "targets", "checks", "operating", "cluster"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_between_the_pages_leads_somewhere(page):
    for name, anchor in LINK.findall(page.read_text()):
        if not name.startswith("http"):
            target = page.parent / name
            assert target.is_file(), name
            heads = [re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in headings(target)]
            assert not anchor or anchor in heads


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_of_conf_and_code_is_right(page):
    schema = jsonschema.Draft202012Validator(schema_of())
    for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        assert [error.message for error in schema.iter_errors(yaml.safe_load(block))] == []
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, page.name, "exec"), {})


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)


@pytest.mark.slow  # many runs of the engine
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_to_type_works(page, bin_, request, tmp_path):
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    folder = tmp_path
    env = without_repository(
        PATH=f"{bin_}{os.pathsep}{os.environ['PATH']}",
        MICROBATCH_JARS=str(HERE / ".jars"),
        SPARK_LOCAL_IP="127.0.0.1",
        HOME=str(tmp_path),
    )
    if page.stem in IN_A_CLONE:  # where spark-submit has a JVM of its own
        folder = clone(tmp_path / "clone")
        small_sales.land(tmp_path / "landing")
        env |= {"PATH": f"{set_up(tmp_path / 'made')}{os.pathsep}{env['PATH']}"}
        env |= {"SALES_LANDING": str(tmp_path / "landing"), "SALES_ROOT": str(tmp_path / "out")}
    else:
        env |= request.getfixturevalue("warm")
    script = "set -euo pipefail\n" + "\n".join(blocks)
    if "_MICROBATCH_COMPLETE" in script:
        script += "\ncomplete -p microbatch"
    done = subprocess.run(
        ["bash", "-x", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def set_up(folder: Path) -> Path:
    """A folder with a `make` that takes for granted that this machine is set up."""
    folder.mkdir()
    (folder / "make").write_text(f'#!/bin/sh\nexec {shutil.which("make")} {MADE} "$@"\n')
    (folder / "make").chmod(0o755)
    return folder


def clone(into: Path) -> Path:
    """This repository's files as they are now, set up by what it was set up with."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (HERE / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HERE / name, into / name)
    for made in (".venv", ".jars"):
        (into / made).symlink_to((HERE / made).resolve())
    return into
