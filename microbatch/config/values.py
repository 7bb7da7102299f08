"""The types of single values in conf, and the record that all others are made of.

A value may come from the environment, so a number may be written as text; but true and false are the only booleans, and
a boolean is not a number.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_uri(path: str) -> bool:
    """Whether it is a URI such as s3a://bucket/folder, not a path of this machine."""
    return _URI.match(path) is not None


def resolved(path: str, suite: Path) -> str:
    """A path of conf: URIs as they are, `file:` URIs and `~` as local paths, relative ones under the suite."""
    if path.startswith("file:/"):
        path = "/" + path.removeprefix("file:").lstrip("/")
    if is_uri(path):
        return path.rstrip("/")
    return os.path.normpath(suite / os.path.expanduser(path))


def a_number(value: Any) -> Any:
    """Refuses a boolean, which Python counts among the numbers.

    Raises:
        ValueError: it is one.
    """
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _boolean(value: Any) -> Any:
    if isinstance(value, str) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _under_the_suite(value: str, info: ValidationInfo) -> str:
    return resolved(value, (info.context or {}).get("root", Path.cwd()))


def _place(value: str, info: ValidationInfo) -> str:
    suite, path = (info.context or {}).get("root", Path.cwd()), _under_the_suite(value, info)
    relative = not is_uri(value) and not os.path.isabs(os.path.expanduser(value))
    if relative and not Path(path).is_relative_to(suite):
        raise ValueError("leaves the suite; write an absolute path, or a storage root to start it with")
    return path


Text = Annotated[str, AfterValidator(_not_blank)]
Location = Annotated[Text, AfterValidator(_place)]  # of data: a relative one stays inside the suite
FilePath = Annotated[Text, AfterValidator(_under_the_suite)]
Words = Annotated[str, Field(coerce_numbers_to_str=True), WithJsonSchema({"type": ["string", "number"]})]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
Count = Annotated[int, Field(ge=1), BeforeValidator(a_number)]
CountOrZero = Annotated[int, Field(ge=0), BeforeValidator(a_number)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(a_number)]
AmountOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(a_number)]


class Strict(BaseModel):
    """A frozen mapping with known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
