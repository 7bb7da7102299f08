"""Overlays, references and secrets: what an environment changes, and what no message shows."""

import pytest
from pydantic import ValidationError

from microbatch.config import FilesConf

PASSWORD = "s3cr:t/p@ss%"


def test_a_suite_without_environment_files_keeps_its_data_under_data(suite, tmp_path):
    storage = suite({"conf/base/environment.yml": "channels: {ops: {url: x}}\n"}).environment.storage
    assert storage == {
        name: str(tmp_path / "suite" / "data" / name) for name in ("landing", "warehouse", "checkpoints", "reports")
    }


def test_roots_may_be_added_and_uris_stay_as_they_are(suite, tmp_path):
    lines = (
        "storage: {warehouse: s3a://lake/tables, raw: /mnt/raw, landing: file:///mnt/in}\nchannels: {ops: {url: x}}\n"
    )
    loaded = suite({"conf/local/environment.yml": lines}, edit=("conf/base/shop.yml", "${landing}/o", "${raw}/o"))
    assert loaded.environment.storage["warehouse"] == "s3a://lake/tables"
    orders, products = loaded.job("shop").conf.sources["orders"], loaded.job("shop").conf.sources["products"]
    assert isinstance(orders, FilesConf)
    assert isinstance(products, FilesConf)
    assert (orders.path, products.path) == ("/mnt/raw/orders", "/mnt/in/products")


def test_roots_given_by_the_caller_replace_those_of_the_environment(suite, tmp_path):
    loaded = suite(storage={"landing": str(tmp_path / "elsewhere"), "warehouse": "house"})
    assert loaded.environment.storage["landing"] == str(tmp_path / "elsewhere")
    assert loaded.environment.storage["warehouse"] == str(tmp_path / "suite" / "house")
    assert loaded.job("shop").conf.sources["orders"].path == str(tmp_path / "elsewhere" / "orders")


def test_an_overlay_merges_mappings_and_replaces_lists_and_values(suite):
    overlay = """sources: {orders: {max_files_per_batch: 5}}
schedule: {timezone: Europe/Berlin}
alerts: [{when: "failed > 0"}]
"""
    conf = suite({"conf/prod/shop.yml": overlay}, env="prod").job("shop").conf
    assert conf.sources["orders"].max_files_per_batch == 5
    assert conf.sources["orders"].format == "json"
    assert (conf.schedule.cron, conf.schedule.timezone) == ("0 2 * * *", "Europe/Berlin")
    assert [alert.condition for alert in conf.alerts] == [("failed", ">", 0.0)]
    assert suite().job("shop").conf.schedule.timezone == "UTC"


def test_an_overlay_takes_a_schedule_away_with_null(suite):
    assert suite({"conf/dev/shop.yml": "schedule: null\n"}, env="dev").job("shop").conf.schedule is None


def test_a_mistake_is_told_in_the_file_whose_value_won(refused):
    overlay = "owner: x\nsources:\n  orders:\n    format: xml\n"
    lines = refused({"conf/prod/shop.yml": overlay}, env="prod")
    assert len(lines) == 1
    assert lines[0].startswith("conf/prod/shop.yml:4: sources.orders.format: must be one of json, csv")


def test_a_value_missing_in_a_list_of_the_overlay_is_not_told_in_the_base(refused):
    lines = refused({"conf/prod/shop.yml": "alerts:\n  - {severity: info}\n"}, env="prod")
    assert lines == ["conf/prod/shop.yml:2: alerts[0].when: is needed here"]


def test_an_environment_without_a_folder_is_refused_except_local(refused, suite):
    lines = refused({"conf/prod/environment.yml": "catalog: true\n"}, env="prd")
    assert lines == ["conf: there is no environment prd; did you mean prod?"]
    assert refused(env="../base")[0].startswith("conf: there is no environment ../base")
    assert refused(env="base")[0].startswith("conf: there is no environment base")
    assert suite(env="prod").environment.catalog is True
    assert suite().environment.catalog is False


def test_spark_settings_of_an_environment_lie_over_the_base(suite, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "abcdef")
    loaded = suite(
        {
            "conf/base/spark.conf": "spark.a 1\nspark.b=2\n",
            "conf/local/spark.conf": "# ours\n\nspark.a = x=y z\nspark.secret ${env:TEST_KEY}\n",
        }
    )
    assert loaded.spark_conf == {"spark.a": "x=y z", "spark.b": "2", "spark.secret": "abcdef"}
    assert loaded.secrets == ("abcdef",)


def test_options_become_text_as_spark_wants_it(suite):
    files = {
        "conf/local/shop.yml": "sources: {orders: {options: {multiLine: true, samplingRatio: 1, lineSep: x, n: 0.5}}}"
    }
    options = suite(files).job("shop").conf.sources["orders"].options
    assert options == {"multiLine": "true", "samplingRatio": "1", "lineSep": "x", "n": "0.5"}


def test_a_number_may_come_from_the_environment(suite, monkeypatch):
    files = {"conf/local/shop.yml": "sources: {orders: {max_files_per_batch: '${env:TEST_FILES:-31}'}}"}
    assert suite(files).job("shop").conf.sources["orders"].max_files_per_batch == 31
    monkeypatch.setenv("TEST_FILES", "7")
    assert suite(files).job("shop").conf.sources["orders"].max_files_per_batch == 7


def test_a_default_may_hold_colons_and_an_empty_variable_takes_it(suite, monkeypatch):
    files = {
        "conf/local/environment.yml": 'connections: {shop: {uri: "${env:TEST_URI:-postgresql://shop@127.0.0.1/shop}"}}'
    }
    monkeypatch.setenv("TEST_URI", "")
    loaded = suite(files)
    assert loaded.environment.connections["shop"].uri == "postgresql://shop@127.0.0.1/shop"
    assert loaded.secrets == ()


def test_what_comes_from_the_environment_is_a_secret_but_for_storage_defaults_and_short_values(suite, monkeypatch):
    uri = "postgresql://shop:a%40longword@db/shop"
    for name, value in {"TEST_URI": uri, "TEST_ROOT": "/mnt/root", "TEST_SHORT": "abc", "TEST_OWNER": "team-x"}.items():
        monkeypatch.setenv(name, value)
    environment = """storage: {landing: "${env:TEST_ROOT}"}
connections: {shop: {uri: "${env:TEST_URI}", url: "${env:TEST_SHORT}", options: {a: "${env:TEST_NOTHING:-default}"}}}
"""
    files = {"conf/local/environment.yml": environment, "conf/local/shop.yml": 'owner: "${env:TEST_OWNER}"\n'}
    loaded = suite(files)
    assert loaded.secrets == (uri, "a%40longword", "a@longword", "team-x")
    assert "longword" not in repr(loaded)


def test_an_unused_connection_may_lack_its_variable(suite):
    files = {"conf/local/environment.yml": 'connections: {shop: {uri: "${env:TEST_NOT_SET}"}}\n'}
    assert suite(files).environment.connections == {}


@pytest.mark.parametrize(
    "overlay",
    [
        'owner: {"a": "${env:TEST_PASSWORD}"}',
        'sources: {orders: {format: "${env:TEST_PASSWORD}"}}',
        'sources: {orders: {kind: "${env:TEST_PASSWORD}"}}',
        'sources: {orders: {max_files_per_batch: "${env:TEST_PASSWORD}"}}',
        'sources: {orders: {unknown_fields: "x${env:TEST_PASSWORD}"}}',
        'sources: {orders: {options: {mode: "${env:TEST_PASSWORD}"}}}',
        'schedule: {cron: "${env:TEST_PASSWORD}"}',
        'schedule: {timezone: "Europe/${env:TEST_PASSWORD}"}',
        'alerts: [{when: "${env:TEST_PASSWORD} > 1"}]',
        'alerts: [{when: "failed > 1", notify: ["${env:TEST_PASSWORD}"]}]',
    ],
)
@pytest.mark.parametrize("value", [PASSWORD, "zq7"])
def test_no_message_shows_a_value_from_the_environment(refused, monkeypatch, overlay, value):
    monkeypatch.setenv("TEST_PASSWORD", value)
    text = "\n".join(refused({"conf/local/shop.yml": overlay + "\n"}))
    assert "conf/local/shop.yml:1" in text
    assert value not in text


def test_a_job_file_that_raises_with_a_secret_does_not_show_it(refused, monkeypatch):
    monkeypatch.setenv("TEST_PASSWORD", PASSWORD)
    files = {
        "conf/local/shop.yml": 'owner: "${env:TEST_PASSWORD}"\n',
        "jobs/leak.py": "import os\nraise ValueError('no: ' + os.environ['TEST_PASSWORD'])\n",
    }
    assert refused(files) == ["jobs/leak.py:2: ValueError: no: ***"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${env:1X}", "is neither ${env:NAME} nor ${env:NAME:-default}"),
        ("${env:A:-${landing}}", "one ${...} cannot stand inside another"),
        ("${landing", "has a ${ without its }"),
    ],
)
def test_a_reference_that_is_written_wrongly_is_told(refused, text, words):
    lines = refused({"conf/local/shop.yml": f'owner: "{text}"\n'})
    assert any(line.startswith("conf/local/shop.yml:1: owner: ") and words in line for line in lines)


@pytest.mark.parametrize(
    "option", [{"encoding": "UTF-16"}, {"recursiveFileLookup": False}], ids=lambda option: next(iter(option))
)
def test_an_option_under_which_rows_would_go_unread_is_refused(option: dict[str, object]):
    with pytest.raises(ValidationError, match=next(iter(option))):
        FilesConf.model_validate({"kind": "files", "format": "json", "path": "/landing", "options": option})
