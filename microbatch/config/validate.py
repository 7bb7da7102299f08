"""From plain data to the records of `models`, and from pydantic's errors to sentences with a file and a line."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from microbatch.config.interpolate import Interpolation
from microbatch.config.kinds import KINDS, SourceConf
from microbatch.config.names import NAME_RULE, hint, is_name
from microbatch.config.tree import Tree
from microbatch.errors import Problem
from microbatch.strictyaml import Key

Record = TypeVar("Record", bound=BaseModel)
Where = tuple[Key, ...]

HIDDEN = (
    ("connections",),
    ("channels",),
    ("lineage",),
)  # what stands there may be a secret even where it is written out
_EXPECTED = {
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}


def validate(
    model: type[Record],
    data: Any,
    tree: Tree,
    problems: list[Problem],
    *,
    at: Where = (),
    root: Path,
    references: Interpolation,
) -> Record | None:
    """The record that a mapping of conf is.

    Args:
        at: where in the tree the data stands.
        root: the suite's folder, for relative paths.
        references: what was looked up in it: paths whose values no message may show, paths that have failed already.

    Returns:
        The record; None where it has problems, which are then added to `problems`.
    """
    try:
        return model.model_validate(data, context={"root": root})
    except ValidationError as cause:
        told = set(references.failed)
        for error in cause.errors(include_url=False):
            path = _path(model, error, at)
            if path not in told:  # each branch of a union has its own complaint about the same value
                told.add(path)
                problems.append(tree.problem(path, _told(model, error, path, at, references.tainted)))
    return None


def validate_sources(
    data: Any, tree: Tree, problems: list[Problem], *, root: Path, references: Interpolation
) -> dict[str, SourceConf]:
    """The records of the mapping `sources`, each of the class that its `kind` names; without those with problems."""
    if not isinstance(data, Mapping):
        problems.append(tree.problem(("sources",), "must be a mapping of source names to what is known about each"))
        return {}
    found: dict[str, SourceConf] = {}
    for name, given in data.items():
        at = ("sources", name)
        if not is_name(name):
            problems.append(tree.problem(at, f"is not a name: {NAME_RULE}"))
            continue
        kind = given.get("kind") if isinstance(given, Mapping) else None
        if not isinstance(given, Mapping):
            problems.append(tree.problem(at, "must be a mapping of keys to values"))
        elif kind is None:
            problems.append(tree.problem(at, f"needs the key kind: one of {', '.join(KINDS)}"))
        elif not isinstance(kind, str) or kind not in KINDS:
            plain = isinstance(kind, str) and (*at, "kind") not in references.tainted
            what = f"there is no {f'kind {kind}' if plain else 'such kind'}{hint(kind, KINDS)}"
            problems.append(tree.problem((*at, "kind"), what))
        else:
            record = validate(KINDS[kind], given, tree, problems, at=at, root=root, references=references)
            if record is not None:
                found[name] = record
    return found


def _path(model: type[BaseModel], error: Any, at: Where) -> Where:
    further = [error["ctx"]["key"]] if error["type"] == "at_key" else []
    return (*at, *_real(model, error["loc"]), *further)


def _told(model: type[BaseModel], error: Any, path: Where, at: Where, tainted: set[Where]) -> str:
    """The sentence about an error; without the value where that may hold a secret."""
    near = any(known[: len(path)] == path or path[: len(known)] == known for known in tainted)
    if (near or path[:1] in HIDDEN) and error["type"] in ("value_error", "at_key", "literal_error"):
        return "is not valid; what stands there is not shown, for it may be a secret"
    return _sentence(model, error, path[len(at) :])


def _sentence(model: type[BaseModel], error: Any, inner: Where) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"there is no such key{hint(inner[-1], _keys(model, inner[:-1]), listed='there are')}"
    if kind == "missing":
        return "is needed here"
    if kind == "literal_error":
        choices = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
        return f"must be one of {', '.join(choices)}, not {error['input']}{_near(error['input'], choices)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "at_key":
        return str(context["what"])
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        words = {"greater_than": "more than", "greater_than_equal": "at least", "less_than_equal": "at most"}[kind]
        return f"must be {words} {context.get('gt', context.get('ge', context.get('le'))):g}"
    if kind in ("too_long", "too_short"):
        return "has too many entries" if kind == "too_long" else "has too few entries"
    return _EXPECTED.get(kind, error["msg"][:1].lower() + error["msg"][1:])


def _near(word: Any, choices: list[str]) -> str:
    text = hint(word, choices)
    return text if "did you mean" in text else ""


def _real(model: type[BaseModel], loc: tuple[Key, ...]) -> Where:
    """Pydantic's path without what it adds: the branches of a union, and the mark of a mapping's key."""
    path: list[Key] = []
    annotation: Any = model
    for part in loc:
        inner = _inside(annotation, part)
        if inner is not None:
            path.append(part)
            annotation = inner
        elif _model(annotation) is not None:
            path.append(part)
            break
    return tuple(path)


def _keys(model: type[BaseModel], path: Where) -> list[str]:
    """The keys that the mapping at a path may have."""
    annotation: Any = model
    for part in path:
        annotation = _inside(annotation, part)
    found = _model(annotation)
    return list(found.model_fields) if found else []


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return next((found for branch in typing.get_args(annotation) if (found := _model(branch))), None)
    return None


def _inside(annotation: Any, part: Key) -> Any:
    """The annotation of what stands under a key or at a position of it; None where nothing does."""
    if model := _model(annotation):
        known = model.model_fields.get(str(part))
        return known.annotation if known else None
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return next((found for branch in inner if (found := _inside(branch, part)) is not None), None)
    if origin is typing.Annotated:
        return _inside(inner[0], part)
    if origin is dict:
        return inner[1] if part != "[key]" else None
    if origin is tuple and isinstance(part, int):
        return inner[0]
    return None
