"""The table of goals, `benchmarks/README.md`, written from `benchmarks/results.json`: one row can be measured again alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS
from benchmarks.machine import machine, settings, versions
from benchmarks.timing import ALIKE, Finding

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results.json", HERE / "README.md"

Result = Mapping[str, Any]


def result(finding: Finding, size: str) -> dict[str, Any]:
    """What is kept of a finding: its numbers, and where they are from."""
    now = datetime.now(timezone.utc).isoformat(timespec="minutes")
    where = {"measured_at": now, "size": size, "machine": machine(), "versions": versions()}
    return {**finding.as_dict(), **where}


def keep(found: Mapping[str, Result]) -> None:
    """Put results in the place of older ones of the same goals, and write the page anew."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = {name: {**kept, **found}[name] for name in GOALS if name in {**kept, **found}}
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(kept))


def page(results: Mapping[str, Result]) -> str:
    """The page, in Markdown."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` from `results.json`. Only ratios travel between machines: S is this suite, B0 the same job "
        "by hand with default settings, B1 the same script with the engine's settings. Subjects take turns in one run and "
        "end with the same rows, or there is no ratio. The seconds are medians. A/A is the same subject measured twice: "
        f"where it is outside {ALIKE[0]} to {ALIKE[1]} the machine was not quiet and the row's ratios are not reported.",
        "",
        "`python -m benchmarks --list` lists the goals; `python -m benchmarks --goal NAME --keep` measures one row anew. "
        "[Profiles](profiles.md) show where the time of goals that are not met goes, and what was tried; [scale](scale.md) what "
        "grows with what, and what breaks first.",
        "",
        *table(results),
        "",
        *_notes(results),
        *_origins(results),
    ]
    return "\n".join(lines) + "\n"


def table(results: Mapping[str, Result]) -> list[str]:
    """One row a goal."""
    head = "| goal | measured | met | seconds | CPU-seconds | counts | A/A | rounds |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for name, goal in GOALS.items():
        if name in results:
            lines.append("| " + " | ".join([goal.asks, *_cells(results[name])]) + " |")
        else:
            lines.append(f"| {goal.asks} | not measured yet | | | | | | |")
    return lines


def told(name: str, found: Result) -> str:
    """One result, for a terminal."""
    return "\n".join(
        f"{name}: {line}" for line in [*map(_claim, found["claims"]), f"A/A {found['a_a'] or 'not measured'}"]
    )


def _cells(found: Result) -> list[str]:
    believed = found["believed"]
    subjects = found["subjects"]
    return [
        "<br>".join(map(_claim, found["claims"])) if believed else "not reported: the machine was not quiet",
        ("yes" if found["met"] else "**no**") if believed else "",
        _each(subjects, lambda subject: f"{subject['wall_s']:.3g}"),
        _each(subjects, lambda subject: f"{subject['cpu_s']:.3g}" if subject["cpu_s"] is not None else ""),
        _each(subjects, lambda subject: ", ".join(f"{name} {value:,.4g}" for name, value in subject["counts"].items())),
        f"{found['a_a']:.2f}" if found["a_a"] is not None else "too long to run twice",
        str(found["rounds"]) + ("" if found["size"] == "full" else f" ({found['size']})"),
    ]


def _claim(claim: Mapping[str, Any]) -> str:
    unit = f" {claim['unit']}" if "unit" in claim else ""
    asked = "".join(
        f" ({words} {claim[key]:g})"
        for key, words in (("at_most", "at most"), ("at_least", "at least"))
        if key in claim
    )
    return f"{claim['what']} {claim['value']:,.3g}{unit}{asked}{'' if claim['met'] is not False else ' ✗'}"


def _each(subjects: Mapping[str, Any], show: Any) -> str:
    shown = {name: show(subject) for name, subject in subjects.items()}
    return "<br>".join(f"{name}: {text}" for name, text in shown.items() if text)


def _notes(results: Mapping[str, Result]) -> Iterable[str]:
    yield "## How each was measured"
    yield ""
    for name, found in results.items():
        sizes = ", ".join(f"{key} {value:,}" for key, value in found["settings"].items())
        yield f"- `{name}` ({sizes}): {found['note']}."
    yield ""


def _origins(results: Mapping[str, Result]) -> Iterable[str]:
    yield "## Where the figures are from"
    yield ""
    places: dict[str, list[str]] = {}
    for name, found in results.items():
        versions_ = ", ".join(f"{part} {value}" for part, value in found["versions"].items())
        at = f"{found['machine']['processor']}, {found['machine']['cores']} cores, {found['machine']['memory']}; {versions_}"
        places.setdefault(at, []).append(f"`{name}` ({found['measured_at'][:10]})")
    for at, names in places.items():
        yield f"- {at}: {', '.join(names)}"
    yield ""
    yield "The settings of S and B1, from `microbatch/session.py`; B0 sets none of them but Delta's extension and catalog:"
    yield ""
    yield "```"
    for key, value in settings().items():
        yield f"{key} {value}"
    yield "```"
