"""What conf may say of a table of PostgreSQL."""

from __future__ import annotations

import pytest

CONF = "conf/base/shop.yml"
FILES = 'orders: {kind: files, format: json, path: "${landing}/orders"}'
SHOP = {"conf/base/environment.yml": 'connections: {shop: {uri: "postgresql://db/shop"}}\nchannels: {ops: {url: ""}}\n'}
BY_CURSOR = "connection: shop, table: public.orders, cursor: at"
CHANGES = "connection: shop, table: orders, mode: changes"


def edited(said: str) -> tuple[str, str, str]:
    return (CONF, FILES, f"orders: {{kind: postgres, {said}}}")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("connection: shop, table: orders", "orders.cursor: is needed here: a column that grows"),
        ("table: orders, cursor: at", "orders.connection: is needed here"),
        ("connection: shopp, table: orders, cursor: at", "has no shopp under connections; did you mean shop?"),
        (f"{BY_CURSOR}, slot: a", "orders.slot: says nothing in mode cursor"),
        (f"{CHANGES}, settle_s: 5", "orders.settle_s: says nothing in mode changes"),
        (f"{CHANGES}, slot: Shop-1", "of lower case letters, digits and _"),
        (f"{BY_CURSOR}, fetchers: 0", "orders.fetchers: must be at least 1"),
        (f"{BY_CURSOR}, curser: at", "there is no such key; did you mean cursor?"),
        (f"{BY_CURSOR}, unknown_fields: rescue", "a table is read by the columns of its schema"),
        ("connection: shop, table: a.b.c, cursor: at", "must be table or schema.table"),
        ("connection: shop, table: 'a\"; drop', cursor: at", "without quotes"),
        (f"connection: shop, table: {'a' * 64}, cursor: at", "at most 63 bytes"),
    ],
)
def test_a_mistake_is_told_where_it_stands(refused, said: str, problem: str):
    (told,) = refused(files=SHOP, edit=edited(said))
    assert told.startswith(f"{CONF}:3") and problem in told


def test_a_key_is_one_column_or_a_list(suite):
    for said, key in (("key: id", ("id",)), ("key: [id, line]", ("id", "line"))):
        conf = suite(files=SHOP, edit=edited(f"{BY_CURSOR}, {said}")).job("shop").conf.sources["orders"]
        assert conf.key == key


def test_changes_add_what_was_done_where_and_when(suite):
    conf = suite(files=SHOP, edit=edited(f"{CHANGES}, metadata: true")).job("shop").conf.sources["orders"]
    assert conf.adds() == ("_op STRING", "_lsn BIGINT", "_committed_at TIMESTAMP", "_table STRING")
    assert "shop" in conf.place(suite(files=SHOP).root) and "postgresql" not in conf.place(suite(files=SHOP).root)
