"""The core of the benchmarks, without Spark: turns, ratios, when not to believe them, and the page that is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deltalake import write_deltalake

from benchmarks import report, tables
from benchmarks.goals import GOALS
from benchmarks.orders import COLUMNS, Pool, consecutive, orders
from benchmarks.timing import Claim, Finding, NotTheSame, Sample, interleave, ratio, same


def finding(*claims: Claim, twice: float | None = 1.0) -> Finding:
    turns = {"S": [Sample(1.0, 2.0, {"Spark jobs": 3})], "B1": [Sample(2.0, 4.0, {"Spark jobs": 4})]}
    return Finding(claims, turns, twice, 1, {"rows": 1_000}, "a note")


def test_subjects_take_turns_and_the_first_round_does_not_count():
    order: list[tuple[str, int]] = []

    def subject(name: str, wall: float):
        return lambda number: order.append((name, number)) or Sample(wall + number)

    turns = interleave({"S": subject("S", 1), "B1": subject("B1", 2)}, rounds=3)
    assert order == [("B1", 0), ("S", 0), ("S", 1), ("B1", 1), ("S", 2), ("B1", 2)]
    assert [sample.wall for sample in turns["S"]] == [2, 3]
    assert ratio(turns, "S", "B1") == pytest.approx(2.5 / 3.5)


def test_a_ratio_of_different_tables_is_void():
    same({"S": (3, "a"), "B1": (3, "a")})
    with pytest.raises(NotTheSame, match="B1"):
        same({"S": (3, "a"), "B1": (3, "b")})


def test_a_goal_is_met_where_each_of_its_claims_holds():
    assert finding(Claim("S/B1", 0.8, at_most=0.85), Claim("for the reader", 9.0)).met
    assert not finding(Claim("S/B1", 0.8, at_most=0.85), Claim("efficiency", 0.8, at_least=0.9)).met


def test_what_a_noisy_machine_says_is_not_reported():
    found = report.result(finding(Claim("S/B1", 0.8, at_most=0.85), twice=1.2), "full")
    row = next(line for line in report.table({"warm_append": found}) if "not quiet" in line)
    assert "0.8 " not in row and "yes" not in row
    believed = report.result(finding(Claim("S/B1", 0.8, at_most=0.85)), "full")
    assert any("S/B1 0.8 (at most 0.85)" in line for line in report.table({"warm_append": believed}))


def test_the_page_has_a_row_for_each_goal_measured_or_not():
    found = report.result(finding(Claim("S/B1", 0.9, at_most=0.85)), "full")
    page = report.page({"warm_append": found})
    assert all(goal.asks in page for goal in GOALS.values())
    assert page.count("not measured yet") == len(GOALS) - 1
    assert "**no**" in page


def test_the_hash_of_a_table_depends_on_its_rows_and_not_on_its_files(tmp_path: Path):
    keys = consecutive(0, 500)
    rows = orders(keys, 1)
    write_deltalake(str(tmp_path / "one"), rows)
    for start in (300, 0):
        write_deltalake(str(tmp_path / "two"), rows.slice(start, 300 if start == 0 else 200), mode="append")
    write_deltalake(str(tmp_path / "other"), orders(keys, 2))
    one, two, other = (tables.content(tmp_path / name, ["order_id"], COLUMNS) for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_the_same_number_gives_the_same_file(tmp_path: Path):
    first = Pool(tmp_path / "a", "x").file(3, np.arange(100, dtype=np.int64), bad=1)
    second = Pool(tmp_path / "b", "x").file(3, np.arange(100, dtype=np.int64), bad=1)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mtime == second.stat().st_mtime
    assert first.read_text().count('"amount":0.00') == 1
