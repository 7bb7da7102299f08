"""Files for the suite that is soaked: the same for the same seed, with some of everything that is bad."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass
class Landing:
    """Files to land, the same for the same seed: few keys and many versions of each, and some of everything that is bad."""

    random: random.Random
    _number: int = 0
    _at: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def shops(self) -> dict[str, str]:
        """The dimension: landed once, so that the twin's rows do not depend on when a batch ran."""
        return {"shops/1.json": _lines({"shop": shop, "region": f"r{shop % 2}"} for shop in range(4))}

    def round(self) -> dict[str, str]:
        """A file or two of orders, and one of customers."""
        self._number += 1
        orders = {f"orders/{self._number:05}-{part}.json": self._orders() for part in range(self.random.randint(1, 2))}
        return {**orders, f"customers/{self._number:05}.json": self._customers()}

    def _orders(self) -> str:
        return _lines(self._order() for _ in range(self.random.randint(1, 30)))

    def _order(self) -> dict[str, object] | str:
        chance = self.random.random()
        if chance < 0.04:
            return self.random.choice(['{"order_id": 7, "am', "nonsense", '{"order_id": "seven"}'])
        return {
            "order_id": None if chance < 0.06 else self.random.randrange(60),
            "shop": self.random.choice([0, 1, 2, 3, 3, 9]),
            "amount": f"{self.random.randrange(-100, 2000) / 100:.2f}",
            "status": self.random.choice(["open", "open", "paid", "cancelled"]),
            "day": f"2024-01-0{self.random.randint(1, 5)}",
            "at": self._when(),
        }

    def _customers(self) -> str:
        def customer() -> dict[str, object]:
            tier = self.random.choice(["gold", "silver", "gone", None])
            return {"customer": self.random.randrange(20), "tier": tier, "at": self._when()}

        return _lines(customer() for _ in range(self.random.randint(1, 8)))

    def _when(self) -> str:
        # Out of order, and no two alike: versions that differ make the tables independent of how rows fall into batches.
        seconds, micros = self.random.randrange(10_000), next(self._at)
        return (datetime(2024, 1, 1) + timedelta(seconds=seconds, microseconds=micros)).isoformat() + "Z"


def _lines(records: Iterator[dict[str, object] | str]) -> str:
    return "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in records)
