"""`quarantine list` and `show`: dead letters, counted and read, without a JVM."""

from __future__ import annotations

import pytest

from microbatch.commands.quarantine import laid_out


@pytest.fixture
def letters(house):
    """Three letters of two flows, kinds and statuses."""
    house.letter("aaaa1111000000000000", '{"order_id":1,"amount":1.50}', hours_ago=1)
    house.letter("aaaa2222000000000000", '{"order_id":2,"amount":-3}', hours_ago=2, batch_id=7, status="replayed")
    parse = {"expectation": "parse", "column": "", "severity": "critical", "message": "not a JSON object"}
    house.letter("bbbb3333000000000000", "{oops", hours_ago=3, flow="ingest", kind="parse", reasons=[parse])
    return house


def test_where_nothing_is_it_says_so_and_exits_0(house):
    for command in ("list", "show"):
        called = house.call("quarantine", command, "orders")
        assert (called.exit_code, called.stdout) == (0, "orders: nothing is in quarantine\n")


def test_list_counts_by_reason_first_and_then_shows_the_newest(letters):
    out = letters.call("quarantine", "list", "orders").stdout
    assert out.index("expect_column_values_to_be_between") < out.index("aaaa11110000")
    assert out.index("aaaa11110000") < out.index("aaaa22220000") < out.index("bbbb33330000")
    assert "3 in all" in out


def test_list_shows_as_many_as_it_is_told_and_says_how_many_there_are(letters):
    out = letters.call("quarantine", "list", "orders", "--limit", "1").stdout
    assert "aaaa11110000" in out
    assert "aaaa22220000" not in out
    assert "the newest 1 of 3 letters" in out


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        (["--flow", "ingest"], ["bbbb3333"]),
        (["--batch", "7"], ["aaaa2222"]),
        (["--where", "status = 'open' AND kind = 'row'"], ["aaaa1111"]),
        (["--where", "payload LIKE '%oops%' -- a comment"], ["bbbb3333"]),
        (["--where", "reasons[1]['column'] = 'amount'"], ["aaaa1111", "aaaa2222"]),
        (["--flow", "refine", "--where", "batch_id = 0"], ["aaaa1111"]),
    ],
)
def test_flow_batch_and_sql_choose_letters(letters, chosen, ids):
    out = letters.call("quarantine", "list", "orders", *chosen).stdout
    assert [id_ for id_ in ("aaaa1111", "aaaa2222", "bbbb3333") if id_ in out] == ids


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("knd = 'row'", "knd"),
        ("(kind", "SQL error"),
        ("batch_id = 'x'", "Cannot cast"),
        ("true) OR (true", "SQL error"),
        ("true; DROP TABLE letters", "SQL error"),
    ],
)
def test_wrong_sql_is_exit_code_2_in_one_line(letters, sql, says):
    called = letters.call("quarantine", "list", "orders", "--where", sql)
    assert called.exit_code == 2
    assert called.stdout == ""
    assert len(called.stderr.splitlines()) == 1
    assert called.stderr.startswith("microbatch: --where: ")
    assert says in called.stderr


def test_letters_of_another_job_are_not_shown(letters):
    letters.letter("cccc", job="another")
    assert "cccc" not in letters.call("quarantine", "list", "orders").stdout
    assert letters.call("quarantine", "show", "orders", "cccc").exit_code == 2


def test_an_unknown_flow_is_exit_code_2_with_the_nearest_name(letters):
    called = letters.call("quarantine", "list", "orders", "--flow", "refin")
    assert (called.exit_code, "did you mean refine?" in called.stderr) == (2, True)


def test_show_lays_out_the_payload_and_gives_every_reason(letters):
    out = letters.call("quarantine", "show", "orders", "aaaa1").stdout
    assert "letter    aaaa1111000000000000" in out
    assert "orders.refine, batch 0, run run-1" in out
    assert "critical: amount must be greater than 0, found -1.00" in out
    assert '    "amount": 1.50' in out


def test_show_takes_a_text_that_did_not_parse_as_it_is(letters):
    assert "\n  {oops\n" in letters.call("quarantine", "show", "orders", "BBBB").stdout


def test_show_without_ids_gives_those_that_are_chosen(letters):
    out = letters.call("quarantine", "show", "orders", "--batch", "7").stdout
    assert [line for line in out.splitlines() if line.startswith("letter")] == ["letter    aaaa2222000000000000"]


def test_ids_that_are_nobodys_or_several_letters_are_all_told_at_once(letters):
    called = letters.call("quarantine", "show", "orders", "aaaa", "ffff", "x'y")
    assert called.exit_code == 2
    said = called.stderr.splitlines()
    assert len(said) == 3
    assert "several letters begin with aaaa" in said[0]
    assert "no letter begins with ffff" in said[1]
    assert "is not the id of a letter" in said[2]


def test_a_payload_whose_key_is_doubled_is_not_laid_out_because_one_would_vanish():
    assert laid_out('{"a":1,"a":2}') == '{"a":1,"a":2}'


@pytest.mark.parametrize("number", ["1.50", "1e3", "-0.0", "12345678901234567890", "0.1000000000000000055"])
def test_a_number_keeps_its_digits(number):
    assert laid_out(f'{{"a":{number}}}') == f'{{\n  "a": {number}\n}}'
