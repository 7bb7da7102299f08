"""What twelve rules cost: against the same batch without them, and against Great Expectations' own validation."""

from __future__ import annotations

from pathlib import Path

from benchmarks.goals.goal import Goal, Size
from benchmarks.orders import Pool, consecutive
from benchmarks.timing import Claim, Finding, Sample, counts, interleave, say, wall
from benchmarks.workers import PEERS, of_batches, workers


def _twelve(folder: Path, size: Size) -> Finding:
    rows, bad = size["rows"], size["bad"]
    good_pool, bad_pool = Pool(folder, f"rules_{rows}_0"), Pool(folder, f"rules_{rows}_{bad}")

    def good(number: int) -> Path:
        return good_pool.file(number, consecutive(number * rows, rows))

    def with_bad(number: int) -> Path:
        return bad_pool.file(number, consecutive(number * rows, rows), bad)

    others = ["GX", *(["DQX"] if PEERS.exists() else [])]
    with workers(folder / "rules", "S", *others) as subjects:
        engine = subjects["S"]

        def taken(job: str, file: Path) -> Sample:
            return of_batches(engine.run(job, [file]))

        def validated(by: str, number: int) -> Sample:
            found = subjects[by].ask(do="validate", by=by, file=str(good(number)))
            return Sample(found["seconds"], counts={"Spark jobs": found["jobs"]})

        turns = interleave(
            {
                "no rules": lambda number: taken("unjudged_orders", good(number)),
                "12 rules": lambda number: taken("judged_orders", good(number)),
                "no rules again": lambda number: taken("unjudged_orders", good(1_000 + number)),
                "11 rules": lambda number: taken("row_rules", good(number)),
                **{by: lambda number, by=by: validated(by, number) for by in others},
            },
            size["rounds"],
            prepare=lambda number: (good(number), good(1_000 + number)),
        )
        jobs = {name: counts(samples)["Spark jobs"] for name, samples in turns.items()}
        leaving = of_batches(engine.run("judged_orders", [with_bad(2_000)])).counts["Spark jobs"]
    none, added = wall(turns["no rules"]), wall(turns["12 rules"]) - wall(turns["no rules"])
    say(f"12 rules add {added:.3f} s to {none:.3f} s; GX adds {wall(turns['GX']):.3f} s")
    return Finding(
        (
            Claim("12 rules/batch", added / none, at_most=0.05),
            Claim("extra Spark jobs", jobs["12 rules"] - jobs["no rules"], at_most=0),
            Claim("extra with quarantine", leaving - jobs["no rules"], at_most=1),
            Claim("12 rules/what GX adds", added / wall(turns["GX"]), at_most=0.03),
            *([Claim("12 rules/what DQX adds", added / wall(turns["DQX"]))] if "DQX" in turns else []),
            Claim("11 rules, without uniqueness/batch", wall(turns["11 rules"]) / none - 1),
        ),
        turns,
        wall(turns["no rules again"]) / none,
        len(turns["12 rules"]),
        size,
        "an append of JSON lines in one batch, the first of its query; GX (and DQX, where `make peers` has made its "
        "environment) looks at rows that are in memory already; "
        "the job that plans the rules, once a run, is not of the batch",
    )


TWELVE = Goal(
    "twelve_rules",
    "12 rules (8 row, 3 aggregate, 1 uniqueness) at 1 M rows: at most 5 % of the batch; no extra job, 1 with quarantine; "
    "at most 0.03 of the time GX itself adds",
    _twelve,
    full={"rows": 1_000_000, "rounds": 7, "bad": 100},
    fast={"rows": 200_000, "rounds": 3, "bad": 100},
    smoke={"rows": 50_000, "rounds": 2, "bad": 10},
)
