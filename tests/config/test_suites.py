"""A suite that is right: what is loaded, in which order, from which folder, and that the folder stays as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microbatch.config import load
from microbatch.errors import ConfigError
from tests.config.conftest import SUITE, write

REPOSITORY = Path(__file__).parents[2]
COPY = 'from microbatch import Append, Flow, Job\nJOB = Job(Flow("x", reads="{}", writes=Append("{}")))\n'


def test_a_job_knows_its_flows_in_table_order_its_words_and_its_rules(suite):
    job = suite().job("shop")
    assert [flow.name for flow in job.flows] == ["orders", "products", "refine", "total"]
    assert job.doc == "Orders of the shop."
    assert job.file.name == "shop.py"
    assert list(job.expectations) == ["refine"]
    assert job.expectations["refine"].name == "orders"


def test_tables_know_their_writer_and_their_readers_across_jobs(suite):
    loaded = suite({"jobs/late.py": COPY.format("bronze.products", "gold.copy")})
    writer, flow = loaded.writer_of("bronze.products")
    assert (writer, flow.name) == ("shop", "products")
    assert [(job, flow.name) for job, flow in loaded.readers_of("bronze.products")] == [
        ("late", "x"),
        ("shop", "refine"),
    ]
    with pytest.raises(ConfigError, match=r"no flow writes the table gold\.cpy; did you mean gold\.copy\?"):
        loaded.writer_of("gold.cpy")


def test_jobs_run_in_the_order_of_their_tables_whatever_order_they_are_named_in(suite):
    files = {"jobs/b.py": COPY.format("silver.orders", "gold.b"), "jobs/a.py": COPY.format("gold.b", "gold.a")}
    loaded = suite(files)
    flows = [(job.name, flow.name) for job, flow in loaded.ordered(["a", "b", "shop"])]
    assert flows.index(("shop", "refine")) < flows.index(("b", "x")) < flows.index(("a", "x"))
    without_b = [(job.name, flow.name) for job, flow in loaded.ordered(["a", "shop"])]
    assert without_b.index(("shop", "refine")) < without_b.index(("a", "x"))  # b, which does not run, orders them


def test_an_unknown_job_or_flow_is_told_with_the_nearest(suite):
    loaded = suite()
    with pytest.raises(ConfigError, match=r"there is no job shpo; did you mean shop\?"):
        loaded.job("shpo")
    with pytest.raises(ConfigError, match=r"there is no flow refin; did you mean refine\?"):
        loaded.job("shop").flow("refin")
    with pytest.raises(ConfigError):
        loaded.ordered(["shop", "nothing"])


def test_the_version_changes_with_what_runs_and_with_nothing_else(suite):
    first = suite().version
    assert len(first) == 12
    assert suite({"README.md": "x", "jobs/__pycache__/shop.pyc": "x", "data/landing/x.json": "{}"}).version == first
    changed = {suite({name: SUITE[name] + "\n"}).version for name in SUITE}
    assert len(changed - {first}) == len(SUITE)


def test_a_suite_is_not_written_to(suite, tmp_path):
    suite()
    assert not list(tmp_path.rglob("*.pyc"))
    assert sorted(path.relative_to(tmp_path / "suite").as_posix() for path in tmp_path.rglob("*.*")) == sorted(SUITE)


def test_two_suites_in_one_process_have_jobs_transforms_and_neighbours_of_their_own(tmp_path):
    for name in ("one", "two"):
        code = f"def refine(orders, products):\n    return {name!r}\n\n\ndef totals(orders):\n    return orders\n"
        job = (
            SUITE["jobs/shop.py"]
            .replace("from transforms", "import beside\nfrom transforms")
            .replace('"""Orders of the shop."""', f'"""Suite {name}."""')
        )
        files = {"transforms/shop.py": code, "jobs/shop.py": job, "beside.py": f"NAME = {name!r}\n"}
        write(tmp_path / name, {**SUITE, **files})
    (tmp_path / "two" / "transforms" / "__init__.py").touch()
    (tmp_path / "two" / "jobs" / "__init__.py").touch()
    for name in ("one", "two", "one"):
        flow = load(tmp_path / name).job("shop").flow("refine")
        assert flow.transform("x", "y") == name
        assert name == sys.modules["beside"].NAME
        assert sys.modules["transforms.shop"].refine is flow.transform
        assert sys.path.count(str(tmp_path / name)) == 1
    assert str(tmp_path / "two") not in sys.path


def test_a_suite_without_packages_is_not_mistaken_for_the_folder_the_process_stands_in(tmp_path):
    write(tmp_path, SUITE)
    write(
        tmp_path / "here", {"jobs/__init__.py": "", "transforms/__init__.py": "", "transforms/shop.py": "WRONG = 1\n"}
    )
    program = (
        "import transforms, jobs, sys; from pathlib import Path; from microbatch.config import load;"
        f"print(load(Path({str(tmp_path)!r})).job('shop').flow('refine').transform.__code__.co_filename);"
        "print('pyspark' in sys.modules, 'great_expectations' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "here",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split("\n")[:2] == [str(tmp_path / "transforms" / "shop.py"), "False False"]


def test_one_job_may_import_another_and_each_runs_once(suite):
    files = {
        "jobs/a.py": COPY.format("silver.orders", "gold.a")
        + "from jobs import shop\nfrom jobs.shop import JOB as OTHER\n"
    }
    loaded = suite(files)
    assert loaded.job("shop").flow("total").transform is sys.modules["jobs.shop"].JOB.flows[0].transform


def test_an_alert_holds_by_its_operator(suite):
    alert = suite().job("shop").conf.alerts[0]
    assert (alert.condition.holds(26.5), alert.condition.holds(26)) == (True, False)
    assert alert.condition == ("freshness_h", ">", 26.0)


def test_this_repository_is_a_suite_without_mistakes():
    loaded = load(REPOSITORY)
    assert [flow.name for flow in loaded.job("daily_sales").flows][-1] == "total_daily_sales"
