"""Kill a run at random moments, again and again, and hold every table against a twin that was never killed.

    python -m tests.soak --kills 200 --seed 7

Each round lands new files in both suites, starts a run of two flows of one of them, one that reads what the other writes, in a
process group of its own, and sends SIGKILL to the group: the JVM dies with it. After one to three kills a run of all flows goes
to its end, most of them in this process, whose JVM is warm,
and `audit` must find every equation true.
At the end every table must equal the twin's row for row, doubles counted, and so must the dead letters. The seed that is
printed gives the same files and the same moments again; where in the code a moment falls is up to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from microbatch.commands import audit
from microbatch.config import Suite, load
from microbatch.runner import run
from microbatch.sink import ops
from microbatch.sink.tables import Table
from microbatch.testing import brief
from tests.landing import Landing
from tests.rows import rows_of

HERE = Path(__file__).resolve().parent.parent
TABLES = ("bronze.orders", "bronze.shops", "silver.customers", "silver.orders", "gold.totals")
LONGEST_S = 300  # a run that takes longer hangs
MEASURED = 10  # of so many runs to the end one has a process of its own
PAIRS = (
    ("take_shops", "take_orders"),
    ("take_orders", "refine"),
    ("take_shops", "follow_customers"),
    ("refine", "total"),
)

JOB = '''
"""All four targets, deletions, a dimension, and a table that grows."""

from microbatch import Append, Flow, History, Job, Replace, Source, Upsert
from transforms import shop

ORDERS = Source("orders", schema="order_id BIGINT, shop BIGINT, amount DECIMAL(10,2), status STRING, day DATE, at TIMESTAMP")
CUSTOMERS = Source("customers", schema="customer BIGINT, tier STRING, at TIMESTAMP")

JOB = Job(
    Flow("take_shops", reads=Source("shops", schema="shop BIGINT, region STRING"), writes=Upsert("bronze.shops", keys=["shop"])),
    Flow("take_orders", reads=ORDERS, writes=Append("bronze.orders")),
    Flow("follow_customers", reads=CUSTOMERS, expects="customers",
         writes=History("silver.customers", keys=["customer"], newest_by="at", delete_when="tier = 'gone'")),
    Flow("refine", reads="bronze.orders", snapshots={"shops": "bronze.shops"}, transform=shop.refine, expects="orders",
         writes=Upsert("silver.orders", keys=["order_id"], newest_by="at", delete_when="status = 'cancelled'")),
    Flow("total", reads="silver.orders", recompute_by=["day"], transform=shop.totals,
         writes=Replace("gold.totals", keys=["day"], evolve="add_columns")),
)
'''
TRANSFORMS = '''
"""Orders and their totals."""

from pyspark.sql import functions as F


def refine(orders, shops):
    """Add the region of the shop and the cents."""
    return orders.join(shops, "shop", "left").withColumn("cents", (F.col("amount") * 100).cast("bigint"))


def totals(orders):
    """Cents a day and region."""
    return orders.groupBy("day", "region").agg(F.sum("cents").alias("cents")EVOLVED)
'''
GROWN = ', F.count(F.lit(1)).alias("orders")'
ORDERS_RULES = """
name: orders
expectations:
  - {type: expect_column_values_to_be_between, kwargs: {column: amount, min_value: 0}, severity: critical}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: region}, severity: critical}
"""
CUSTOMERS_RULES = """
name: customers
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: tier}, severity: critical}
"""
CONF = """
owner: tests
sources:
  shops: {kind: files, format: json, path: "${landing}/shops"}
  orders: {kind: files, format: json, path: "${landing}/orders", max_files_per_batch: 2}
  customers: {kind: files, format: json, path: "${landing}/customers", max_files_per_batch: 2}
retry: {attempts: 0}
"""
SPARK_CONF = {"spark.master": "local[2]", "spark.sql.shuffle.partitions": "1", "spark.driver.memory": "1g"}


class Shop:
    """A suite with every target, on a disk of its own, that is run in processes of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.warehouse = root, str(root / "data/warehouse")
        self.write("jobs/shop.py", JOB)
        self.grow(False)
        self.write("expectations/shop/orders.yml", ORDERS_RULES)
        self.write("expectations/shop/customers.yml", CUSTOMERS_RULES)
        self.write("conf/base/shop.yml", CONF)
        self.configure({})

    def write(self, path: str, text: str) -> None:
        """Write a file as a whole: nobody sees a half of it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_name(f"_{file.name}")
        half.write_text(text)
        half.rename(file)

    def configure(self, more: Mapping[str, str]) -> None:
        """The settings of Spark, with some more."""
        settings = {**SPARK_CONF, **brief(), **more}
        self.write("conf/local/spark.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))

    def grow(self, grown: bool = True) -> None:
        """Give the totals one column more."""
        self.write("transforms/shop.py", TRANSFORMS.replace("EVOLVED", GROWN if grown else ""))

    def land(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            self.write(f"data/landing/{path}", text)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Python with these words, in a process group of its own; what it says goes to `<root>/log.txt`."""
        with (self.root / "log.txt").open("ab") as log:
            return subprocess.Popen([sys.executable, *words], cwd=HERE, stdout=log, stderr=log, start_new_session=True)

    def run(self, flows: Sequence[str] = ()) -> float:
        """A run to its end, of all flows or some; how long it took [s].

        Raises:
            RuntimeError: it failed; with what it said.
        """
        return self._done("run", *_only(flows))

    def audit(self) -> None:
        """Prove the tables.

        Raises:
            RuntimeError: an equation does not hold; with what it said.
        """
        self._done("audit")

    def _done(self, command: str, *more: str) -> float:
        started = time.monotonic()
        with self.start("-m", "microbatch", command, "shop", *more, "--suite", str(self.root)) as process:
            code = process.wait(LONGEST_S)
        if code:
            said = (self.root / "log.txt").read_text(errors="replace").splitlines()
            raise RuntimeError("\n".join([f"{command} ended with {code}", *said[-30:]]))
        return time.monotonic() - started

    def killed_after(self, seconds: float, flows: Sequence[str]) -> bool:
        """Start a run of some flows and SIGKILL its group; False where it was done before."""
        with self.start("-m", "microbatch", "run", "shop", *_only(flows), "--suite", str(self.root)) as process:
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            slay(process)
        if code:
            raise RuntimeError((self.root / "log.txt").read_text(errors="replace")[-3000:])
        return code is None

    def killed_at(self, step: str, count: int = 1) -> bool:
        """Run until a step of a batch is reached for the count-th time, and die there; False where it never came."""
        with self.start("-m", "tests.soak", "--die-at", step, str(count), str(self.root)) as process:
            code = process.wait(LONGEST_S)
            slay(process)
        return code == -signal.SIGKILL

    def rows(self, table: str) -> Counter[str]:
        """Each row as text, and how often it is there; the order of columns does not count."""
        stored = Table(self.warehouse, table)
        found = rows_of(stored.path).to_pylist() if stored.exists() else []
        return Counter(json.dumps(row, default=str, sort_keys=True) for row in found)

    def letters(self) -> Counter[tuple[str, str, str, str]]:
        """Each letter as flow, kind, payload and reasons, and how often it is there."""
        letters = ops.rows(self.warehouse, "quarantine")
        return Counter((each["flow"], each["kind"], each["payload"], str(each["reasons"])) for each in letters)

    def differences(self, twin: Shop) -> list[str]:
        """What is here and not there, and the other way round; nothing where the two are equal."""
        said = []
        for name in TABLES:
            said += [f"{name}: {told}" for told in _differing(self.rows(name), twin.rows(name))]
        return said + [f"letters: {told}" for told in _differing(self.letters(), twin.letters())]

    def unlawful(self) -> list[str]:
        """The rows of the ledger that do not add up, and batches that have two."""
        ledger = ops.rows(self.warehouse, "batches")
        said = []
        for batch in ledger:
            parts = batch["rows_written"] + batch["rows_quarantined"] + batch["rows_superseded"]
            read = batch["rows_unparsed"] + batch["rows_transformed"]
            if batch["rows_transformed"] != parts or (batch["flow"] != "total" and batch["rows_read"] != read):
                said.append(f"does not add up: {batch}")
        twice = Counter((batch["query_id"], batch["batch_id"]) for batch in ledger)
        return said + [f"{count} ledger rows: {key}" for key, count in twice.items() if count > 1]


class Warm(Shop):
    """The suite, killed in processes of its own and run to its end in this one, whose JVM is warm.

    Args:
        measured: run it in a process of its own now and then, to know how long that takes.
    """

    def __init__(self, root: Path, measured: bool = False) -> None:
        super().__init__(root)
        self._measured, self._runs, self._cold_s = measured, 0, 0.0

    def run(self, flows: Sequence[str] = ()) -> float:
        """A run to its end; how long two flows take in a process of their own, where that was measured [s].

        Raises:
            RuntimeError: it failed.
        """
        if self._measured and self._runs % MEASURED == 0:
            self._cold_s = super().run(PAIRS[0])
        if errors := run(self._suite(), ["shop"], flows=flows).errors:
            raise RuntimeError("; ".join(map(str, errors)))
        self._runs += 1
        return self._cold_s

    def audit(self) -> None:
        """Prove the tables.

        Raises:
            RuntimeError: an equation does not hold; with what it said.
        """
        with redirect_stdout(StringIO()) as said:
            code = audit.execute(self._suite(), self._suite().job("shop"))
        if code:
            raise RuntimeError(f"audit ended with {code}\n{said.getvalue()}")

    def _suite(self) -> Suite:
        return load(self.root, "local")


def _only(flows: Sequence[str]) -> list[str]:
    return [word for flow in flows for word in ("--flow", flow)]


def _differing(here: Counter, there: Counter) -> Iterator[str]:
    yield from (f"{count} more than the twin of {row}" for row, count in (here - there).items())
    yield from (f"{count} fewer than the twin of {row}" for row, count in (there - here).items())


def slay(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the whole group, its JVM included, and wait until it is gone."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        process.poll()
        time.sleep(0.05)
    process.wait(5)


def die_at(root: Path, step: str, count: int) -> int:
    """Run the job in this process, and end it by SIGKILL when the step is reached for the count-th time."""
    left = [count]

    def reached(name: str, _: int) -> None:
        left[0] -= name == step
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    return run(load(root, "local"), ["shop"], reached=reached).exit_code


def soak(shop: Shop, twin: Shop, kills: int, seed: int) -> None:
    """Kill so many runs, half of them before a table grows by a column and half of them after.

    Args:
        shop: the suite whose runs are killed.
        twin: takes in the same files, and is never killed.

    Raises:
        RuntimeError: a run or an audit failed, or the tables are not those of the twin; names the seed.
    """
    chance = random.Random(seed)
    landing = Landing(chance)
    for each in (shop, twin):
        each.land(landing.shops())
    took: list[float] = []
    for half, count in enumerate((kills - kills // 2, kills // 2)):
        for each in (shop, twin):
            each.grow(bool(half))
        killed = deep = 0
        while killed < count:
            files = landing.round()
            shop.land(files)
            twin.land(files)
            if took:
                # Before the JVM is up there is nothing to break: a quarter of a run that is measured.
                moment = statistics.median(took) * chance.uniform(0.25, 1.1)
                flows = chance.choice(PAIRS)
                hit = shop.killed_after(moment, flows)
                killed, deep = killed + hit, deep + hit
                number, what = killed + half * (kills - kills // 2), "killed" if hit else "was done"
                print(f"{number} of {kills}: {', '.join(flows)} {what} at {moment:.1f} s")
            if not took or deep == 3 or chance.random() < 0.4:
                took.append(shop.run())
                shop.audit()
                deep = 0
        shop.run()
        shop.audit()
        twin.run()
        _compare(shop, twin, seed)


def _compare(shop: Shop, twin: Shop, seed: int) -> None:
    if wrong := [*shop.differences(twin), *shop.unlawful(), *twin.unlawful()]:
        raise RuntimeError("\n".join([f"seed {seed}, {shop.root}: {len(wrong)} differences", *wrong[:50]]))


def main(arguments: Sequence[str]) -> int:
    """The script; 1 where something was lost or doubled. What was run stays in the folder that is printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--die-at", nargs=3, metavar=("STEP", "COUNT", "SUITE"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.die_at:
        step, count, root = given.die_at
        return die_at(Path(root), step, int(count))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {given.seed}, {given.kills} kills, in {folder}")
    try:
        soak(Warm(folder / "killed", measured=True), Warm(folder / "twin"), given.kills, given.seed)
    except RuntimeError as failed:
        print(failed, file=sys.stderr)
        return 1
    print("every row is there once, as in the twin")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
