"""A line of JSON is a whole, exact row, or it is kept as text with the reason why it is none."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import date, datetime
from decimal import Decimal

import pytest

SCHEMA = (
    "id BIGINT, amount DECIMAL(6,2), day DATE, at TIMESTAMP, name STRING, ratio DOUBLE, parts STRUCT<a: DECIMAL(5,2)>, "
    "big DECIMAL(38,2), days ARRAY<DATE>, inner STRUCT<at: TIMESTAMP, r: ARRAY<DOUBLE>>, sums MAP<STRING, DECIMAL(20,2)>"
)
GOOD = {
    '{"id":1,"amount":1.25,"day":"2024-02-29","at":"2024-01-01T00:00:00Z","name":"x","ratio":1.5}': {
        "amount": Decimal("1.25"),
        "day": date(2024, 2, 29),
        "at": datetime(2024, 1, 1),
        "name": "x",
        "ratio": 1.5,
    },
    '{"id":2,"amount":"1.10"}': {"amount": Decimal("1.10")},
    '{"id":3,"amount":1e2}': {"amount": Decimal("100.00")},
    '  {"id":4,"name":"\u00e9 \U0001f600 \\u0041"}  ': {"name": "\u00e9 \U0001f600 A"},
    '{"id":18,"name":"\\ud83d\\ude00 \\\\ud83d \\uD83D\\uDE00"}': {"name": "\U0001f600 \\ud83d \U0001f600"},
    '{"id":5,"zz":1}': {"id": 5},
    '{"id":6,"day":"2024-01-01T10:00:00Z"}': {"day": date(2024, 1, 1)},
    '{"id":7,"at":1704067200}': {"at": datetime(2024, 1, 1)},
    '{"id":8,"ratio":"Infinity"}': {"ratio": float("inf")},
    '{"id":9,"parts":{"a":1.5}}': {"id": 9},
    '{"id":9223372036854775807}': {"id": 9223372036854775807},
    '{"id":10,"at": 1704067200 ,"name":"1704067200"}': {"at": datetime(2024, 1, 1), "name": "1704067200"},
    '{"id":11,"big":123456789012345678901234567890123456.780}': {
        "big": Decimal("123456789012345678901234567890123456.78")
    },
    '{"id":12,"big":"1.5e-1"}': {"big": Decimal("0.15")},
    '{"id":13,"days":["2024-02-29", null],"name":"]"}': {"days": [date(2024, 2, 29), None], "name": "]"},
    '{"id":14,"inner":{"at":"2024-01-01T00:00:00.123456Z","r":[1.5,"Infinity"]}}': {
        "inner": (datetime(2024, 1, 1, 0, 0, 0, 123456), [1.5, float("inf")])
    },
    '{"id":15,"sums":{"a":123456789012345678.9}}': {"sums": {"a": Decimal("123456789012345678.90")}},
    '{"id":17,"parts":{"big":1.005},"big":1.5}': {"big": Decimal("1.50")},
    '{"id":16,"inner":null,"days":null,"sums":{}}': {"inner": None, "days": None, "sums": {}},
}
WHOLE = "not one whole JSON object"
BAD = {
    "a broken line": ('{"id":1,"amount":"1.10"', "not a JSON object"),
    "a list": ('[{"id":1}]', "not a JSON object"),
    "a list of two": ('[{"id":1},{"id":2}]', "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "a number": ("5", "not a JSON object"),
    "an empty object": ("{}", "no field of the schema has a value"),
    "another case": ('{"ID":1}', "no field of the schema has a value"),
    "only null": ('{"id":null}', "no field of the schema has a value"),
    "text behind": ('{"id":1} trailing', WHOLE),
    "an object behind": ('{"id":1}{"id":2}', WHOLE),
    "a brace behind": ('{"id":1}}', WHOLE),
    "a bracket behind": ('{"id":1}]', WHOLE),
    "a list closed behind": ('{"id":1}]}', WHOLE),
    "a comma behind": ('{"id":1},', WHOLE),
    "a second object behind a comma": ('{"id":1},{"id":2}', WHOLE),
    "a field behind": ('{"id":1},"x":{}', WHOLE),
    "a raw tab": ('{"id":1,"name":"a\tb"}', WHOLE),
    "a key twice": ('{"id":1,"id":2}', "a field is given twice"),
    "a key twice inside": ('{"id":1,"parts":{"a":1,"a":2}}', "a field is given twice"),
    "a number of 20 digits": ('{"id":99999999999999999999}', "id does not fit bigint"),
    "a fraction for a whole number": ('{"id":1.0}', "id does not fit bigint"),
    "text for a number": ('{"id":"1"}', "id does not fit bigint"),
    "a decimal that is too wide": ('{"id":1,"amount":99999.99}', "amount does not fit decimal(6,2)"),
    "a decimal that would be rounded": ('{"id":1,"amount":1.005}', "amount does not fit decimal(6,2)"),
    "a decimal rounded over its width": ('{"id":1,"amount":9999.999}', "amount does not fit decimal(6,2)"),
    "a decimal rounded inside": ('{"id":1,"parts":{"a":1.005}}', "parts does not fit struct<a:decimal(5,2)>"),
    "no decimal": ('{"id":1,"amount":""}', "amount does not fit decimal(6,2)"),
    "no day of the calendar": ('{"id":1,"day":"2024-02-30"}', "day does not fit date"),
    "text behind a day": ('{"id":1,"day":"2024-01-01 garbage"}', "day does not fit date"),
    "a year for a day": ('{"id":1,"day":"2024"}', "day does not fit date"),
    "no month of the year": ('{"id":1,"at":"2024-13-01T00:00:00Z"}', "at does not fit timestamp"),
    "a time without its day": ('{"id":1,"at":"12:30"}', "at does not fit timestamp"),
    "milliseconds for seconds": ('{"id":1,"at":1704067200000}', "at does not fit timestamp"),
    "a day without its dashes": ('{"id":1,"at":"20240101"}', "at does not fit timestamp"),
    "a double out of range": ('{"id":1,"ratio":1e400}', "ratio does not fit double"),
    "a long decimal that would be rounded": ('{"id":1,"big":1.005}', "big does not fit decimal(38,2)"),
    "a small decimal that would be rounded": ('{"id":1,"big":1e-3}', "big does not fit decimal(38,2)"),
    "a decimal of 39 digits": (
        '{"id":1,"big":1234567890123456789012345678901234567.00}',
        "big does not fit decimal(38,2)",
    ),
    "a decimal rounded in a map": ('{"id":1,"sums":{"a":1,"b":0.005}}', "sums does not fit map<string,decimal(20,2)>"),
    "text behind a day inside": (
        '{"id":1,"days":["2024-01-01","2024-01-01 garbage"]}',
        "days does not fit array<date>",
    ),
    "a time without its day inside": ('{"id":1,"inner":{"at":"12:30"}}', "inner does not fit struct<"),
    "a double out of range inside": ('{"id":1,"inner":{"r":[1,1e400]}}', "inner does not fit struct<"),
    "an object for a day": ('{"id":1,"days":[{"a":1}]}', "days does not fit array<date>"),
    "text behind a short day": ('{"id":1,"day":"2024-1-1 x"}', "day does not fit date"),
    "text behind an end of its own": ('{"id":1}],"_end":true} anything', WHOLE),
    "a second row in a field of its own": ('{"id":1}],"x":[{"id":2}', WHOLE),
    "the first half of a character": (r'{"id":1,"name":"a\ud83d b"}', "half of a character"),
    "the second half of a character": (r'{"id":1,"name":"\\\uDE00"}', "half of a character"),
    "two first halves": (r'{"id":1,"name":"\ud83d\ud83d\ude00"}', "half of a character"),
    "NaN": ('{"id":1,"ratio":NaN}', "not a JSON object"),
}


@pytest.fixture(scope="module")
def rows(reading, tmp_path_factory):
    """Every line above, read in one go, by its text."""
    file = tmp_path_factory.mktemp("json") / "all.json"
    file.write_text("\n".join([*GOOD, "", "   ", "\t", *[line for line, _ in BAD.values()]]) + "\n")
    return reading("json", SCHEMA, file)


def test_every_line_that_is_not_blank_is_a_row_or_an_unparsed_text(rows):
    assert [row["_row"] for row in rows] == [*GOOD, *[line for line, _ in BAD.values()]]


@pytest.mark.parametrize("line", GOOD)
def test_a_line_that_fits_is_a_row_of_exact_values(rows, line):
    row = next(row for row in rows if row["_row"] == line)
    assert (row["_unparsed"], row["_problem"]) == (None, None)
    assert {name: row[name] for name in GOOD[line]} == GOOD[line]


@pytest.mark.parametrize("what", BAD)
def test_a_line_that_does_not_fit_is_kept_as_it_came_with_its_reason(rows, what):
    line, problem = BAD[what]
    row = next(row for row in rows if row["_row"] == line)
    assert row["_unparsed"] == line
    assert row["_problem"].startswith(problem)


def test_a_byte_order_mark_and_windows_line_ends_are_not_part_of_a_row(reading, tmp_path):
    content = b'\xef\xbb\xbf{"id":1}\r\n{"id":2}\r\n\r\n{"id":3}'
    (tmp_path / "a.json").write_bytes(content)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(content))
    found = reading("json", "id BIGINT", [tmp_path / "a.json", tmp_path / "b.json.gz"])
    assert sorted(row["id"] for row in found) == [1, 1, 2, 2, 3, 3]
    assert {row["_row"] for row in found} == {'{"id":1}', '{"id":2}', '{"id":3}'}


def test_bytes_that_are_no_utf8_are_unparsed_and_kept_in_the_reason(reading, tmp_path):
    line = b'{"id":1,"name":"\xff\xfe"}'
    (tmp_path / "a.json").write_bytes(line + b'\n{"id":2,"name":"\xc3\xa9"}\n')
    bad, good = reading("json", "id BIGINT, name STRING", tmp_path / "a.json")
    assert (good["id"], good["name"], good["_problem"]) == (2, "\u00e9", None)
    assert bad["_unparsed"] == '{"id":1,"name":"\ufffd\ufffd"}'
    assert base64.b64decode(bad["_problem"].split(": ")[1]) == line


def test_no_line_of_a_utf16_file_becomes_a_row(reading, tmp_path):
    (tmp_path / "a.json").write_bytes('{"id":1}\n{"id":2}\n'.encode("utf-16"))
    found = reading("json", "id BIGINT", tmp_path / "a.json")
    assert len(found) >= 2
    assert all(row["id"] is None and row["_unparsed"] for row in found)


def test_a_line_of_some_megabytes_is_read_and_a_broken_one_kept_whole(reading, tmp_path):
    name = "x" * 4_000_000
    (tmp_path / "a.json").write_text(f'{{"id":1,"name":"{name}"}}\n{{"id":2,"name":"{name}\n')
    good, bad = reading("json", "id BIGINT, name STRING", tmp_path / "a.json")
    assert (len(good["name"]), good["_problem"]) == (len(name), None)
    assert bad["_unparsed"] == f'{{"id":2,"name":"{name}'


TEXTS = {
    "1.10": "1.10",
    "12345678901234567.89": "12345678901234567.89",
    "1e400": "1e400",
    "-1E-400": "-1E-400",
    "-0": "-0",
    "0": "0",
    "17": "17",
    "123456789012345678901234567890": "123456789012345678901234567890",
    "true": "true",
    "null": None,
    '"1.10"': "1.10",
    '"-0"': "-0",
    '"Infinity"': "Infinity",
    r'"\"Infinity\""': '"Infinity"',
    r'"{\"a\": 1.10}"': '{"a": 1.10}',
    r'"[1.10, \"x\"]"': '[1.10, "x"]',
    '{"amount": 12345678901234567.89}': '{"amount": 12345678901234567.89}',
    r'{ "a" : [1.10, -0, {"text": "\u00e9 \" ] } 2.50"}] , "one": {"two": 1E5} }': (
        r'{ "a" : [1.10, -0, {"text": "\u00e9 \" ] } 2.50"}] , "one": {"two": 1E5} }'
    ),
    "[1.0, [2.00]]": "[1.0, [2.00]]",
    "{}": "{}",
}


@pytest.fixture(scope="module")
def texts(reading, tmp_path_factory):
    """Every value above, read in one go as a text: by itself behind one of that name elsewhere, and inside of other types."""
    file = tmp_path_factory.mktemp("texts") / "all.json"
    line = (
        '{{"id":{0},"x":{{"text":9.90}},"y":"\\"text\\":8.80, ","text": {1} ,"inner":{{"z":1.5,"text":{1},"amount":1.50}},'
        '"list":["a",{1}],"lines":[{{"amount":2.50,"name":{1}}},{{"name":"b"}}],"named":{{"k":{1}, "l" : "c"}}}}'
    )
    file.write_text("\n".join(line.format(n, text) for n, text in enumerate(TEXTS)) + "\n")
    schema = (
        "id BIGINT, text STRING, inner STRUCT<text: STRING, amount: DECIMAL(6,2)>, list ARRAY<STRING>, "
        "lines ARRAY<STRUCT<amount: DECIMAL(6,2), name: STRING>>, named MAP<STRING, STRING>"
    )
    return dict(zip(TEXTS, sorted(reading("json", schema, file), key=lambda row: row["id"]), strict=True))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_none_in_the_line_is_what_stands_there(texts, text):
    row, wanted = texts[text], TEXTS[text]
    assert row["_problem"] is None
    assert row["text"] == wanted
    assert row["inner"] == (wanted, Decimal("1.50"))
    assert row["list"] == ["a", wanted]
    assert row["lines"] == [(Decimal("2.50"), wanted), (None, "b")]
    assert row["named"] == {"k": wanted, "l": "c"}


def test_a_text_that_is_not_found_in_the_line_is_unparsed_where_it_may_have_been_changed(reading, tmp_path):
    deep = "[" * 40 + "1.10" + "]" * 40
    lines = [
        r'{"id":1,"n\u0061me":1.10}',
        f'{{"id":2,"name":{deep}}}',
        f'{{"id":3,"parts":[{deep}]}}',
        r'{"id":4,"n\u0061me":"x","parts":["y"]}',
    ]
    (tmp_path / "a.json").write_text("\n".join(lines))
    *bad, good = reading("json", "id BIGINT, name STRING, parts ARRAY<STRING>", tmp_path / "a.json")
    assert [row["_unparsed"] for row in bad] == lines[:3]
    assert [row["_problem"] for row in bad] == [
        "name is not found in the line as it was written",
        "name is not found in the line as it was written",
        "parts does not fit array<string>",
    ]
    assert (good["name"], good["parts"], good["_problem"]) == ("x", ["y"], None)


def test_a_long_text_in_a_line_costs_no_stack(reading, tmp_path):
    long = r"a\"{" * 300_000
    (tmp_path / "a.json").write_text(f'{{"z":"{long}","list":[{"1.5," * 100_000}2],"name":1.10}}')
    (row,) = reading("json", "name STRING, list STRING", tmp_path / "a.json")
    assert (row["name"], len(row["list"]), row["_problem"]) == ("1.10", 400_003, None)


DOCUMENTS = {
    "a list": ('[{"id":1,"amount":1.10},\n {"id":2,"amount":12345678901234567.89}]', ["1.10", "12345678901234567.89"]),
    "a list behind a mark and a blank line": ('\ufeff\n[{"id":1,"amount":1}]', ["1.00"]),
    "one object over lines": ('{\n"id": 1,\n"amount": 2\n}\n', ["2.00"]),
    "an empty list": ("[]", []),
    "nothing": ("", []),
}
BROKEN_DOCUMENTS = {
    "a list cut off": '[{"id":1},{"id":',
    "text behind a list": '[{"id":1}] x',
    "two lists": '[{"id":1}][{"id":2}]',
    "one object a line": '{"id":1}\n{"id":2}',
}


@pytest.mark.parametrize("what", DOCUMENTS)
def test_a_file_read_whole_gives_the_objects_of_its_list_or_itself(reading, tmp_path, what):
    text, amounts = DOCUMENTS[what]
    (tmp_path / "a.json").write_text(text)
    found = reading("json", "id BIGINT, amount DECIMAL(20,2)", tmp_path / "a.json", options={"multiLine": True})
    assert [row["amount"] for row in found] == [Decimal(amount) for amount in amounts]
    assert all(row["_problem"] is None for row in found)


def test_a_text_of_a_file_read_whole_is_what_stands_there(reading, tmp_path):
    file = '[{"id":1,"name":1.10},\n {"id":2,"name":{"a" :\n1e400}}, {"id":3,"name":"x"}]'
    (tmp_path / "a.json").write_text(file)
    found = reading("json", "id BIGINT, name STRING", tmp_path / "a.json", options={"multiLine": True})
    assert [row["name"] for row in found] == ["1.10", '{"a" : 1e400}', "x"]


@pytest.mark.parametrize("what", BROKEN_DOCUMENTS)
def test_a_broken_file_read_whole_is_one_unparsed_text(reading, tmp_path, what):
    text = BROKEN_DOCUMENTS[what]
    (tmp_path / "a.json").write_text(text)
    (row,) = reading("json", "id BIGINT", tmp_path / "a.json", options={"multiLine": True})
    assert (row["id"], row["_unparsed"]) == (None, text)


def test_an_element_that_is_no_object_is_a_row_of_its_own_that_did_not_parse(reading, tmp_path):
    (tmp_path / "a.json").write_text('[{"id":1}, null, 5]')
    found = reading("json", "id BIGINT", tmp_path / "a.json", options={"multiLine": True})
    assert [(row["id"], row["_unparsed"]) for row in found] == [(1, None), (None, "null"), (None, "5")]


UNKNOWN = '{"id":1,"zz":1,"o":{"b":1.5,"l":[null,true]},"n":null,"s":"1","big":12345678901234567890.125}'


def test_rescued_fields_keep_their_json_types(reading, tmp_path):
    (tmp_path / "a.json").write_text(f'{UNKNOWN}\n{{"id":2}}\n{{"id":3,"q":1\n')
    found = reading("json", "id BIGINT", tmp_path / "a.json", unknown_fields="rescue")
    rescued = json.loads(found[0]["_rescued"], parse_float=Decimal)
    expected = json.loads(UNKNOWN, parse_float=Decimal)
    assert rescued == {name: value for name, value in expected.items() if name != "id"}
    assert [row["_rescued"] for row in found[1:]] == [None, None]
    assert [row["_problem"] for row in found] == [None, None, "not a JSON object"]


def test_unknown_fields_fail_by_name_where_that_is_wanted(reading, tmp_path):
    (tmp_path / "a.json").write_text(f'{UNKNOWN}\n{{"id":2}}\n')
    bad, good = reading("json", "id BIGINT", tmp_path / "a.json", unknown_fields="fail")
    assert (bad["_unparsed"], bad["_problem"]) == (UNKNOWN, "unknown field: zz, o, n, s, big")
    assert (good["id"], good["_problem"]) == (2, None)


def test_metadata_says_which_file_a_row_is_from(reading, tmp_path):
    (tmp_path / "a.json").write_text('{"id":1}\n')
    (row,) = reading("json", "id BIGINT", tmp_path / "a.json", metadata=True)
    assert row["_file"].endswith("/a.json")
    assert isinstance(row["_file_modified"], datetime)


def test_formats_of_dates_and_times_are_as_the_options_say(reading, tmp_path):
    (tmp_path / "a.json").write_text('{"day":"01/02/2024","at":"1.2.24 03:04"}\n{"day":"2024-02-01"}\n')
    options = {"dateFormat": "dd/MM/yyyy", "timestampFormat": "d.M.yy HH:mm"}
    good, bad = reading("json", "day DATE, at TIMESTAMP", tmp_path / "a.json", options=options)
    assert (good["day"], good["at"]) == (date(2024, 2, 1), datetime(2024, 2, 1, 3, 4))
    assert bad["_problem"] == "day does not fit date"
