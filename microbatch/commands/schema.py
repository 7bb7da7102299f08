"""`microbatch schema`: the JSON Schema of the files of conf, on stdout."""

from __future__ import annotations

import json

from microbatch.config.schema import ConfFile, schema_of


def execute(of: ConfFile | None, overlay: bool) -> int:
    """Print it; see `schema_of`."""
    print(json.dumps(schema_of(of, overlay), indent=2))
    return 0
