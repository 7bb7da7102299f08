"""What a shell may complete: the jobs and the environments of the suite that is meant, read from the names of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


class JobName(click.ParamType):
    """The name of a job; whether there is one is found by the command."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = (file.stem for file in sorted(_suite(ctx).glob("jobs/*.py")))
        return list(_items(names, incomplete, ctx.params.get(param.name or "")))


class EnvironmentName(click.ParamType):
    """The name of an environment."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        folders = (folder.name for folder in sorted(_suite(ctx).glob("conf/*/")) if folder.name != "base")
        return list(_items(dict.fromkeys(("local", *folders)), incomplete, None))


def _suite(ctx: click.Context) -> Path:
    return Path(ctx.params.get("suite") or ".")


def _items(names: Any, incomplete: str, said: Any) -> Iterator[CompletionItem]:
    """Those that begin so, without those that were said already."""
    from microbatch.config.names import is_name  # here: conf's records are loaded with it, which `--help` does not need

    for name in names:
        if is_name(name) and name.startswith(incomplete) and name not in (said or ()):
            yield CompletionItem(name)
