"""The page: a template, a style and a script, all of them inside one file that asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from microbatch.commands.report import graph
from microbatch.commands.report.gather import MOST_RUNS, JobFound
from microbatch.config import Suite
from microbatch.errors import redacted
from microbatch.job import Source

if TYPE_CHECKING:
    from jinja2 import Environment

ASSETS = files("microbatch.commands.report") / "assets"
NOTHING = "\N{EN DASH}"
SCRIPTS = ("d3.min.js", "plot.umd.min.js", "page.js")  # Observable Plot draws with d3


def render(suite: Suite, found: Sequence[JobFound], docs: Mapping[str, str], now: datetime) -> str:
    """The page as text, every secret taken out.

    Args:
        docs: job -> where its Data Docs are, relative to the page.
    """
    style, scripts = asset("page.css"), [asset(name) for name in SCRIPTS]
    places = [f"/* {number} */" for number in range(len(scripts))]
    text = (
        environment()
        .get_template("page.html")
        .render(
            suite=suite,
            jobs=[_shown(job) for job in found],
            docs=docs,
            now=now,
            scripts=places,
            csp=policy(scripts),
            charts={job.job.name: _charts(job) for job in found},
            most_runs=MOST_RUNS,
        )
    )
    text = redacted(text, suite.secrets)
    # Put in last: cut out of a script, a short secret would break it, and the policy knows it by its hash.
    for place, script in zip(places, scripts, strict=True):
        text = text.replace(f"<script>{place}</script>", f"<script>{script}</script>")
    return text.replace("<style></style>", f"<style>{style}</style>")


def asset(name: str) -> str:
    """One of the files that come with the package."""
    return (ASSETS / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str] = ()) -> str:
    """A content security policy under which only these scripts run and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; img-src data:; base-uri 'none'"


def environment() -> Environment:
    """Templates that escape every value."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(count=_count, share=_share, hours=_hours, minute=_minute, seconds=_seconds)
    return made


def _shown(found: JobFound) -> dict[str, Any]:
    notes = {each.flow: f"{each.all_rows_written:,} written" for each in found.standings}
    states = {each.flow: each.last_status or "" for each in found.standings}
    schedule = found.job.conf.schedule
    return {
        "found": found,
        "name": found.job.name,
        "graphs": [(name, graph.draw(found.job, notes, states, down=name == "narrow")) for name in ("wide", "narrow")],
        "reads": {f.name: f.reads.name if isinstance(f.reads, Source) else f.reads for f in found.job.flows},
        "writes": {flow.name: flow.writes.table for flow in found.job.flows},
        "sla_m": schedule.sla_m if schedule else None,
        "limits": {alert.condition.metric: alert.condition.threshold for alert in found.job.conf.alerts},
    }


def _charts(found: JobFound) -> dict[str, Any]:
    """The numbers that the script draws."""
    runs = [
        {
            "at": run["started_at"].isoformat(timespec="seconds"),
            "minutes": round((run["finished_at"] - run["started_at"]).total_seconds() / 60, 3),
            "status": run["status"],
        }
        for run in found.runs[-120:]
    ]
    schedule = found.job.conf.schedule
    fresh = [a.condition.threshold for a in found.job.conf.alerts if a.condition.metric == "freshness_h"]
    return {
        "flows": found.steps,
        "runs": runs,
        "sla_m": schedule.sla_m if schedule else None,
        "freshness_h": min(fresh, default=None),
        "trends": [rule.trend for rule in found.broken],
        "reasons": [{"reason": each.demand, "letters": each.letters, "open": each.open} for each in found.reasons[:12]],
    }


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _share(value: float) -> str:
    if value and value < 0.0001:
        return "< 0.01 %"
    return f"{value * 100:.2f} %" if value < 0.1 else f"{value * 100:.1f} %"


def _hours(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value * 60:.0f} min" if value < 1 else f"{value:.1f} h" if value < 48 else f"{value / 24:.1f} days"


def _minute(value: datetime | None) -> str:
    return "never" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def _seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
