"""YAML is loaded without surprises, and quickly refused where it would be one."""

import time

import pytest

from microbatch.errors import ConfigError
from microbatch.strictyaml import Document, load


@pytest.fixture
def read(tmp_path):
    def reader(text: str | bytes) -> Document:
        file = tmp_path / "x.yml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(file, "conf/base/x.yml")

    return reader


def refusal(read, text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value).split("\n")


def test_only_what_the_core_schema_names_is_anything_but_text(read):
    scalars = (
        "[true, false, null, ~, 7, -7, 1.5, 1e3, .inf, on, yes, No, 12:30, 2024-01-01, 0x1F, 1_000, '7', \"true\"]"
    )
    plain = [True, False, None, None, 7, -7, 1.5, 1000.0, float("inf")]
    text = ["on", "yes", "No", "12:30", "2024-01-01", "0x1F", "1_000", "7", "true"]
    assert read(scalars).data == plain + text


def test_mappings_and_lists_nest_and_an_empty_value_is_null(read):
    document = read("a:\n  - b: 1\n    c: [x, {d: y}]\n  -\ne:\nf: |\n  two\n  lines\n")
    assert document.data == {"a": [{"b": 1, "c": ["x", {"d": "y"}]}, None], "e": None, "f": "two\nlines\n"}


def test_an_empty_file_and_one_of_comments_hold_nothing(read):
    assert read("").data is None
    assert read("# nothing yet\n").data is None


def test_a_byte_order_mark_is_not_part_of_the_first_key(read):
    assert read(b"\xef\xbb\xbfowner: x\n").data == {"owner": "x"}


def test_the_line_of_a_key_is_known_and_of_a_missing_key_that_of_the_nearest_around_it(read):
    document = read("a: 1\nb:\n  c:\n    - x\n    - y\n")
    assert (document.line("b"), document.line("b", "c", 1), document.line("b", "c", 9, "z")) == (2, 5, 3)
    assert document.line("nowhere") == 1
    assert document.where("b", "c") == "conf/base/x.yml:3"


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: &x 1\nb: 2", 1, "anchors are not allowed"),
        ("a: 1\nb: *x", 2, "aliases are not allowed"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tags are not allowed: leave out tag:yaml.org,2002:python"),
        ("a: !!str 5", 1, "tags are not allowed"),
        ("a: 1\nb: 2\na: 3", 3, "a is there twice, first on line 1"),
        ("x: {a: 1, a: 2}", 1, "a is there twice"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("a: 1\n7: x", 2, 'write "7" in quotes'),
        ("true: x", 1, "a key must be text"),
        ("? [a, b]\n: c", 1, "a key must be text, not a list"),
        ("a:\n\tb: 1", 2, "indent with spaces, not with tabs"),
        ("a: [1, 2\nb: 3", 2, "is not valid YAML"),
        ("a: 'x", 1, "is not valid YAML"),
        ("ok: 1\na: \x07", 2, "control character"),
        ("# " + "\u00e4" * 60 + "\na: \x07\n" + "b: 1\n" * 9, 2, "control character"),
        (b"a: 1\nb: \xff\xfe", 2, "is not UTF-8"),
        ("a: " + "9" * 5000, 1, "5000 digits"),
    ],
)
def test_a_surprise_is_refused_with_its_line(read, text, line, word):
    first = refusal(read, text)[0]
    assert first.startswith(f"conf/base/x.yml:{line}: ")
    assert word in first


def test_all_problems_of_a_file_are_told_at_once(read):
    lines = refusal(read, "a: &x 1\nb: *x\nb: !t 2\n5: 5\n")
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3", "3", "4"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 20_000,
        "a: &a [x,x,x]\n" + "".join(f"{c}: &{c} [*{p},*{p},*{p}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)),
        "a: &a [*a]\n",
        "".join(f"k{i}: *x\n" for i in range(50_000)),
        "x: '" + "y" * 1_100_000 + "'",
    ],
    ids=["brackets", "braces", "dashes", "bomb", "recursion", "aliases", "size"],
)
def test_a_file_made_to_exhaust_the_reader_is_refused_within_a_second(read, text):
    start = time.monotonic()
    refusal(read, text)
    assert time.monotonic() - start < 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"conf/x\.yml: there is no such file"):
        load(tmp_path / "x.yml", "conf/x.yml")


def test_a_folder_in_the_place_of_a_file_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        load(tmp_path)


def test_a_number_with_commas_inside_braces_stays_the_text_that_somebody_wrote(tmp_path):
    file = tmp_path / "a.yml"
    file.write_text(
        "a: {volume: about 4,000 rows a day, n: 1}\nb: {v: ü 1,469,307, kind: x}\nc: {v: 1,200}\n", encoding="utf-8"
    )
    read = load(file).data
    assert read == {
        "a": {"volume": "about 4,000 rows a day", "n": 1},
        "b": {"v": "ü 1,469,307", "kind": "x"},
        "c": {"v": "1,200"},
    }
    file.write_text("a: {v: x, lost}\nb: {v: 1,w: 2}\n")
    assert load(file).data == {"a": {"v": "x", "lost": None}, "b": {"v": 1, "w": 2}}
