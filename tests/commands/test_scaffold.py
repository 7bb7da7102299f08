"""`init` and `new`: what they make is whole, runs, and passes its own tests; what is there is never written over."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from microbatch import strictyaml
from microbatch.cli import group
from microbatch.config import load
from microbatch.config.schema import schema_of
from tests.commands.conftest import called
from tests.warm import warm_jvm

HERE = Path(__file__).resolve().parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A suite fresh from `init`."""
    root = tmp_path / "shop"
    done = CliRunner().invoke(group, ["init", str(root)])
    assert done.exit_code == 0, done.stderr
    return root


def test_a_new_suite_is_right_and_has_one_job_in_every_room(made):
    suite = load(made)
    assert list(suite.jobs) == ["orders"]
    assert suite.jobs["orders"].conf.schedule is not None
    for room in ("jobs/orders.py", "transforms/orders.py", "conf/base/orders.yml", "expectations/orders/orders.yml"):
        assert (made / room).is_file()
    assert (made / "tests/jobs/test_orders.py").is_file()


def test_every_expectation_says_why_and_every_function_that_is_public_has_a_docstring(made):
    for file in made.glob("expectations/*/*.yml"):
        assert all(entry["meta"]["why"] for entry in strictyaml.load(file).data["expectations"])
    for file in [*made.glob("jobs/*.py"), *made.glob("transforms/*.py")]:
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree)
        assert all(ast.get_docstring(node) for node in tree.body if isinstance(node, ast.FunctionDef))


def test_the_code_it_makes_keeps_the_house_style(made):
    style = ["--config", str(HERE / "pyproject.toml"), str(made)]
    for what in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *what, *style, "--no-cache"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_of_conf_name_their_schema_which_lies_there_and_which_they_pass(made):
    for file in made.glob("conf/base/*.yml"):
        first = file.read_text().splitlines()[0]
        schema = made / "conf/base" / first.removeprefix("# yaml-language-server: $schema=")
        found = yaml.safe_load(schema.read_text())
        assert found == schema_of("environment" if file.stem == "environment" else "job")
        jsonschema.validate(strictyaml.load(file).data, found)


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = CliRunner().invoke(group, ["init", str(tmp_path)])
    assert done.exit_code == 2
    assert "is not empty" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    done = CliRunner().invoke(group, ["init", str(tmp_path / "taken")])
    assert done.exit_code == 2
    assert "is a file" in done.stderr


def test_an_empty_folder_is_taken(tmp_path):
    assert CliRunner().invoke(group, ["init", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "jobs" / "orders.py").is_file()


def test_a_new_job_is_beside_the_others_and_what_to_edit_is_said(made):
    done = called(made, "new", "returned_goods")
    assert done.exit_code == 0, done.stderr
    suite = load(made)
    assert list(suite.jobs) == ["orders", "returned_goods"]
    for name in ("jobs/returned_goods.py", "transforms/returned_goods.py", "conf/base/returned_goods.yml"):
        assert name in done.stdout
        assert (made / name).is_file()
    assert "pytest tests/jobs/test_returned_goods.py" in done.stdout


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Returns", "small letters"),
        ("my-job", "small letters"),
        ("../x", "small letters"),
        ("", "small letters"),
        ("class", "word of Python"),
        ("environment", "file of conf"),
        ("a" * 64, "at most 63"),
    ],
)
def test_a_name_that_no_job_can_have_is_refused_with_the_rule(made, all_files, name, why):
    before = all_files(made)
    done = called(made, "new", name)
    assert done.exit_code == 2
    assert why in done.stderr
    assert all_files(made) == before


def test_the_longest_name_works(made):
    assert called(made, "new", "a" * 63).exit_code == 0
    assert "a" * 63 in load(made).jobs


def test_a_job_that_is_there_is_not_written_over(made, all_files):
    (made / "jobs" / "orders.py").write_text((made / "jobs" / "orders.py").read_text() + "# mine\n")
    before = all_files(made)
    done = called(made, "new", "orders")
    assert done.exit_code == 2
    assert "jobs/orders.py: is there already" in done.stderr
    assert all_files(made) == before
    assert (made / "jobs" / "orders.py").read_text().endswith("# mine\n")


def test_a_leftover_in_one_room_is_not_written_over_either(made, all_files):
    (made / "transforms" / "sales.py").write_text('"""Mine."""\n')
    before = all_files(made)
    done = called(made, "new", "sales")
    assert done.exit_code == 2
    assert "transforms/sales.py: is there already" in done.stderr
    assert all_files(made) == before


def test_a_table_that_another_job_writes_is_not_written_by_a_new_one(made):
    job = made / "jobs" / "orders.py"
    job.write_text(job.read_text().replace("silver.orders", "silver.returns"))
    done = called(made, "new", "returns")
    assert done.exit_code == 2
    assert "jobs/orders.py: writes silver.returns already" in done.stderr
    assert not (made / "jobs" / "returns.py").exists()


def test_a_suite_with_a_mistake_elsewhere_gets_its_new_job_and_is_told_of_it(made):
    (made / "jobs" / "orders.py").write_text("JOB = 1\n")
    done = called(made, "new", "returns")
    assert done.exit_code == 0, done.stderr
    assert "has mistakes elsewhere" in done.stdout
    assert (made / "jobs" / "returns.py").is_file()


def test_where_there_is_no_suite_a_new_job_says_how_to_make_one(tmp_path):
    done = called(tmp_path, "new", "returns")
    assert done.exit_code == 2
    assert "microbatch init DIR" in done.stderr
    assert not any(tmp_path.iterdir())


def test_init_and_new_load_neither_spark_nor_great_expectations(tmp_path):
    program = (
        "import sys; from click.testing import CliRunner; from microbatch.cli import group;"
        "assert CliRunner().invoke(group, ['init', sys.argv[1]]).exit_code == 0;"
        "sys.exit(str([name for name in ('pyspark', 'great_expectations', 'pandas') if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x")], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.slow  # three processes, with a session each
def test_a_new_suite_runs_at_once_and_the_tests_of_its_jobs_pass(made, tmp_path_factory):
    assert called(made, "new", "returns").exit_code == 0
    env = {**os.environ, "PYTHONPATH": str(HERE), "MICROBATCH_JARS": str(HERE / ".jars")}

    def typed(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=made, env={**env, **warm}, capture_output=True, text=True, check=False)

    with warm_jvm(tmp_path_factory.mktemp("scaffold") / "warm", Path(sys.executable).parent) as warm:
        ran = typed("microbatch", "run", "orders")
        audited = typed("microbatch", "audit", "orders")
        tested = typed("pytest", "-q", "-p", "no:cacheprovider")
    assert ran.returncode == 0, ran.stderr
    [line] = [line.split() for line in ran.stdout.splitlines() if line.startswith("orders.keep_orders")]
    assert line[1:7] == ["done", "1", "5", "2", "2", "1"]  # state, batches, read, written, quarantined, superseded
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "8 passed" in tested.stdout
