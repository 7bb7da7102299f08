"""Pages of JSON: each record is the text it came as."""

from __future__ import annotations

import pytest

from microbatch.sources.rest.pages import NotThere, Page


def texts(body: str | bytes, path: str | None = None) -> list[str]:
    return [record.text for record in Page.of(body.encode() if isinstance(body, str) else body).records(path)]


@pytest.mark.parametrize(
    "record",
    [
        '{"rate": 1.10000000000000000001}',
        '{"n": 123456789012345678901234567890}',
        '{"e": 1E400, "z": -0.0}',
        '{ "spaced" :1 , "list":[ 1,2 ] }',
        '{"text": "\\u00e9 \\" ] } , [ { \\\\"}',
        '{"a": {"b": [{"c": null}]}}',
        '{"a": 1, "a": 2}',
        '{"nan": NaN}',
        "null",
        '"text"',
        "17",
        "[1, 2]",
        "{}",
    ],
)
def test_a_record_is_kept_to_the_character(record: str):
    assert texts(f'[{record}, {{"x": 1}} ,{record}]') == [record, '{"x": 1}', record]
    assert texts(f'{{"n": [], "data": {{"skip": {{"items": [0]}}, "items": [{record}]}}}}', "data.items") == [record]


def test_a_line_break_between_the_parts_of_a_record_is_a_blank_and_one_inside_a_text_is_not_touched():
    assert texts('[\n {\n"a":\r\n"x\\ny"\n}\n]') == ['{ "a":  "x\\ny" }']


@pytest.mark.parametrize("body", ["", " \n", "[]", "[ ]", "null"])
def test_a_page_without_records_is_an_empty_one(body: str):
    assert texts(body) == []


def test_no_list_but_null_is_an_empty_page_and_so_is_an_answer_without_a_body():
    assert texts('{"items": null}', "items") == []
    assert texts("", "data.items") == []
    assert Page.of(b"").at("next") is None


def test_bytes_that_are_no_text_stay_what_they_are():
    (record,) = Page.of(b'[{"a": "\xff"}]').records(None)
    assert record.text.encode(errors="surrogateescape") == b'{"a": "\xff"}'


def test_utf_16_and_a_byte_order_mark_are_understood():
    assert texts('[{"a": "é"}]'.encode("utf-16")) == ['{"a": "é"}']
    assert texts(b"\xef\xbb\xbf[1]") == ["1"]


@pytest.mark.parametrize("body", ["<html>", '[{"a": 1}', "[1,]", "[1] trailing", "[" * 100_000])
def test_what_is_not_one_whole_json_text_is_refused(body: str):
    with pytest.raises(ValueError):
        texts(body)


@pytest.mark.parametrize(
    ("body", "path", "told"),
    [
        ('{"error": "x", "code": 1}', "items", "the page has error, code, and no items"),
        ('{"data": [1]}', "data.items", "data is a list, and no items"),
        ('{"items": {"a": 1}}', "items", "items is an object, not a list"),
        ('{"a": 1}', None, "the page is an object, not a list"),
    ],
)
def test_a_page_without_the_list_says_what_it_has(body: str, path: str | None, told: str):
    with pytest.raises(NotThere, match=told):
        texts(body, path)
