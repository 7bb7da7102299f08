"""A row of CSV is whole and exact, or its text is kept; a file that would give good-looking wrong rows is not read."""

from __future__ import annotations

import bz2
import gzip
from datetime import date
from decimal import Decimal

import pytest

from microbatch.config.kinds import FilesConf
from microbatch.sources.files import Files, unreadable
from microbatch.sources.listing import File

SCHEMA = "id BIGINT, amount DECIMAL(6,2), day DATE, name STRING, ratio DOUBLE"
HEADER = "id,amount,day,name,ratio\n"
GOOD = {
    "1,1.25,2024-02-29,x,1.5": (1, Decimal("1.25"), date(2024, 2, 29), "x", 1.5),
    '2,1.10,2024-1-5,"a,b",1e3': (2, Decimal("1.10"), date(2024, 1, 5), "a,b", 1000.0),
    '3,,,"two\nlines",': (3, None, None, "two\nlines", None),
    '4,,,"say ""hi""",': (4, None, None, 'say "hi"', None),
    '5,,,"C:\\",': (5, None, None, "C:\\", None),
    "6,,,, -1 ": (6, None, None, None, -1.0),
    '"7","1.10",,\u00e9,inf': (7, Decimal("1.10"), None, "\u00e9", float("inf")),
}
BAD = {
    "2,1.10": "the number of fields",
    "3,1,2024-01-01,x,1,7": "the number of fields",
    "4,1.005,2024-01-01,x,1": "amount does not fit decimal(6,2)",
    '5,99999.99,2024-01-01,"a,b",1': "amount does not fit decimal(6,2)",
    "5,9999.999,2024-01-01,x,1": "amount does not fit decimal(6,2)",
    "5,abc,2024-01-01,x,1": "amount does not fit decimal(6,2)",
    "6,1,2024-02-30,x,1": "day does not fit date",
    "6,1,2024-01-01 garbage,x,1": "day does not fit date",
    "6,1,2024,x,1": "day does not fit date",
    "7.5,1,,x,1": "id does not fit bigint",
    "99999999999999999999,1,,x,1": "id does not fit bigint",
    "8,1,,x,1e400": "ratio does not fit double",
    "8,1,,x,12d": "ratio does not fit double",
}


@pytest.fixture(scope="module")
def rows(reading, tmp_path_factory):
    """Every row above, read in one go."""
    file = tmp_path_factory.mktemp("csv") / "all.csv"
    file.write_text(HEADER + "\n".join([*GOOD, "", *BAD]) + "\n")
    return reading("csv", SCHEMA, file)


def test_every_row_is_there_once(rows):
    assert len(rows) == len(GOOD) + len(BAD)
    assert [row["_unparsed"] for row in rows if row["_unparsed"]] == list(BAD)


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_a_row_that_fits_has_exactly_its_values(rows, number):
    row = rows[number]
    assert row["_problem"] is None
    assert tuple(row[name] for name in ("id", "amount", "day", "name", "ratio")) == list(GOOD.values())[number]


@pytest.mark.parametrize("text", BAD)
def test_a_row_that_does_not_fit_keeps_its_text_and_says_which_column(rows, text):
    row = next(row for row in rows if row["_unparsed"] == text)
    assert row["_problem"].startswith(BAD[text])


def test_a_bad_value_in_a_column_that_nobody_selects_is_still_unparsed(spark, tmp_path):
    from microbatch.sources.files import read

    (tmp_path / "a.csv").write_text(HEADER + "1,1,2024-02-30,x,1\n2,1,2024-02-29,x,1\n")
    conf = FilesConf(kind="files", format="csv", path=str(tmp_path))
    rows = read(spark, SCHEMA, conf, [str(tmp_path / "a.csv")])
    assert [row.id for row in rows.where("_problem IS NULL").select("id").collect()] == [2]


def test_bytes_that_are_no_utf8_make_a_row_unparsed(reading, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,name\n1,\xff\xfe\n2,\xc3\xa9\n")
    bad, good = reading("csv", "id BIGINT, name STRING", tmp_path / "a.csv")
    assert (bad["_unparsed"], bad["_problem"]) == ("1,\ufffd\ufffd", "name is not valid UTF-8")
    assert (good["name"], good["_problem"]) == ("\u00e9", None)


def test_a_mark_windows_line_ends_and_compression_are_not_part_of_a_row(reading, tmp_path):
    content = "\ufeffid,name\r\n1,a\r\n2,\r\n".encode()
    (tmp_path / "a.csv").write_bytes(content)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "c.csv.bz2").write_bytes(bz2.compress(content))
    found = reading("csv", "id BIGINT, name STRING", sorted(tmp_path.iterdir()))
    assert sorted((row["id"], row["name"], row["_problem"]) for row in found if row["name"]) == [(1, "a", None)] * 3
    assert len(found) == 6


@pytest.mark.parametrize("content", ["", "id,name\n", "id,name"], ids=["nothing", "a header", "half a header line"])
def test_a_file_without_rows_gives_none(reading, tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    assert reading("csv", "id BIGINT, name STRING", tmp_path / "a.csv") == []


HEADERS = {
    "swapped": "name,id\n1,2\n",
    "one too few": "id\n1\n",
    "one too many": "id,name,more\n1,2,3\n",
    "missing": "1,2\n3,4\n",
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_is_not_the_schema_makes_the_file_unreadable(reading, tmp_path, what):
    (tmp_path / "a.csv").write_text(HEADERS[what])
    with pytest.raises(Exception, match="CSV header") as raised:
        reading("csv", "id BIGINT, name BIGINT", tmp_path / "a.csv")
    assert "a.csv" in (unreadable(raised.value) or "")


def test_options_name_separators_formats_and_files_without_header(reading, tmp_path):
    (tmp_path / "a.csv").write_text("1;1.10;29/02/2024\n2;1.005;29/02/2024\n3;1;2024-02-29\n")
    options = {"header": False, "sep": ";", "dateFormat": "dd/MM/yyyy"}
    good, rounded, undated = reading(
        "csv", "id BIGINT, amount DECIMAL(6,2), day DATE", tmp_path / "a.csv", options=options
    )
    assert (good["amount"], good["day"]) == (Decimal("1.10"), date(2024, 2, 29))
    assert (rounded["_unparsed"], undated["_unparsed"]) == ("2;1.005;29/02/2024", "3;1;2024-02-29")


QUOTES = {
    "even": (b'1,"a"\n', {}, False),
    "one not closed": (b'1,"a\n2,b\n', {}, True),
    "doubled": (b'1,"say ""hi"""\n', {}, False),
    "escaped": (b'1,"5\\" pipe"\n', {"escape": "\\"}, False),
    "an escaped escape": (b'1,"C:\\\\"\n', {"escape": "\\"}, False),
    "another quote": (b"1,'a\n", {"quote": "'"}, True),
    "packed": (gzip.compress(b'1,"a\n'), {}, True),
}


@pytest.mark.parametrize("what", QUOTES)
def test_an_odd_number_of_quotes_makes_a_file_suspicious(spark, tmp_path, what):
    content, options, odd = QUOTES[what]
    file = tmp_path / ("a.csv.gz" if what == "packed" else "a.csv")
    file.write_bytes(content)
    conf = FilesConf(kind="files", format="csv", path=str(tmp_path), options=options)
    source = Files("things", "ingest", "id BIGINT, name STRING", conf, tmp_path / "checkpoint")
    assert list(source.suspicious(spark, [File(str(file), len(content), 0)])) == ([str(file)] if odd else [])
