"""Great Expectations' Data Docs of the newest batches, rendered by Great Expectations from the recorded results. No JVM.

Its pages pull styles and scripts from five hosts: those are taken out and a small style is put in, so that they open
offline. Expand-and-collapse and the filter of the tables go with the scripts. A page is made once: a batch is what it was.
"""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from microbatch.checks import library
from microbatch.config import LoadedJob, Suite
from microbatch.errors import redacted
from microbatch.outcome import HIDDEN
from microbatch.sink import ops

FOLDER = "data_docs"
MOST_PAGES = 20  # newest batches of a job: the report has the trend, a page is for looking closely
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """A batch with the results of its expectations, and where its page is."""

    flow: str
    batch_id: int
    at: datetime
    run_id: str
    results: tuple[Row, ...]
    path: Path

    @property
    def held(self) -> int:
        """How many of its expectations held."""
        return sum(bool(result["success"]) for result in self.results)


def newest(suite: Suite, job: LoadedJob, folder: Path) -> list[Judged]:
    """The newest batches of a job that were judged, newest first."""
    warehouse, mine = suite.environment.storage["warehouse"], [("job", "=", job.name)]
    columns = ("flow", "run_id", "query_id", "batch_id", "started_at")
    batches = sorted(
        ops.rows(warehouse, "batches", mine, only=columns), key=lambda row: row["started_at"], reverse=True
    )
    queries = sorted({batch["query_id"] for batch in batches[: 10 * MOST_PAGES]})
    rows = ops.rows(warehouse, "expectations", [*mine, ("query_id", "in", queries)]) if queries else []
    results: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        results.setdefault((row["flow"], row["query_id"], row["batch_id"]), []).append(row)
    found = []
    for batch in batches:
        if mine_ := results.get((batch["flow"], batch["query_id"], batch["batch_id"])):
            name = f"{batch['batch_id']}-{re.sub('[^0-9A-Za-z]+', '-', batch['query_id'])}.html"
            path = folder / FOLDER / job.name / batch["flow"] / name
            found.append(
                Judged(batch["flow"], batch["batch_id"], batch["started_at"], batch["run_id"], tuple(mine_), path)
            )
    return found[:MOST_PAGES]


def warm(suite: Suite, jobs: Sequence[LoadedJob], folder: Path) -> threading.Thread | None:
    """Import Great Expectations beside what else has to be done, where a page is to be made; it takes seconds."""
    if all(judged.path.exists() for job in jobs for judged in newest(suite, job, folder)):
        return None
    thread = threading.Thread(target=_import, daemon=True)
    thread.start()
    return thread


def write(suite: Suite, jobs: Sequence[LoadedJob], folder: Path, warming: threading.Thread | None) -> dict[str, str]:
    """Make the pages that are missing, remove those that are too old, and list them.

    Returns:
        Job -> its list of pages, relative to the folder; none for a job that was not judged yet.
    """
    if warming is not None:
        warming.join()
    lists = {}
    for job in jobs:
        pages = newest(suite, job, folder)
        for judged in pages:
            if not judged.path.exists():
                judged.path.parent.mkdir(parents=True, exist_ok=True)
                judged.path.write_text(_page(suite, job, judged), encoding="utf-8")
        kept = {judged.path for judged in pages}
        home = folder / FOLDER / job.name
        for old in set(home.glob("*/*.html")) - kept:
            old.unlink()
        if pages:
            lists[job.name] = f"{FOLDER}/{job.name}/index.html"
            (home / "index.html").write_text(_index(suite, job, pages, home), encoding="utf-8")
    return lists


def _import() -> None:
    library.load()
    import great_expectations.core
    import great_expectations.render.renderer
    import great_expectations.render.view  # noqa: F401


def _index(suite: Suite, job: LoadedJob, pages: Sequence[Judged], home: Path) -> str:
    from microbatch.commands.report.page import asset, environment, policy

    rows = [(judged, judged.path.relative_to(home).as_posix()) for judged in pages]
    template = environment().get_template("data_docs.html")
    return template.render(suite=suite, job=job, rows=rows, most=MOST_PAGES, style=asset("page.css"), csp=policy())


def _page(suite: Suite, job: LoadedJob, judged: Judged) -> str:
    """A batch's page as Great Expectations makes it, opened offline."""
    import great_expectations
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    results = [_result(job, judged.flow, row) for row in judged.results]
    counted = {
        "evaluated_expectations": len(results),
        "successful_expectations": judged.held,
        "unsuccessful_expectations": len(results) - judged.held,
        "success_percent": 100 * judged.held / len(results),
    }
    validation = ExpectationSuiteValidationResult(
        success=judged.held == len(results),
        results=results,
        suite_name=f"{job.name}.{judged.flow}",
        statistics=counted,
        meta={
            "run_id": RunIdentifier(run_name=judged.run_id, run_time=judged.at),
            "great_expectations_version": great_expectations.__version__,
            "active_batch_definition": {"data_asset_name": f"batch {judged.batch_id} of flow {judged.flow}"},
        },
    )
    document = ValidationResultsPageRenderer().render(validation)
    return offline(redacted(_view().render(document), suite.secrets))


@cache
def _view() -> Any:
    """Great Expectations' view; one for all pages, as it compiles its templates anew for each view."""
    from great_expectations.render.view import DefaultJinjaPageView

    return DefaultJinjaPageView()


def _result(job: LoadedJob, flow: str, row: Row) -> Any:
    """One recorded result as Great Expectations' own."""
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    file = job.expectations.get(flow)
    entries = file.entries if file else ()
    entry = next((e for e in entries if (e.id, e.type) == (row["expectation_id"], row["expectation"])), None)
    kwargs = dict(entry.kwargs) if entry else _kwargs(row)
    config = ExpectationConfiguration(
        type=row["expectation"],
        kwargs=kwargs,
        severity=row["severity"],
        meta=_escaped(dict(entry.meta)) if entry else {},
    )
    return ExpectationValidationResult(
        success=row["success"],
        expectation_config=config,
        result=_counts(row, job.masks(*row["column"].split(","))),
        exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
        meta={},
    )


def _kwargs(row: Row) -> dict[str, Any]:
    """The columns of an expectation that the suite's file no longer has, under the names its type gives them."""
    names = row["column"].split(",") if row["column"] else []
    if "_pair_" in row["expectation"] and len(names) == 2:
        return {"column_A": names[0], "column_B": names[1]}
    return {"column": names[0]} if len(names) == 1 else {"column_list": names} if names else {}


def _counts(row: Row, hidden: bool) -> dict[str, Any]:
    if row["evaluated"] is not None:
        unexpected = row["unexpected"] or 0
        percent = 100 * unexpected / row["evaluated"] if row["evaluated"] else 0.0
        return {
            "element_count": row["evaluated"],
            "unexpected_count": unexpected,
            "unexpected_percent": percent,
            "unexpected_percent_total": percent,
            "partial_unexpected_list": [],
        }
    return (
        {"observed_value": None}
        if row["observed"] is None
        else {"observed_value": HIDDEN if hidden else _value(row["observed"])}
    )


def _value(text: str) -> Any:
    """An observed value as it was, a number where it is one; text is escaped, which Great Expectations does not do."""
    try:
        value = json.loads(text)
    except ValueError:
        return html.escape(text)
    return value if isinstance(value, int | float) else _escaped(value)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return {name: _escaped(each) for name, each in value.items()} if isinstance(value, dict) else value


def offline(page: str) -> str:
    """A page of Great Expectations' with nothing left in it that asks the network or runs."""
    from microbatch.commands.report.page import asset, policy

    page = re.sub(r"<script\b[^>]*>.*?</script>|<script\b[^>]*/>", "", page, flags=re.DOTALL | re.IGNORECASE)
    page = re.sub(r"<link\b[^>]*>", "", page, flags=re.IGNORECASE)
    page = re.sub(r"<img\b[^>]*>", "", page, flags=re.DOTALL | re.IGNORECASE)
    page = re.sub(r"<style\b[^>]*>.*?</style>", "", page, flags=re.DOTALL | re.IGNORECASE)
    page = re.sub(r"""\son\w+\s*=\s*("[^"]*"|'[^']*')""", "", page)
    page = re.sub(r'href="[^"#]*index\.html"', 'href="../index.html"', page)
    page = re.sub(r'<a\b[^>]*href="[^"#]*expectations/[^"]*"[^>]*>(.*?)</a>', r"\1", page, flags=re.DOTALL)
    page = re.sub(r"<a\b[^>]*>\s*Show more info\.\.\.\s*</a>", "", page)
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">'
        f'<link rel="icon" href="data:,"><style>{asset("data_docs.css")}</style>'
    )
    return re.sub(r"<head\b[^>]*>", lambda found: found[0] + head, page, count=1, flags=re.IGNORECASE)
