"""A small suite that is right, and a way to make it wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from microbatch.config import Suite, load
from microbatch.errors import ConfigError

SUITE = {
    "transforms/shop.py": (
        '"""The shop."""\n\n\ndef refine(orders, products):\n    return orders\n\n\n'
        "def totals(orders):\n    return orders\n"
    ),
    "jobs/shop.py": '''"""Orders of the shop."""

from microbatch import Append, Flow, Job, Replace, Source, Upsert
from transforms import shop

JOB = Job(
    Flow("total", reads="silver.orders", recompute_by=["day"], transform=shop.totals, writes=Replace("gold.days", keys=["day"])),
    Flow("orders", reads=Source("orders", schema="id BIGINT"), writes=Append("bronze.orders")),
    Flow("products", reads=Source("products", schema="id BIGINT"), writes=Upsert("bronze.products", keys="id")),
    Flow(
        "refine",
        reads="bronze.orders",
        snapshots={"products": "bronze.products"},
        transform=shop.refine,
        expects="orders",
        writes=Upsert("silver.orders", keys=["id"], newest_by="at"),
    ),
)
''',
    "conf/base/shop.yml": """owner: shop
sources:
  orders: {kind: files, format: json, path: "${landing}/orders"}
  products:
    kind: files
    format: csv
    path: "${landing}/products"
schedule: {cron: "0 2 * * *"}
alerts:
  - {when: "freshness_h > 26", severity: critical, notify: [ops]}
""",
    "conf/base/environment.yml": """storage: {landing: in}
channels: {ops: {url: "${env:TEST_WEBHOOK:-}"}}
""",
    "expectations/shop/orders.yml": """name: orders
expectations:
  - type: expect_column_values_to_not_be_null
    kwargs: {column: id}
    severity: critical
""",
}


def write(root: Path, files: dict[str, str | None]) -> Path:
    """Write files under a folder; None takes one away."""
    for name, text in files.items():
        file = root / name
        if text is None:
            file.unlink()
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def suite(tmp_path) -> Callable[..., Suite]:
    """Loads the small suite; keyword `edit` replaces text in a file first, `files` adds files."""

    def loader(
        files: dict[str, str | None] | None = None,
        edit: tuple[str, str, str] | None = None,
        env: str = "local",
        **options: object,
    ) -> Suite:
        write(tmp_path / "suite", {**SUITE, **{name: text for name, text in (files or {}).items() if text is not None}})
        write(tmp_path / "suite", {name: text for name, text in (files or {}).items() if text is None})
        if edit:
            name, old, new = edit
            file = tmp_path / "suite" / name
            assert old in file.read_text(), "the edit must change something"
            file.write_text(file.read_text().replace(old, new))
        return load(tmp_path / "suite", env, **options)

    return loader


@pytest.fixture
def refused(suite) -> Callable[..., list[str]]:
    """Loads the suite, which must be wrong; returns the problems, one a line."""

    def loader(*args: object, **options: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            suite(*args, **options)
        assert caught.value.exit_code == 2
        return str(caught.value).split("\n")

    return loader
