"""What conf may say of files that arrive in a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    model_validator,
)

from microbatch.config.kinds.source import SourceConf, at_key
from microbatch.config.values import Count, Location

REFUSED_OPTIONS: Mapping[str, str] = {
    "latestfirst": "reads the newest files first, and with an age limit never reads the others",
    "filenameonly": "takes files of one name in two folders for the same file, and never reads the second",
    "recursivefilelookup": "is always on: a file in a folder below would never be read",
    "cleansource": "takes away files that a batch must be able to read again",
    "sourcearchivedir": "takes away files that a batch must be able to read again",
    "ignorecorruptfiles": "drops the rest of a damaged file without a word; a damaged file goes to quarantine",
    "ignoremissingfiles": "skips files that vanished, without a word",
    "maxfileage": "skips files whose time stamp is old, without a word",
    "columnnameofcorruptrecord": "renames the column by which the engine finds what did not parse",
    "path": "is a key of its own, beside options",
    "paths": "reads from elsewhere; write one path, beside options",
    "basepath": "reads from elsewhere; write one path, beside options",
    "maxfilespertrigger": "is the key max_files_per_batch, beside options",
    "maxbytespertrigger": "is the key max_bytes_per_batch, beside options",
}
# Hadoop reads these one way and Python another: a run would not look for a file that Spark takes.
ODD = re.compile(r"[{}\\]|\[\^")
_ODD = "a pattern with braces, a backslash or [^ is not read"


def _option_name(name: str) -> str:
    if why := REFUSED_OPTIONS.get(name.lower()):
        raise ValueError(f"is not allowed: it {why}")
    return name


def _option_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("must be text, a number, true or false")


_Value = Annotated[str, BeforeValidator(_option_value), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Options = dict[Annotated[str, AfterValidator(_option_name)], _Value]


class FilesConf(SourceConf):
    """Files that arrive in a folder.

    Attributes:
        path: absolute local path or URI.
        options: Spark's reader options for the format, all as text.
        max_files_per_batch, max_bytes_per_batch: None: all that is there.
    """

    kind: Literal["files"]
    format: Literal["json", "csv", "parquet", "text", "avro", "orc"]
    path: Location
    options: Options = Field(default_factory=dict)
    max_files_per_batch: Count | None = None
    max_bytes_per_batch: Count | None = None

    @model_validator(mode="after")
    def _fits_its_format(self) -> FilesConf:
        if self.unknown_fields != "ignore" and self.format in ("text", "csv"):
            raise at_key("unknown_fields", f"{self.format} carries no field names, so leave it out or write ignore")
        for name, value in self.options.items():
            if name.lower() == "mode" and value.upper() != "PERMISSIVE":
                raise at_key(
                    "options", f"{name} can only be PERMISSIVE: the others drop bad rows, or stop at the first"
                )
            if (
                name.lower() in ("encoding", "charset")
                and self.format != "csv"
                and value.lower() not in ("utf-8", "utf8")
            ):
                raise at_key(
                    "options", f"{name}: {self.format} files are read as UTF-8; convert them before they are landed"
                )
            if name.lower() == "pathglobfilter" and ODD.search(value):
                raise at_key("options", f"{name}: {_ODD}; write one with * and ?, or [ab] and [!ab]")
        if ODD.search(self.path.replace("${", "$")):
            raise at_key("path", f"{_ODD}; write a folder, or a pattern with * and ?")
        return self

    def place(self, root: Path) -> str:
        path = Path(self.path)
        return f"{self.format} files in {path.relative_to(root) if path.is_relative_to(root) else self.path}"

    def identity(self) -> dict[str, Any]:
        return {"format": self.format, "path": self.path}

    def _places(self) -> tuple[str, ...]:
        return ("_file STRING", "_file_modified TIMESTAMP") if self.metadata else ()
