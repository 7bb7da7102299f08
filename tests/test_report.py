"""The report of a real run of `daily_sales`, in a real browser, held against the tables that the run wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from microbatch.commands import report
from microbatch.testing import Bench
from tests.browser import opened
from tests.daily_sales import daily_sales

SCRIPT = "<script>document.title = 'broken in'</script>"


@pytest.mark.slow
def test_the_report_of_a_run_says_what_its_tables_hold(bench: Bench, capsys):
    daily_sales(bench)
    bench.land("order_lines", f'{{"household_id": "{SCRIPT}"}}')
    bench.run("daily_sales")
    suite = bench.suite()
    capsys.readouterr()
    assert report.execute(suite, [suite.job("daily_sales")], "daily_sales") == 0
    path = Path(capsys.readouterr().out.strip())
    with opened(path) as (page, said, asked):
        assert (said, asked) == ([], [])
        shown = {
            each.get_attribute("data-figure"): int(each.get_attribute("value")) for each in page.locator("data").all()
        }
        assert page.title() == "daily_sales \u00b7 microbatch report"
        assert page.locator("pre", has_text="<script>document.title").count() == 1
        revenue = page.locator("#lineage-daily_sales tr", has_text="revenue").first.text_content()
        graph = page.locator("svg.graph").first.text_content()
    tables = {
        "ingest_order_lines": "bronze.order_lines",
        "ingest_products": "bronze.products",
        "refine_sales": "silver.sales",
        "total_daily_sales": "gold.daily_sales",
    }
    letters = [letter.asDict() for letter in bench.quarantine("daily_sales").collect()]
    for flow, table in tables.items():
        assert shown[f"daily_sales.{flow}.rows_written"] == bench.read(table).count() > 0
        mine = sum(letter["flow"] == flow for letter in letters)
        assert shown[f"daily_sales.{flow}.rows_quarantined"] == mine
        assert flow in graph and table in graph
    assert shown["daily_sales.all.open_quarantine"] == len(letters) > 1
    reasons = Counter((r["expectation"], r["column"]) for letter in letters for r in letter["reasons"])
    for (rule, column), count in reasons.items():
        assert sum(value for name, value in shown.items() if name.endswith(f".letters.{rule}.{column}")) == count
    assert "order_lines.sales_value" in revenue
