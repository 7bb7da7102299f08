"""What a transform may not do is refused by name and place before a batch runs, and so is a name that is no column."""

from __future__ import annotations

import pytest
from pyspark.sql.types import StructType

from microbatch.errors import ConfigError
from microbatch.shape import Shape, shapes
from microbatch.testing import Bench

JOB = """
from microbatch import Append, Flow, History, Job, Replace, Snapshot, Source, Upsert
from transforms import shop

ORDERS = Source("orders", schema="{schema}")
SHOPS = Source("shops", schema="shop BIGINT, name STRING")

JOB = Job(
    Flow("ingest", reads=ORDERS, writes=Append("bronze.orders")),
    Flow("ingest_shops", reads=SHOPS, writes=Append("bronze.shops")),
    Flow("refine", reads="bronze.orders", {snapshots} transform=shop.refine, writes={writes}),
    {more}
)
"""
CONF = """
sources:
  orders: {kind: files, format: json, path: "${landing}/orders"}
  shops: {kind: files, format: json, path: "${landing}/shops"}
"""
TRANSFORM = '''
"""Shop."""

from pyspark.sql import Window
from pyspark.sql import functions as F


def refine(orders{parameter}):
    """Refine."""
    {body}
'''
SCHEMA = "order_id BIGINT, shop BIGINT, amount DECIMAL(10,2), tags ARRAY<STRING>, ordered_at TIMESTAMP"
TOTAL = """
    Flow("total", reads="bronze.orders", recompute_by="{by}", transform=shop.{transform},
         writes=Replace("gold.totals", keys="{by}")),
"""
ADDING = """


def total(orders):
    \"\"\"Total.\"\"\"
    return orders.where("amount > 0").groupBy("shop").agg(F.sum("amount").alias("sum"))"""
OTHER = """
from microbatch import Append, Flow, Job, Source

JOB = Job(Flow("take", reads=Source("taken", schema="a INT"), writes=Append("bronze.taken")))
"""
UPSERT = 'Upsert("silver.orders", keys=["order_id"], newest_by="ordered_at")'


def declare(
    bench: Bench, body: str, *, snapshot: bool = False, schema: str = SCHEMA, writes: str = UPSERT, more: str = ""
) -> None:
    """Write a suite whose flow `refine` has this body of a transform."""
    snapshots = 'snapshots={"shops": "bronze.shops"},' if snapshot else ""
    bench.write("jobs/shop.py", JOB.format(schema=schema, snapshots=snapshots, writes=writes, more=more))
    bench.write("transforms/shop.py", TRANSFORM.format(parameter=", shops" if snapshot else "", body=body))
    bench.write("conf/base/shop.yml", CONF)


def make(bench: Bench, schema: StructType) -> None:
    """Make the table `silver.orders`, empty."""
    from deltalake import DeltaTable, Schema

    DeltaTable.create(f"{bench.storage['warehouse']}/silver/orders", Schema.from_json(schema.json()))


def shape(bench: Bench, flow: str = "refine") -> Shape:
    return shapes(bench.spark, bench.suite(), ("shop",))["shop", flow]


def refusals(bench: Bench) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        shape(bench)
    return str(refused.value).splitlines()


NOT_REPEATABLE = {
    "rand": ('orders.withColumn("x", F.rand())', "rand()"),
    "rand with a seed": ('orders.withColumn("x", F.rand(7))', "rand()"),
    "randn": ('orders.withColumn("x", F.randn())', "randn()"),
    "uuid": ('orders.withColumn("x", F.expr("uuid()"))', "uuid()"),
    "shuffle": ('orders.withColumn("x", F.shuffle("tags"))', "shuffle()"),
    "current_timestamp": ('orders.withColumn("x", F.current_timestamp())', "current_timestamp()"),
    "current_date": ('orders.withColumn("x", F.current_date())', "current_date()"),
    "now": ('orders.withColumn("x", F.now())', "now()"),
    "localtimestamp": ('orders.withColumn("x", F.localtimestamp())', "localtimestamp()"),
    "unix_timestamp of now": ('orders.withColumn("x", F.unix_timestamp())', "current_timestamp()"),
    "an id by partition": ('orders.withColumn("x", F.monotonically_increasing_id())', "monotonically_increasing_id()"),
    "the partition": ('orders.withColumn("x", F.spark_partition_id())', "spark_partition_id()"),
    "the file": ('orders.withColumn("x", F.input_file_name())', "input_file_name()"),
    "inside another call": ('orders.withColumn("x", F.when(F.col("shop") > F.rand(), 1))', "rand()"),
    "a UDF that says so": (
        'orders.withColumn("x", F.udf(lambda shop: shop, "bigint").asNondeterministic()("shop"))',
        "a nondeterministic UDF",
    ),
    "in SQL": ('orders.selectExpr("*", "date_diff(current_date(), ordered_at) AS age")', "current_date()"),
}
NOT_ROW_FOR_ROW = {
    "filter": ('orders.filter("amount > 0")', "drops rows (filter, where or dropna)"),
    "dropna": ("orders.dropna()", "drops rows (filter, where or dropna)"),
    "explode": ('orders.withColumn("tag", F.explode("tags"))', "multiplies rows (explode)"),
    "explode_outer": ('orders.withColumn("tag", F.explode_outer("tags"))', "multiplies rows (explode)"),
    "distinct": ("orders.distinct()", "merges rows (distinct or dropDuplicates)"),
    "dropDuplicates": ('orders.dropDuplicates(["order_id"])', "merges rows (distinct or dropDuplicates)"),
    "groupBy": ('orders.groupBy("order_id").agg(F.first("_row").alias("_row"))', "merges rows (groupBy"),
    "an aggregate of all": (
        'orders.agg(F.max("_row").alias("_row"), F.max("order_id").alias("order_id"))',
        "merges rows (groupBy",
    ),
    "cube": ('orders.cube("order_id").agg(F.max("_row").alias("_row"))', "multiplies rows (cube or rollup)"),
    "union": ("orders.union(orders)", "multiplies rows (union)"),
    "intersect": ("orders.intersect(orders)", "drops rows (intersect)"),
    "subtract": ("orders.subtract(orders)", "drops rows (exceptAll or subtract)"),
    "limit": ("orders.limit(5)", "drops rows (limit)"),
    "offset": ("orders.offset(5)", "drops rows (offset)"),
    "sample": ("orders.sample(0.5, 7)", "drops rows (sample)"),
    "watermark": ('orders.withWatermark("ordered_at", "1 hour")', "keeps state (withWatermark)"),
    "itself": ('orders.join(orders.select("order_id"), "order_id", "left")', "joins the streamed input with itself"),
    "inner join": ('orders.join(shops, "shop")', "can drop rows (inner join)"),
    "cross join": ("orders.crossJoin(shops.select('name'))", "can drop rows (cross join)"),
    "semi join": ('orders.join(shops, "shop", "left_semi")', "can drop rows (left semi join)"),
    "anti join": ('orders.join(shops, "shop", "left_anti")', "can drop rows (left anti join)"),
    "full join": ('orders.join(shops, "shop", "full")', "can drop rows (full outer join)"),
    "right join": ('orders.join(shops, "shop", "right")', "can drop rows (right outer join)"),
    "the wrong side": ('shops.join(orders, "shop", "left")', "can drop rows (left outer join)"),
    "a filter behind a join": ('orders.join(shops, "shop", "left").where("name IS NOT NULL")', "drops rows (filter"),
    "map in Python": (
        "orders.mapInPandas(lambda parts: parts, orders.schema)",
        "can drop or multiply rows (mapInPandas)",
    ),
}
FINE = {
    "nothing": "orders",
    "columns added and dropped": 'orders.withColumn("cents", F.col("amount") * 100).drop("tags")',
    "columns renamed": 'orders.withColumnRenamed("shop", "store")',
    "all columns by star": 'orders.select("*", F.lit(1).alias("one"))',
    "left join": 'orders.join(shops, "shop", "left")',
    "a broadcast left join": 'orders.join(F.broadcast(shops), "shop", "left")',
    "a right join from the other side": 'shops.join(orders, "shop", "right")',
    "a filtered snapshot": 'orders.join(shops.where("name IS NOT NULL"), "shop", "left")',
    "an aggregated snapshot": 'orders.join(shops.groupBy("shop").agg(F.max("name").alias("name")), "shop", "left")',
    "a deduplicated snapshot": 'orders.join(shops.dropDuplicates(["shop"]), "shop", "left")',
    "a snapshot of two": 'orders.join(shops.union(shops).distinct().limit(9), "shop", "left")',
    "a snapshot joined with itself": 'orders.join(shops.join(shops.select("shop").distinct(), "shop"), "shop", "left")',
    "a window": 'orders.withColumn("n", F.row_number().over(Window.partitionBy("order_id").orderBy("ordered_at")))',
    "an array's own functions": 'orders.withColumn("tags", F.filter("tags", lambda tag: tag != "x"))',
    "repartition and sort": 'orders.repartition(2, "shop").sortWithinPartitions("order_id")',
}


@pytest.mark.parametrize(("body", "word"), NOT_REPEATABLE.values(), ids=NOT_REPEATABLE)
def test_what_another_attempt_would_compute_otherwise_is_refused_by_name(bench: Bench, body: str, word: str):
    declare(bench, f"return {body}")
    [line] = refusals(bench)
    assert line.startswith("jobs/shop.py flow refine: transform refine, transforms/shop.py: uses ")
    assert word in line and "take the value from the input" in line


@pytest.mark.parametrize(("body", "word"), NOT_ROW_FOR_ROW.values(), ids=NOT_ROW_FOR_ROW)
def test_what_drops_multiplies_or_merges_rows_is_refused_by_name(bench: Bench, body: str, word: str):
    declare(bench, f"return {body}", snapshot="shops" in body)
    lines = refusals(bench)
    assert any(word in line for line in lines), lines
    assert all(line.startswith("jobs/shop.py flow refine: transform refine, transforms/shop.py: ") for line in lines)


@pytest.mark.parametrize("body", FINE.values(), ids=FINE)
def test_what_keeps_each_row_is_let_through(bench: Bench, body: str):
    declare(bench, f"return {body}", snapshot="shops" in body)
    assert "order_id" in shape(bench).output.fieldNames()


def test_an_aggregate_is_fine_where_groups_are_recomputed_and_a_clock_is_not(bench: Bench):
    flow = TOTAL.format(by="shop", transform="total")
    declare(bench, f"return orders{ADDING}", more=flow)
    assert shape(bench, "total").output.simpleString() == "struct<shop:bigint,sum:decimal(20,2)>"
    declare(bench, f'return orders{ADDING}.withColumn("at", F.now())', more=flow)
    assert [line for line in refusals(bench) if "flow total" in line and "now()" in line]


@pytest.mark.parametrize(
    "body", ['orders.select("order_id", "ordered_at")', 'orders.drop("_row")'], ids=["select", "drop"]
)
def test_a_transform_that_forgets_the_input_row_is_told_how_to_keep_it(bench: Bench, body: str):
    declare(bench, f"return {body}")
    [line] = refusals(bench)
    assert "loses `_row`" in line and "let columns it does not know pass" in line


def test_a_column_that_comes_out_twice_is_named(bench: Bench):
    declare(bench, 'return orders.select("*", F.lit(1).alias("shop"))')
    assert "column shop comes out twice" in refusals(bench)[0]
    declare(bench, 'return orders.select("*", F.lit(1).alias("SHOP"))')
    assert "column SHOP, shop comes out twice" in refusals(bench)[0]


@pytest.mark.parametrize(
    ("body", "line", "word"),
    [
        ('rows = orders\n    return rows.withColumn("cents", F.col("amuont") * 100)', 11, "amuont"),
        ('return {}["missing"]', 10, "missing"),
        ("return None", 8, "it gave NoneType, not a DataFrame"),
    ],
    ids=["a column there is not", "an exception", "no frame"],
)
def test_a_transform_that_raises_is_named_with_its_file_and_line(bench: Bench, body: str, line: int, word: str):
    declare(bench, body)
    [told] = refusals(bench)
    assert told.startswith(f"jobs/shop.py flow refine: transform refine, transforms/shop.py line {line}: ")
    assert word in told


def test_a_schema_that_is_no_ddl_names_the_source(bench: Bench):
    declare(bench, "return orders", schema="order_id BIGINTEGER")
    [line] = refusals(bench)
    assert line.startswith("jobs/shop.py flow ingest: schema of source orders is not DDL: ")
    assert "BIGINTEGER" in line


@pytest.mark.parametrize(
    ("writes", "words"),
    [
        ('Upsert("silver.orders", keys="order")', "keys names order, which is no column; did you mean order_id?"),
        (
            'Upsert("silver.orders", keys="order_id", newest_by="orderd_at")',
            "newest_by names orderd_at, which is no column; did you mean ordered_at?",
        ),
        (
            'Append("silver.orders", cluster_by="shops")',
            "cluster_by names shops, which is no column; did you mean shop?",
        ),
        (
            'Append("silver.orders", partition_by="zzz")',
            "partition_by names zzz, which is no column; there are order_id, shop",
        ),
        ('Upsert("silver.orders", keys="order_id", delete_when="amonut < 0")', "delete_when: "),
        ('Upsert("silver.orders", keys="order_id", delete_when="amount <")', "delete_when: "),
        ('Upsert("silver.orders", keys="order_id", delete_when="amount")', "delete_when: "),
    ],
)
def test_a_name_that_is_no_column_is_told_with_the_nearest(bench: Bench, writes: str, words: str):
    declare(bench, "return orders", writes=writes)
    [line] = refusals(bench)
    assert line.startswith(f"jobs/shop.py flow refine: {words}")


def test_groups_by_a_column_the_input_has_not_are_told_with_the_nearest(bench: Bench):
    flow = TOTAL.format(by="shopp", transform="refine")
    declare(bench, "return orders", more=flow)
    lines = refusals(bench)
    assert "jobs/shop.py flow total: recompute_by names shopp, which is no column; did you mean shop?" in lines


def test_groups_by_a_column_that_the_transform_loses_are_refused(bench: Bench):
    flow = TOTAL.format(by="shop", transform="total")
    declare(
        bench,
        'return orders\n\n\ndef total(orders):\n    """Total."""\n    return orders.groupBy("order_id").count()',
        more=flow,
    )
    assert any("flow total: keys names shop, which is no column" in line for line in refusals(bench))


def test_a_column_with_a_name_of_the_engines_own_is_refused(bench: Bench):
    declare(bench, 'return orders.withColumn("_unparsed", F.lit(1))')
    assert "column _unparsed has a name of the engine's own; rename it" in refusals(bench)[0]
    declare(bench, 'return orders.withColumn("_MB_group", F.lit(1))')
    assert "column _MB_group has a name of the engine's own; rename it" in refusals(bench)[0]
    declare(bench, 'return orders.drop("_letter")', schema=f"{SCHEMA}, _letter STRING")
    assert "flow ingest: column _letter has a name of the engine's own; rename it" in refusals(bench)[0]


def test_a_history_adds_its_columns_itself(bench: Bench):
    history = 'History("silver.orders", keys=["order_id"], newest_by="ordered_at")'
    declare(bench, 'return orders.withColumn("Valid_To", F.lit(1))', writes=history)
    assert refusals(bench) == [
        "jobs/shop.py flow refine: column Valid_To is one that a History adds itself; rename it in the transform"
    ]


@pytest.mark.parametrize("name", ["a b", "a`b", "sum(amount)"])
def test_a_column_whose_name_delta_would_refuse_is_refused_before_a_batch_runs(bench: Bench, name: str):
    declare(bench, f'return orders.select("*", F.lit(1).alias("{name}"))')
    assert f"column {name!r} has a letter that a Delta table does not take" in refusals(bench)[0]
    declare(bench, 'return orders.select("*", F.lit(1).alias("a.b"))')
    assert "a.b" in shape(bench).output.fieldNames()


def test_the_mistakes_of_two_flows_are_told_at_once(bench: Bench):
    more = 'Flow("copy", reads="silver.orders", writes=Upsert("gold.orders", keys="order_id")),'
    again = 'Flow("again", reads="bronze.orders", writes=Upsert("gold.again", keys="oder_id")),'
    declare(bench, 'return orders.limit(1).withColumn("x", F.rand())', more=more + again)
    lines = refusals(bench)
    assert len(lines) == 3
    assert sum("flow refine" in line for line in lines) == 2
    assert sum("flow again: keys names oder_id" in line for line in lines) == 1


def test_a_mistake_in_a_job_that_is_not_asked_for_is_not_told(bench: Bench):
    declare(bench, "return orders.limit(1)")
    bench.write("jobs/other.py", OTHER)
    bench.write("conf/base/other.yml", 'sources: {taken: {kind: files, format: json, path: "${landing}/taken"}}\n')
    assert list(shapes(bench.spark, bench.suite(), ("other",))) == [("other", "take")]


def test_what_no_longer_fits_the_table_there_is_is_refused_column_by_column(bench: Bench):
    declare(bench, 'return orders.withColumn("cents", F.lit(1)).drop("tags")')
    there = StructType.fromDDL("order_id STRING, shop BIGINT, amount DECIMAL(10,2), ordered_at TIMESTAMP, old INT")
    make(bench, there)
    assert sorted(line.removeprefix("jobs/shop.py flow refine: ") for line in refusals(bench)) == [
        "column order_id is bigint, in table silver.orders it is string; cast it, or write a new table",
        "table silver.orders has column old, the flow no longer gives it; add it, if only as null",
        'table silver.orders has no column cents; drop it, or say evolve="add_columns"',
    ]


def test_a_new_column_is_fine_where_the_target_may_grow(bench: Bench):
    declare(bench, 'return orders.withColumn("cents", F.lit(1))', writes=UPSERT.replace(")", ', evolve="add_columns")'))
    make(bench, StructType.fromDDL(SCHEMA))
    assert "cents" in shape(bench).output.fieldNames()


def test_state_that_a_helper_of_the_transform_keeps_is_refused_too(bench: Bench):
    helper = '\n\ndef late(orders):\n    return orders.withWatermark("ordered_at", "1 hour")'
    declare(bench, f"return late(orders){helper}")
    assert "keeps state (withWatermark)" in refusals(bench)[0]
