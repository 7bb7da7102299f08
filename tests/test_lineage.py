"""Columns followed through the plans of transforms, over empty frames."""

from __future__ import annotations

import pytest
from pyspark.sql import Window
from pyspark.sql import functions as F

from microbatch.job import Append, Flow, Replace, Source, Upsert
from microbatch.lineage import of_frame, trace


@pytest.fixture
def a(rows):
    return rows("k INT, x INT, y STRING").alias("a")


@pytest.fixture
def b(rows):
    return rows("k INT, z INT").alias("b")


def of(frame) -> dict[str, str]:
    """Each column as `how: columns`."""
    found = of_frame(frame, {"a": "A", "b": "B"})
    return {
        name: f"{how}: {' '.join(f'{i}.{c}' for i, c in columns)}".strip() for name, (how, columns) in found.items()
    }


def test_a_column_is_as_it_is_renamed_computed_or_constant(a):
    frame = a.select("k", F.col("x").alias("w"), (F.col("x") + F.length("y")).alias("s"), F.lit(1).alias("one"))
    assert of(frame) == {"k": "as it is: A.k", "w": "renamed: A.x", "s": "computed: A.x A.y", "one": "constant:"}


def test_steps_add_up_and_the_strongest_names_how(a):
    summed = a.withColumn("d", F.col("x") * 2).groupBy("k").agg(F.sum("d").alias("s"), F.count(F.lit(1)).alias("n"))
    frame = summed.withColumn("r", F.col("s").cast("string")).withColumnRenamed("r", "t")
    assert of(frame) == {
        "k": "as it is: A.k",
        "s": "aggregated: A.x",
        "n": "aggregated:",
        "t": "aggregated: A.x",
    }


def test_a_join_keeps_apart_what_is_from_where(a, b):
    frame = a.join(b, "k", "left").join(a.select("k").withColumnRenamed("k", "x"), "x", "left_semi")
    assert of(frame) == {"k": "as it is: A.k", "x": "as it is: A.x", "y": "as it is: A.y", "z": "as it is: B.z"}


def test_a_frame_joined_with_itself_is_followed_on_both_sides(a):
    joined = a.alias("l").join(a.alias("r"), F.col("l.k") == F.col("r.x"))
    assert of(joined.select(F.col("l.y"), F.col("r.x").alias("other"))) == {
        "y": "as it is: A.y",
        "other": "renamed: A.x",
    }


def test_windows_explodes_unions_cubes_and_pivots_are_followed(a, b):
    assert of(a.select(F.max("x").over(Window.partitionBy("k")).alias("m"))) == {"m": "aggregated: A.x A.k"}
    assert of(a.select(F.explode(F.array("x", "k")).alias("e"))) == {"e": "computed: A.x A.k"}
    assert of(a.select("k").union(b.select("z"))) == {"k": "as it is: A.k B.z"}
    assert of(a.cube("k").agg(F.sum("x").alias("s"))) == {"k": "as it is: A.k", "s": "aggregated: A.x"}
    assert of(a.groupBy("k").pivot("y", ["p"]).sum("x"))["p"] == "aggregated: A.y A.x"


def test_a_named_query_in_sql_is_followed(a, spark):
    frame = spark.sql("WITH c AS (SELECT k + 1 AS n FROM {a}) SELECT l.n, r.n AS m FROM c l JOIN c r ON l.n = r.n", a=a)
    assert of(frame) == {"n": "computed: A.k", "m": "computed: A.k"}


def test_columns_are_followed_over_the_tables_of_a_job(rows, spark):
    order, product = "order_id INT, product_id INT, cents BIGINT, _day DATE", "product_id INT, name STRING"

    def refine(orders, products):
        priced = orders.withColumn("euros", F.col("cents") / 100).drop("cents")
        return priced.join(products.withColumnRenamed("name", "product"), "product_id", "left")

    def totals(orders):
        return orders.groupBy("_day").agg(F.sum("euros").alias("revenue"))

    ingest = Flow("ingest", Source("orders", order), Append("bronze.orders"))
    refined = Flow(
        "refine", "bronze.orders", Upsert("silver.orders", keys="order_id"), refine, None, {"products": "b.products"}
    )
    total = Flow("total", "silver.orders", Replace("gold.days", keys="_day"), totals, recompute_by="_day")
    shapes = [rows(order).schema]
    shapes.append(refine(rows(order), rows(product)).schema)
    shapes.append(totals(rows(shapes[1].simpleString()[7:-1].replace(":", " "))).schema)
    flows = [(ingest, shapes[0], shapes[0]), (refined, shapes[0], shapes[1]), (total, shapes[1], shapes[2])]
    traced = {(t.table, t.column): t for t in trace(spark, flows, {"b.products": rows(product).schema})}
    assert traced["gold.days", "revenue"].inputs == (("silver.orders", "euros"),)
    assert traced["gold.days", "revenue"].sources == (("orders", "cents"),)
    assert traced["gold.days", "_day"].sources == (("orders", "_day"),)
    assert traced["silver.orders", "product"].sources == (("b.products", "name"),)
