"""Fetching from a server that misbehaves: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import format_datetime

import pytest

from microbatch.errors import ConfigError, SourceUnavailable, StateChanged
from microbatch.sources.listing import look_at
from microbatch.sources.record import Record
from microbatch.sources.rest import Rest
from microbatch.sources.rest.client import retry_after_s
from microbatch.sources.rest.paging import ByCursor, ByLink, ByOffset, ByPage, Paging
from tests.sources.rest.conftest import AWAY, HTML, NOTHING, TOO_MANY, Answer, Api, cut, cut_unseen, ids, lines, listing

RECORDS = [{"id": number, "rate": f"{number}.10"} for number in range(95)]
WAYS: dict[str, Paging] = {
    "link header": ByLink(),
    "link field": ByLink("url"),
    "cursor": ByCursor("next", "after"),
    "offset": ByOffset("offset", "limit", 10),
    "page": ByPage("page"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_paging_brings_each_record_once(api: Api, rest, way: str):
    api.answer = listing(RECORDS, 10)
    source = rest(records="data.items", paging=WAYS[way])
    source.fetch()
    assert ids(source) == list(range(95))
    assert source.pending() == 95


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_fails_in_one_of_ten_requests_loses_and_doubles_nothing(api: Api, rest, way: str):
    """429, 503, HTML, no answer, half an answer with and without its length."""
    api.answer, api.share = listing(RECORDS, 2), 0.1
    source = rest(records="data.items", paging=WAYS[way], attempts=8)
    source.fetch()
    assert ids(source) == list(range(95))
    assert len(api.asked) > 50  # some of them a second time


def test_a_server_that_gives_fewer_than_it_is_asked_for_is_read_to_its_end(api: Api, rest):
    api.answer = listing(RECORDS, 50, cap=7)
    source = rest(records="data.items", paging=ByOffset("offset", "limit", 50))
    source.fetch()
    assert ids(source) == list(range(95))


FAULTS = [TOO_MANY, AWAY, HTML, NOTHING, Answer("", 500), Answer('[{"id"', 200), Answer("", 200), Answer("\n", 200)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_page_that_does_not_come_is_asked_for_again_and_then_left_to_the_scheduler(api: Api, rest, fault: Answer):
    api.records('{"id": 1}')
    source = rest()
    api.faults = [fault] * 3
    source.fetch()
    assert ids(source) == [1]
    api.records('{"id": 2}')
    api.faults = [fault] * 4
    with pytest.raises(SourceUnavailable) as stopped:
        source.fetch()
    assert stopped.value.exit_code == 5
    assert api.url in str(stopped.value)
    source.fetch()
    assert ids(source) == [1, 2]


@pytest.mark.parametrize("half", [cut, cut_unseen])
def test_half_an_answer_is_never_taken_for_a_whole_one(api: Api, rest, half):
    whole = Answer('[{"id": 1}, {"id": 2}]')
    api.answer, api.faults = lambda request: whole, [half(whole)]
    source = rest()
    source.fetch()
    assert ids(source) == [1, 2]
    assert len(api.asked) == 2


def test_an_answer_that_ends_behind_its_headers_is_no_last_page_unless_it_says_that_it_has_no_content(api: Api, rest):
    """Nobody told its length, and the connection closes: to HTTP that is a whole answer."""
    api.answer = listing(RECORDS, 10)
    source = rest(records="data.items", paging=ByPage("page"))
    api.faults = [None, None, Answer("", length=False)]
    source.fetch()
    assert ids(source) == list(range(95))
    api.answer = lambda request: Answer("", 204, length=False)
    source.fetch()
    assert ids(source) == list(range(95))


@pytest.mark.parametrize("status", [401, 403, 404, 400, 410])
def test_a_refusal_stops_at_once_and_is_not_tried_again(api: Api, rest, status: int):
    api.answer = lambda request: Answer('{"error": "no"}', status)
    with pytest.raises(ConfigError, match=f"answered {status}") as stopped:
        rest().fetch()
    assert stopped.value.exit_code == 2
    assert len(api.asked) == 1


def test_retry_after_is_waited_for_in_seconds_and_until_a_date(api: Api, rest):
    api.records('{"id": 1}')
    api.faults = [Answer("", 429, {"retry-after": "1"})]
    began = time.monotonic()
    rest(max_wait_s=2).fetch()
    assert time.monotonic() - began >= 1
    now = datetime(2024, 2, 29, 12, 0, 0, tzinfo=timezone.utc)
    assert retry_after_s(format_datetime(now.replace(second=30), usegmt=True), now) == 30
    assert retry_after_s(format_datetime(now.replace(hour=11)), now) == 0
    assert [retry_after_s(text, now) for text in ("120", " 7 ", "soon", "-1", None)] == [120, 7, 0, 0, 0]


def test_a_server_that_asks_for_a_longer_wait_than_conf_allows_is_not_asked_again(api: Api, rest):
    api.faults = [Answer("", 503, {"retry-after": "3600"})]
    with pytest.raises(SourceUnavailable) as stopped:
        rest(max_wait_s=2).fetch()
    assert stopped.value.wait_s == 3600
    assert len(api.asked) == 1


def test_a_fetch_that_is_cut_off_leaves_nothing_and_is_made_anew(api: Api, rest):
    api.answer = listing(RECORDS, 10)
    source = rest(records="data.items", paging=ByCursor("next", "after"), attempts=0)
    api.faults = [None, None, None, AWAY]
    with pytest.raises(SourceUnavailable):
        source.fetch()
    assert (lines(source), source.pending()) == ([], 0)
    source.fetch()
    assert ids(source) == list(range(95))


def test_what_a_killed_fetch_left_is_dropped(api: Api, rest):
    source = rest()
    left = source.spool.folder / ".00000001.part"
    left.mkdir(parents=True)
    (left / "00000.json").write_text('{"id": 9}\n')
    api.records('{"id": 1}')
    source.fetch()
    assert ids(source) == [1]
    assert not left.exists()


def test_the_cursor_goes_back_as_it_came_and_equal_values_at_the_border_come_once(api: Api, rest):
    """The server answers `since` with "from": the record of the last value comes again, beside a late one of that value."""
    first = ['{"id": 1, "at": "2024-01-01T00:00:00.100Z"}', '{"id": 2, "at": "2024-01-01T00:00:00.1234567Z"}']
    api.records(*first)
    source = rest(cursor_field="at", cursor_param="since")
    source.fetch()
    late, new = '{"id": 3, "at": "2024-01-01T00:00:00.1234567Z"}', '{"id": 4, "at": "2024-01-02T00:00:00Z"}'
    api.records(first[1], late, new)
    source.fetch()
    api.records(new)
    source.fetch()
    assert [request.params.get("since") for request in api.asked] == [
        None,
        "2024-01-01T00:00:00.1234567Z",
        "2024-01-02T00:00:00Z",
    ]
    assert ids(source) == [1, 2, 3, 4]
    assert len(source.spool.all()) == 2  # the third brought nothing, and left nothing


def test_a_server_that_answers_with_what_comes_after_the_cursor_keeps_it_when_there_is_nothing(api: Api, rest):
    api.records('{"id": 7}')
    source = rest(cursor_field="id", cursor_param="after")
    source.fetch()
    api.records()
    source.fetch()
    source.fetch()
    assert [request.params for request in api.asked] == [{}, {"after": "7"}, {"after": "7"}]
    assert ids(source) == [7]


@pytest.mark.parametrize(
    ("values", "greatest"),
    [
        (["9", "10", "8"], "10"),
        (['"9"', '"10"'], "10"),
        (["1.5", "1.50000000000000000000001"], "1.50000000000000000000001"),
        (['"2024-01-01T01:00:00+02:00"', '"2024-01-01T00:00:00Z"'], "2024-01-01T00:00:00Z"),
        (['"b-2"', '"a-10"'], "b-2"),
        (["null", "3", '""'], "3"),
        (["-5", "-7"], "-5"),
        (["12345678901234567890123", "12345678901234567890124"], "12345678901234567890124"),
    ],
)
def test_the_greatest_value_is_the_one_to_go_on_from(api: Api, rest, values: list[str], greatest: str):
    api.records(*[f'{{"id": 1, "v": {{"at": {value}}}}}' for value in values])
    source = rest(cursor_field="v.at", cursor_param="since")
    source.fetch()
    assert source.spool.all()[-1].cursor == greatest


def test_a_cursor_that_no_record_has_is_a_mistake_in_conf(api: Api, rest):
    api.records('{"id": 1}', '{"id": 2}')
    with pytest.raises(ConfigError, match="none of 2 records has a value in updated_at"):
        rest(cursor_field="updated_at", cursor_param="since").fetch()


def test_without_a_cursor_each_run_takes_in_what_is_new_or_changed(api: Api, rest):
    source = rest()
    for answer in (["1", "2"], ["1", "2"], ["1", "2", "3"], ["2", "1"], ["3", "3"]):
        api.records(*[f'{{"id": {value}}}' for value in answer])
        source.fetch()
    # Of the last answer's two threes the fetch before it held one.
    assert ids(source) == [1, 2, 3, 3]


def test_equal_records_are_as_many_as_came(api: Api, rest):
    api.records('{"id": 1}', '{"id": 1}', '{"id": 1}')
    source = rest()
    source.fetch()
    assert ids(source) == [1, 1, 1]


def test_a_list_that_grows_while_it_is_read_by_page_gives_no_record_twice(api: Api, rest):
    growing = list(range(10))

    def answer(request):
        page = int(request.params["page"])
        if page == 2:
            growing.insert(0, 100)  # pushes the last record of the first page on to the second
        return Answer(json.dumps([{"id": each} for each in growing[(page - 1) * 4 : page * 4]]))

    api.answer = answer
    source = rest(paging=ByPage("page"))
    source.fetch()
    assert ids(source) == list(range(10))


def test_a_page_that_comes_again_stops_the_flow_and_nothing_of_it_is_taken_in(api: Api, rest):
    api.records('{"id": 1}')
    source = rest(paging=ByPage("pgae"))
    with pytest.raises(StateChanged, match="page 2 is page 1 again") as stopped:
        source.fetch()
    assert stopped.value.exit_code == 1
    assert (lines(source), source.pending()) == ([], 0)


@pytest.mark.parametrize("paging", [ByCursor("next", "after"), ByLink("next")])
def test_a_cursor_or_link_that_leads_back_stops_the_flow(api: Api, rest, paging: Paging):
    nexts = iter(["a", "b", "a"] * 5)
    numbers = iter(range(15))
    api.answer = lambda request: Answer(json.dumps({"items": [{"id": next(numbers)}], "next": next(nexts)}))
    with pytest.raises(StateChanged, match="leads back to a page that was read"):
        rest(records="items", paging=paging).fetch()
    assert len(api.asked) == 3


def test_a_page_without_its_records_is_a_mistake_in_conf_that_names_what_there_is(api: Api, rest):
    api.answer = lambda request: Answer('{"result": []}')
    with pytest.raises(ConfigError, match="source rates: records: the page has result, and no items"):
        rest(records="items").fetch()


@pytest.mark.parametrize("server", [{"bearer": "t0ken"}, {"basic": ("me", "pa:ss")}, {"headers": {"X-Api-Key": "k3y"}}])
def test_credentials_stay_with_their_server_when_a_redirect_or_a_link_leads_elsewhere(
    api: Api, other: Api, rest, server
):
    other.answer = lambda request: Answer('{"items": [{"id": 2}], "next": null}')
    source = rest(server=server, records="items", paging=ByLink("next"))
    api.answer = lambda request: Answer(json.dumps({"items": [{"id": 1}], "next": f"{other.url}/more"}))
    api.faults = [Answer("", 307, {"location": "/v2/rates"})]
    source.fetch()
    assert [request.path for request in api.asked] == ["/v1/rates", "/v2/rates"]
    api.answer = lambda request: Answer("", 302, {"location": f"{other.url}/elsewhere"})
    other.answer = lambda request: Answer('{"items": [{"id": 3}]}')
    source.fetch()
    assert ids(source) == [1, 2, 3]
    secrets = ("authorization", "x-api-key")
    assert all(any(name in request.headers for name in secrets) for request in api.asked)
    assert len(other.asked) == 2
    assert not any(name in request.headers for request in other.asked for name in secrets)


def test_the_credentials_are_those_of_the_standards(api: Api, rest):
    rest(server={"bearer": "t0ken"}).fetch()
    rest(server={"basic": ("me", "pa:ss")}).fetch()
    assert [request.headers["authorization"] for request in api.asked] == ["Bearer t0ken", "Basic bWU6cGE6c3M="]


def test_a_redirect_in_a_circle_is_a_mistake_and_does_not_go_on(api: Api, rest):
    api.answer = lambda request: Answer("", 302, {"location": "/v1/rates"})
    with pytest.raises(ConfigError, match="redirects more than 10 times"):
        rest().fetch()
    assert len(api.asked) == 10


def test_requests_keep_the_pace(api: Api, rest):
    api.answer = listing(RECORDS[:10], 2)
    began = time.monotonic()
    rest(server={"rate_per_s": 20}, records="data.items", paging=ByCursor("next", "after")).fetch()
    assert len(api.asked) == 5
    assert time.monotonic() - began >= 4 / 20


def test_a_message_shows_no_part_of_a_url_that_may_hold_a_secret(api: Api, rest):
    api.answer = lambda request: Answer("", 503)
    with pytest.raises(SourceUnavailable) as stopped:
        rest(attempts=0, params={"api_key": "k3y"}).fetch()
    assert api.asked[0].params == {"api_key": "k3y"}
    assert "k3y" not in str(stopped.value)


def took_in(source: Rest, batch_id: int, *paths: str) -> None:
    """As a run leaves it behind: the files of a batch are recorded, and Spark has committed it."""
    Record(source.checkpoint).keep(batch_id, [look_at(path) for path in paths])
    (source.checkpoint / "commits").mkdir(exist_ok=True)
    (source.checkpoint / "commits" / str(batch_id)).touch()


def test_a_spool_that_is_gone_or_was_moved_stops_the_flow(api: Api, rest):
    api.records('{"id": 1}')
    source = rest()
    source.fetch()
    (path,) = [path for each in source.spool.all() for path in source.spool.paths(each)]
    took_in(source, 0, path)
    assert source.pending() == 0
    moved = replace(source, checkpoint=source.checkpoint.rename(source.checkpoint.with_name("moved")))
    with pytest.raises(StateChanged, match="the checkpoint was moved"):
        moved.pending()
    moved.checkpoint.rename(source.checkpoint)
    source.spool.place(1).rename(source.checkpoint / "elsewhere")
    for ask in (source.fetch, source.pending):
        with pytest.raises(StateChanged, match="is gone; put it back"):
            ask()


def test_old_fetches_are_dropped_when_they_are_in_their_table_and_the_last_one_stays(api: Api, rest):
    source = rest()
    for number in range(4):
        api.records(f'{{"id": {number}}}')
        source.fetch()
    paths = [path for each in source.spool.all() for path in source.spool.paths(each)]
    for batch in (0, 2, 3):  # batch 1 is under way
        took_in(source, batch, paths[batch])
    for number in (1, 2, 4):
        manifest = source.spool.place(number) / "_manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "fetched_at": 0}))
    source.fetch()
    assert [each.number for each in source.spool.all()] == [2, 3, 4]
