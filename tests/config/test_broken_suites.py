"""Every mistake somebody can make in a suite is told with its file, what is wrong and the nearest right name."""
# ruff: noqa: E501 - a table is read by its columns

import pytest

JOB, CONF, ENV, RULES, CODE = (
    "jobs/shop.py",
    "conf/base/shop.yml",
    "conf/base/environment.yml",
    "expectations/shop/orders.yml",
    "transforms/shop.py",
)
ORDERS = 'writes=Append("bronze.orders")'
SILVER = 'writes=Upsert("silver.orders", keys=["id"], newest_by="at")'
GOLD = 'writes=Replace("gold.days", keys=["day"])'
OTHER = 'from microbatch import Append, Flow, Job, Source\n\nJOB = Job(Flow("x", reads="silver.orders", writes=Append("{}")))\n'


# What is edited, in which file; where the problem is told; words of it.
EDITS = [
    # conf
    (CONF, "format: json", "formt: json", f"{CONF}:3", "sources.orders.formt: there is no such key; did you mean format?"),
    (CONF, "format: json", "format: jsn", f"{CONF}:3", "not jsn; did you mean json?"),
    (CONF, "kind: files, format: json", "kind: file, format: json", f"{CONF}:3", "there is no kind file; did you mean files?"),
    (CONF, "kind: files, format: json", "format: json", f"{CONF}:3", "sources.orders: needs the key kind"),
    (CONF, 'format: json, path: "${landing}/orders"', "format: json", f"{CONF}:3", "sources.orders.path: is needed here"),
    (CONF, "${landing}/orders", "${landin}/orders", f"{CONF}:3", "no storage root landin; did you mean landing?"),
    (CONF, "${landing}/orders", "${landing}/../../etc", f"{CONF}:3", "leaves the storage root landing"),
    (CONF, '"${landing}/orders"', "../elsewhere", f"{CONF}:3", "leaves the suite"),
    (CONF, "${landing}/orders", "${env:TEST_NOT_SET}/x", f"{CONF}:3", "the environment variable TEST_NOT_SET is not set"),
    (CONF, "owner: shop", "ownr: shop", f"{CONF}:1", "ownr: there is no such key; did you mean owner?"),
    (CONF, "owner: shop", "owner: 5", f"{CONF}:1", "owner: must be text; put it in quotes"),
    (CONF, "owner: shop", "owner: shop\nowner: bar", f"{CONF}:2", "owner is there twice, first on line 1"),
    (CONF, '"0 2 * * *"', '"0 25 * * *"', f"{CONF}:8", "is not a cron expression"),
    (CONF, '"0 2 * * *"', '"0 2 31 2 *"', f"{CONF}:8", "never comes: there is no such day"),
    (CONF, '"0 2 * * *"', '"0 2 * * *", timezone: Europe/Berln', f"{CONF}:8", "did you mean Europe/Berlin?"),
    (CONF, '"0 2 * * *"', '"0 2 * * *", sla_m: -1', f"{CONF}:8", "schedule.sla_m: must be more than 0"),
    (CONF, '"0 2 * * *"', '"0 2 * * *", retries: yes', f"{CONF}:8", "must be a whole number"),
    (CONF, '"0 2 * * *"', '"0 2 * * *", retries: true', f"{CONF}:8", "must be a number, not true or false"),
    (CONF, "freshness_h > 26", "freshness > 26", f"{CONF}:10", "no metric freshness; did you mean freshness_h?"),
    (CONF, "freshness_h > 26", "freshness_h above 26", f"{CONF}:10", "is not <metric> <op> <number>"),
    (CONF, "critical", "fatal", f"{CONF}:10", "must be one of info, warning, critical, not fatal"),
    (CONF, "[ops]", "[opps]", f"{CONF}:10", "has no opps under channels; did you mean ops?"),
    (CONF, "notify: [ops]}", "notify: [ops]}\n  - {when: 'freshness_h > 26', severity: critical}", f"{CONF}:11", "alerts[1].when: is in alerts[0] already, with the same severity; list all channels in one notify"),
    (CONF, "  products:\n", "  produkts:\n", f"{JOB}:9", "has no products under sources; did you mean produkts?"),
    (CONF, "  products:\n", "  produkts:\n", f"{CONF}:4", "no flow of jobs/shop.py reads it; did you mean products?"),
    (CONF, "    kind: files", "    kind: files\n    unknown_fields: fail", f"{CONF}:6", "csv carries no field names"),
    (CONF, "    kind: files", "    kind: files\n    metadata: yes", f"{CONF}:6", "must be true or false"),
    (CONF, "    kind: files", "    kind: files\n    max_files_per_batch: 0", f"{CONF}:6", "must be at least 1"),
    (CONF, "    kind: files", "    kind: files\n    max_files_per_batch: many", f"{CONF}:6", "must be a whole number"),
    (CONF, "    kind: files", "    kind: files\n    options: {latestFirst: true}", f"{CONF}:6", "reads the newest files first"),
    (CONF, "    kind: files", "    kind: files\n    options: {MAXFILEAGE: 7d}", f"{CONF}:6", "MAXFILEAGE: is not allowed"),
    (CONF, "    kind: files", "    kind: files\n    options: {mode: DROPMALFORMED}", f"{CONF}:6", "can only be PERMISSIVE"),
    (CONF, "    kind: files", "    kind: files\n    options: {pathGlobFilter: '*.{json,csv}'}", f"{CONF}:6", "a pattern with braces, a backslash or [^ is not read"),
    (CONF, "    kind: files", "    kind: files\n    options: {Path: /x}", f"{CONF}:6", "is a key of its own"),
    (ENV, "landing: in", "landing: [in]", f"{ENV}:1", "storage.landing: must be a path"),
    (ENV, "storage: {", "storage: {warehose: x, ", f"{ENV}:1", "storage.warehose: no value refers to ${warehose}; did you mean warehouse?"),
    (ENV, "storage: {", "storage: {Raw: x, ", f"{ENV}:1", "storage.Raw: is not a name"),
    (ENV, "landing: in", 'landing: "${warehouse}/in"', f"{ENV}:1", "a storage root is built from"),
    (ENV, "channels:", "chanels:", f"{ENV}:2", "chanels: there is no such key; did you mean channels?"),
    (ENV, "{url:", "{uri:", f"{ENV}:2", "channels.ops.uri: there is no such key; did you mean url?"),
    (ENV, ":-}", "}", f"{ENV}:2", "the environment variable TEST_WEBHOOK is not set"),
    # job files
    (JOB, "reads=Source(\"orders\"", "read=Source(\"orders\"", f"{JOB}:8", "Flow has no argument read; did you mean reads?"),
    (JOB, 'keys="id"', 'key="id"', f"{JOB}:9", "Upsert has no argument key; did you mean keys?"),
    (JOB, f", {ORDERS}", "", f"{JOB}:8", "Flow needs writes"),
    (JOB, "shop.refine", "shop.refin", f"{JOB}:14", "transforms.shop has no refin; did you mean refine?"),
    (JOB, "import shop", "import shopp", f"{JOB}:4", "transforms has no shopp; did you mean shop?"),
    (JOB, "Append, Flow, Job", "Apend, Flow, Job", f"{JOB}:3", "microbatch has no Apend; did you mean Append?"),
    (JOB, "from transforms", "from transform", f"{JOB}:4", "there is no module transform; did you mean transforms?"),
    (JOB, "writes=Append(", "writes=Appendix(", f"{JOB}:8", "Appendix is not defined; did you mean Append?"),
    (JOB, "JOB = Job(", "JOB = Job((", JOB, "is not valid Python"),
    (JOB, "JOB = Job(", "THE_JOB = Job(", JOB, "declares no JOB; rename THE_JOB to JOB"),
    (JOB, "JOB = Job(", "JOB = 3\nX = Job(", JOB, "JOB is not a Job but of type int"),
    (JOB, "JOB = Job(", "JOB = Job()\nX = Job(", JOB, "the job has no flows"),
    (JOB, "JOB = Job(", 'JOB = Job("x",', f"{JOB}:6", "Job(...) takes flows, not str"),
    (JOB, "JOB = Job(", "1 / 0\nJOB = Job(", f"{JOB}:6", "ZeroDivisionError: division by zero"),
    (JOB, "JOB = Job(", "raise SystemExit\nJOB = Job(", f"{JOB}:6", "ends the program"),
    (CODE, "def totals", "import nothing_such\n\n\ndef totals", f"{CODE}:8", "there is no module nothing_such"),
    (CODE, "def totals", "def totals(:\n\n\ndef more", f"{CODE}:8", "is not valid Python"),
    (CODE, "def totals", "raise RuntimeError('no')\n\n\ndef totals", f"{CODE}:8", "RuntimeError: no"),
    # flows
    (JOB, '"orders", reads', '"Orders", reads', f"{JOB}:8", "its name cannot be 'Orders'"),
    (JOB, '"orders", reads', '"products", reads', f"{JOB}:9", "another flow of this job has the same name"),
    (JOB, '"bronze.products", keys', '"products", keys', f"{JOB}:9", '"products" is not the name of a table'),
    (JOB, '"bronze.products", keys', '"ops.products", keys', f"{JOB}:9", "the schema ops is the engine's own"),
    (JOB, '"bronze.products", keys', '\'a"; drop\', keys', f"{JOB}:9", "is not the name of a table"),
    (JOB, '"bronze.products", keys', '"../x", keys', f"{JOB}:9", "is not the name of a table"),
    (JOB, '"bronze.products", keys', '"a.b.c", keys', f"{JOB}:9", "is not the name of a table"),
    (JOB, '"bronze.products", keys', f'"a.{"b" * 300}", keys', f"{JOB}:9", "is not the name of a table"),
    (JOB, 'keys="id"', "keys='a`b'", f"{JOB}:9", "cannot be a column"),
    (JOB, 'keys="id"', "keys=[]", f"{JOB}:9", "Upsert needs keys"),
    (JOB, 'keys="id"', 'keys=["id", "id"]', f"{JOB}:9", "keys names a column twice"),
    (JOB, 'keys="id"', "keys=[1]", f"{JOB}:9", "keys holds an int"),
    (JOB, 'keys="id"', "keys=7", f"{JOB}:9", "TypeError"),
    (JOB, 'keys="id"', 'keys="id", cluster_by="a", partition_by="b"', f"{JOB}:9", "exclude each other"),
    (JOB, 'keys="id"', 'keys="id", evolve="add_column"', f"{JOB}:9", "did you mean add_columns?"),
    (JOB, 'keys="id"', 'keys="id", delete_when=""', f"{JOB}:9", "delete_when must be SQL"),
    (JOB, ORDERS, "writes=Append", f"{JOB}:8", "writes is the class Append"),
    (JOB, ORDERS, 'writes="bronze.orders"', f"{JOB}:8", "writes is a str; give one of Append(...)"),
    (JOB, ORDERS, 'writes=Append("silver.orders")', f"{JOB}:11", "is written by flow orders of job shop already"),
    (JOB, 'reads="bronze.orders"', 'reads="bronze.order"', f"{JOB}:11", "no flow writes bronze.order; did you mean bronze.orders?"),
    (JOB, 'reads="bronze.orders"', "reads=5", f"{JOB}:11", "reads is an int; give a Source(...) or the name of a table"),
    (JOB, 'reads="bronze.orders"', 'reads="gold.days"', f"{JOB}:7", "a cycle of tables: gold.days <- silver.orders <- gold.days"),
    (JOB, 'reads="bronze.orders"', 'reads="silver.orders"', f"{JOB}:11", "a cycle of tables: silver.orders <- silver.orders"),
    (JOB, '"bronze.products"},', '"bronze.product"},', f"{JOB}:11", "no flow writes bronze.product; did you mean bronze.products?"),
    (JOB, '{"products": ', '{"product": ', f"{JOB}:11", "snapshot product is not a parameter of refine; did you mean products?"),
    (JOB, '{"products": ', '{"product": ', f"{JOB}:11", "refine takes products, and no snapshot has that name"),
    (JOB, '{"products": "bronze.products"}', '{"products": 5}', f"{JOB}:11", "snapshot products is an int"),
    (JOB, '{"products": "bronze.products"}', '["products"]', f"{JOB}:11", "snapshots is a list"),
    (JOB, "transform=shop.refine", "transform=None", f"{JOB}:11", "are for a transform, and there is none"),
    (JOB, "transform=shop.refine", 'transform="refine"', f"{JOB}:11", "transform is a str, not a function"),
    (JOB, "transform=shop.refine", "transform=lambda: 1", f"{JOB}:11", "has no first parameter"),
    (JOB, "transform=shop.refine", "transform=lambda *frames: 1", f"{JOB}:11", "takes *frames; name each parameter"),
    (JOB, SILVER, 'writes=Upsert("silver.orders", keys=["id"], newest_by=[None])', f"{JOB}:11", "newest_by holds a NoneType"),
    (JOB, ' recompute_by=["day"],', "", f"{JOB}:7", 'the flow needs recompute_by=["day"]'),
    (JOB, 'recompute_by=["day"]', 'recompute_by=["id"]', f"{JOB}:7", "must be the same columns, not id and day"),
    (JOB, GOLD, 'writes=Append("gold.days")', f"{JOB}:7", "recompute_by goes with Replace, not with Append"),
    (JOB, "transform=shop.totals, ", "", f"{JOB}:7", "recompute_by needs a transform"),
    (JOB, 'reads="silver.orders"', 'reads=Source("orders", schema="day DATE")', f"{JOB}:7", "recompute_by needs a table"),
    (JOB, 'schema="id BIGINT"', 'schema=""', f"{JOB}:8", "must be its columns as text"),
    # expectations
    (JOB, 'expects="orders"', 'expects="order"', f"{JOB}:11", "no expectations/shop/order.yml; did you mean orders?"),
    (JOB, '        expects="orders",\n', "", RULES, "no flow of jobs/shop.py expects orders"),
    (JOB, 'expects="orders"', 'expects="../orders"', f"{JOB}:11", "expects names a file"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "where", "words"), EDITS)
def test_an_edit_that_breaks_the_suite_is_told_with_its_place(refused, file, old, new, where, words):
    lines = refused(edit=(file, old, new))
    assert any(line.startswith(where) and words in line for line in lines), "\n".join(lines)
    assert not any("Traceback" in line or line.endswith(".") for line in lines)


# Files that are added (None: taken away); where the problem is told; words of it.
FILES = [
    ({"conf/base/shopp.yml": "owner: x\n"}, "conf/base/shopp.yml", "there is no job jobs/shopp.py; did you mean shop?"),
    ({"conf/base/shop.yaml": "owner: x\n"}, "conf/base/shop.yaml", "rename it to shop.yml"),
    ({"conf/local/shopp.yml": "owner: x\n"}, "conf/local/shopp.yml", "did you mean shop?"),
    ({CONF: None}, CONF, "say under sources where orders, products of jobs/shop.py is"),
    ({CONF: "- a\n- b\n"}, f"{CONF}:1", "must be a mapping"),
    ({CONF: "sources: [a]\n"}, f"{CONF}:1", "sources: must be a mapping"),
    ({CONF: "sources: {orders: 5}\n"}, f"{CONF}:1", "sources.orders: must be a mapping"),
    ({CONF: "[" * 20_000}, f"{CONF}:1", "nested more than"),
    ({ENV: "a: &a [*a]\n"}, f"{ENV}:1", "aliases are not allowed"),
    ({ENV: "connections: {shop: {uri: 5}}\n"}, f"{ENV}:1", "connections.shop.uri: must be text"),
    ({ENV: "connections: {api: {auth: {}}}\n"}, f"{ENV}:1", "connections.api.auth: is not valid"),
    ({"conf/local/spark.conf": "\ufeffspark.a 1\nb 2\n"}, "conf/local/spark.conf:2", "is not a Spark setting"),
    ({ENV: "metrics: {port: 70000}\nchannels: {ops: {url: x}}\n"}, f"{ENV}:1", "metrics.port: must be at most 65535"),
    ({"jobs/Shop2.py": ""}, "jobs/Shop2.py", "a job cannot have the name Shop2"),
    ({"jobs/environment.py": ""}, "jobs/environment.py", "a job cannot have the name environment"),
    ({"jobs/late.py": OTHER.format("bronze.orders")}, "jobs/shop.py:8", "is written by flow x of job late already"),
    ({"expectations/shop/orders.json": "{}"}, "expectations/shop/orders.yml", "orders.json is there too"),
    ({"expectations/shop/spare.json": "{}"}, "expectations/shop/spare.json", "no flow of jobs/shop.py expects spare"),
    ({"expectations/shop/orders.yaml": ""}, "expectations/shop/orders.yaml", "rename it to orders.yml"),
    ({"expectations/shpo/orders.yml": ""}, "expectations/shpo", "no job jobs/shpo.py; did you mean shop?"),
    ({"expectations/orders.yml": ""}, "expectations/orders.yml", "belongs to no job"),
    ({"conf/local/spark.conf": "spark.a 1\nspark.a 2\n"}, "conf/local/spark.conf:2", "spark.a is there twice"),
    ({"conf/local/spark.conf": "# x\nexecutor.cores=2\n"}, "conf/local/spark.conf:2", "is not a Spark setting"),
    ({"jobs/__init__.py": "raise KeyError('x')\n"}, "jobs/__init__.py:1", "KeyError"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "where", "words"), FILES)
def test_a_file_that_does_not_belong_or_cannot_be_read_is_told(refused, files, where, words):
    lines = refused(files)
    assert any(line.startswith(where) and words in line for line in lines), "\n".join(lines)


@pytest.mark.parametrize("file", [CONF, ENV])
def test_a_file_that_cannot_be_read_is_not_also_blamed_for_what_it_may_hold(refused, file):
    lines = refused({file: "a: [1\n"})
    assert [line.partition(":")[0] for line in lines] == [file]


def test_a_table_of_another_job_may_be_read(suite):
    loaded = suite({"jobs/late.py": OTHER.format("gold.copy")})
    assert list(loaded.jobs) == ["late", "shop"]


@pytest.mark.parametrize("target", ['Upsert("silver.orders", keys=["id"], delete_when="gone")', None])
def test_a_reader_of_a_table_that_can_lose_rows_must_say_what_a_delete_does(refused, suite, target):
    table = "silver.orders" if target else "gold.days"
    reader = 'from microbatch import Flow, Job, Upsert\nJOB = Job(Flow("x", reads="{}", writes=Upsert("a.b", keys="id"{})))\n'
    edit = (JOB, SILVER, f"writes={target}") if target else None
    lines = refused({"jobs/late.py": reader.format(table, "")}, edit=edit)
    assert len(lines) == 1
    assert lines[0].startswith(f"jobs/late.py:2: flow x: {table} can lose rows")
    says = reader.format(table, ", delete_when=\"_op = 'delete'\"")
    assert suite({"jobs/late.py": says}, edit=edit).job("late").flow("x")


def test_mistakes_in_conf_jobs_and_transforms_are_told_together(refused):
    lines = refused(
        {
            "jobs/other.py": "from microbatch import Flw\n",
            "conf/base/extra.yml": "x: 1\n",
            "conf/local/shop.yml": "retry: {attempt: 2}\nschedule: {sla: 3}\n",
        },
        edit=(JOB, 'keys="id"', "keys=[]"),
    )
    places = [line.split(": ")[0] for line in lines]
    assert sorted(places) == [
        "conf/base/extra.yml",
        "conf/local/shop.yml:1",
        "conf/local/shop.yml:2",
        "jobs/other.py:1",
        "jobs/shop.py:9",
    ]


def test_a_mistake_in_a_source_or_an_alert_hides_no_unknown_name_beside_it(refused):
    conf = """sources:
  orders: {kind: rest, connection: nope, recrods: items}
  products: {kind: files, format: csv, path: "${landing}/products"}
alerts: [{when: never, notify: [nochan]}]
"""
    lines = refused({CONF: conf})
    told = ("orders.recrods: there is no such key", "has no nope under connections", "when: ", "has no nochan under")
    assert [sum(words in line for line in lines) for words in told] == [1, 1, 1, 1], lines


def test_each_circle_of_tables_is_told(refused):
    job = """from microbatch import Append, Flow, Job

JOB = Job(
    Flow("a", reads="x.b", writes=Append("x.a")),
    Flow("b", reads="x.a", writes=Append("x.b")),
    Flow("c", reads="x.c", writes=Append("x.c")),
    Flow("d", reads="x.c", writes=Append("x.d")),
)
"""
    told = [line for line in refused({"jobs/circles.py": job}) if "a cycle of tables" in line]
    assert [line.partition("tables: ")[2] for line in told] == ["x.a <- x.b <- x.a", "x.c <- x.c"]


@pytest.mark.parametrize("file", ["conf/base/notes.txt", "conf/local/spark.conf"])
def test_a_file_that_gives_no_bytes_is_named(suite, refused, tmp_path, file):
    suite({file: ""})
    (tmp_path / "suite" / file).unlink()
    (tmp_path / "suite" / file).symlink_to("/proc/self/mem")  # a file that even root cannot read from its beginning
    assert refused() == [f"{file}: cannot be read: Input/output error"]


def test_a_folder_that_may_not_be_looked_into_is_named(refused, monkeypatch, tmp_path):
    from microbatch.config import files

    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "suite" / "conf"))

    monkeypatch.setattr(files, "environment_problem", closed)
    assert refused() == ["conf: cannot be read: Permission denied"]


def test_settings_of_spark_that_are_not_utf_8_are_refused_not_changed(suite, refused, tmp_path):
    suite({"conf/local/spark.conf": ""})
    (tmp_path / "suite" / "conf/local/spark.conf").write_bytes("spark.a \u00e4\n".encode("latin-1"))
    assert refused() == ["conf/local/spark.conf: is not UTF-8; save it as UTF-8"]


def test_a_root_that_another_environment_uses_and_a_name_that_is_no_utf_8_are_no_mistake(suite, tmp_path):
    suite({ENV: "storage: {report_archive: old}\nchannels: {ops: {url: ''}}\n"})
    (tmp_path / "suite" / "transforms" / b"\xe4.txt".decode(errors="surrogateescape")).touch()
    assert suite()


def test_a_folder_that_is_no_suite_is_called_so(tmp_path):
    from microbatch.config import load
    from microbatch.errors import ConfigError

    with pytest.raises(ConfigError, match="name the folder of a suite with --suite"):
        load(tmp_path)
