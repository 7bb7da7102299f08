"""Great Expectations' Spark engine over an empty frame: it hands out Columns and refuses whatever needs rows.

With `graph` this is what uses parts of Great Expectations that are private; see there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from types import SimpleNamespace
from typing import Any

from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

BATCH = "batch"


class NeedsRows(Exception):
    """A metric wants the rows themselves, or a number over all of them: it cannot ride in the pass that writes."""


class Unknown:
    """A number that only the rows can give. Whoever looks at it needs the rows."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def _used(self, *_: object) -> Any:
        raise NeedsRows(f"its condition depends on {self.__dict__['_name']} of the whole batch")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = __int__ = _used
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _used
    __iter__ = __len__ = __getitem__ = __neg__ = __abs__ = __index__ = __getattr__ = _used
    __hash__ = object.__hash__


class _Filters:
    """Stands where Great Expectations expects a DataFrame, and remembers what it filters by."""

    def __init__(self, frame: DataFrame, conditions: tuple[Column, ...] = ()) -> None:
        self._frame, self._conditions = frame, conditions

    def filter(self, condition: Column | str) -> _Filters:
        added = F.expr(condition) if isinstance(condition, str) else condition
        return _Filters(self._frame, (*self._conditions, added))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)

    def condition(self) -> Column | None:
        return reduce(lambda left, right: left & right, self._conditions) if self._conditions else None


class Engine(SparkDFExecutionEngine):
    """Great Expectations' Spark engine over an empty frame: it hands out Columns and never runs a job."""

    def __init__(self, empty: DataFrame) -> None:
        super().__init__(spark=empty.sparkSession, persist=False)
        self.load_batch_data(BATCH, empty)
        self.empty = empty
        self.blind = False

    def resolve_metric_bundle(self, metric_fn_bundle: Any) -> Any:
        if not metric_fn_bundle:
            return {}
        names = ", ".join(metric.metric_configuration.metric_name for metric in metric_fn_bundle)
        raise NeedsRows(f"it needs {names} of the whole batch first")

    def get_domain_records(self, domain_kwargs: dict[str, Any]) -> Any:
        if self.blind:
            raise NeedsRows("it reads the rows themselves, not counts")
        return super().get_domain_records(domain_kwargs)

    def domain(self, domain_kwargs: Mapping[str, Any]) -> Column | None:
        """The rows a metric looks at (row_condition, null filter, ignore_row_if) as a condition; None: all of them."""
        cache = self.batch_manager.batch_data_cache
        real = cache[BATCH]
        cache[BATCH] = SimpleNamespace(dataframe=_Filters(self.empty))
        try:
            condition: Column | None = super().get_domain_records(dict(domain_kwargs)).condition()
            return condition
        finally:
            cache[BATCH] = real

    @contextmanager
    def blinded(self) -> Iterator[None]:
        self.blind = True
        try:
            yield
        finally:
            self.blind = False
