"""What a transform or a rule did wrong, found when a batch is lost anyway: in a sentence, with what is at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from microbatch.errors import RuleBroken, TransformBroken, shortened
from microbatch.job import snapshots_of
from microbatch.sources.snapshots import read
from microbatch.work import Kept, Work

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def broken(work: Work, batch_id: int, cause: BaseException | None, what: str | None = None) -> TransformBroken:
    """The error that names the transform."""
    transform = work.flow.transform
    name = f"{transform.__module__}.{transform.__name__}" if transform else "none"
    return TransformBroken(
        work.flow.name,
        batch_id,
        name,
        what or f"{type(cause).__name__}: {shortened((str(cause).splitlines() or [''])[0], 300)}",
    )


def broken_rule(work: Work, batch_id: int, what: str) -> RuleBroken:
    """The error that names where the rules of a flow stand."""
    flow = work.flow
    named = [f"expectations/{work.job}/{flow.expects}"] if flow.expects else []
    named += [f"delete_when of flow {flow.name}"] if getattr(flow.writes, "delete_when", None) else []
    return RuleBroken(flow.name, batch_id, " or ".join(named) or "the engine's own checks of keys", what)


def comes_out(shaped: DataFrame) -> bool:
    """Whether a transform's rows can all be computed. Only asked when the batch is lost anyway."""
    try:
        shaped.write.format("noop").mode("overwrite").save()
    except Exception:  # whatever it is, it is the transform's, or that of the rows it reads
        return False
    return True


def raised(cause: BaseException) -> str | None:
    """What an expression raised over a row (ANSI mode: a bad cast, an overflow, a division by zero), or None."""
    condition = getattr(cause, "getCondition", lambda: None)()
    if condition is None:
        return None
    state = getattr(cause, "getSqlState", lambda: None)() or ""
    return (
        f"{condition}: {shortened(str(cause).splitlines()[0], 300)}"
        if state.startswith("22") or condition == "USER_RAISED_EXCEPTION"
        else None
    )


def multiplying(work: Work, kept: Kept, came_out: int) -> list[str]:
    """The snapshots without whose rows fewer come out. Only asked when the batch is lost anyway."""
    assert work.flow.transform is not None
    rows = kept.rows.where("_unparsed IS NULL").drop("_unparsed", "_problem")
    wanted, spark = snapshots_of(work.flow), rows.sparkSession
    all_ = {name: read(spark, work.warehouse, work.flow.name, wanted[name], work.now()) for name in wanted}
    return [
        f"{name} ({snapshots_of(work.flow)[name].table})"
        for name in all_
        if work.flow.transform(rows, **{**all_, name: all_[name].limit(0)}).count() < came_out
    ]
