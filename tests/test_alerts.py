"""Alerts over real batches; the rest of them is held without Spark in tests/commands/test_alerts.py."""

from __future__ import annotations

import pytest

from microbatch.sink import ops
from microbatch.testing import Bench
from tests.orders import ORDERS_CONF, order
from tests.webhook import serving

ALERTS = """
alerts:
  - {when: "rows_quarantined > 0", severity: critical, notify: [ops]}
  - {when: "quarantined_ratio > 0.4", notify: [ops]}
  - {when: "rows_read < 2", severity: info, notify: [ops]}
"""


@pytest.mark.slow
def test_bad_rows_are_told_at_their_batch_once_over_several_runs_and_a_clean_run_ends_it(orders: Bench):
    with serving() as hook:
        orders.write("conf/base/environment.yml", f"channels: {{ops: {{url: '{hook.url}'}}}}\n")
        orders.write("conf/base/orders.yml", ORDERS_CONF + ALERTS)
        for number in range(3):
            orders.land("orders", order(10 * number), order(10 * number + 1, amount="-1.00"))
            orders.run("orders")
        assert [message["title"] for message in hook.received] == [
            "critical: orders: rows_quarantined > 0",
            "warning: orders: quarantined_ratio > 0.4",
        ]
        orders.land("orders", order(99))
        orders.run("orders")
        assert [message["title"] for message in hook.received[2:]] == [
            "over: orders: rows_quarantined > 0",
            "over: orders: quarantined_ratio > 0.4",
        ]
        assert orders.run("orders") == []
        assert [message["title"] for message in hook.received[4:]] == ["info: orders: rows_read < 2"]
        assert "rows_read is 0" in hook.received[4]["message"]
    told_by = [(change["alert"], change["run_id"]) for change in ops.rows(orders.storage["warehouse"], "alerts")]
    assert len(told_by) == len(set(told_by)) == 5
