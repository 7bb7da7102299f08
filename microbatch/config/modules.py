"""Running the Python files of a suite, and turning what they raise into one sentence with a file and a line.

A suite's `jobs` and `transforms` are its own, whatever else is importable under these names: the two packages are made
anew for each suite that is loaded, and the modules of the suite before are forgotten. Nothing is written into the
folder.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from microbatch import job as declarations
from microbatch.config.names import hint
from microbatch.errors import Problem

PACKAGES = ("jobs", "transforms")
_ENGINE = Path(declarations.__file__).parent
_KEYWORD = re.compile(r"(?P<call>\w+)(\.__init__)?\(\) got an unexpected keyword argument '(?P<word>\w+)'")
_MISSING = re.compile(r"(?P<call>\w+)(\.__init__)?\(\) missing \d+ required \w+ arguments?: (?P<words>.+)")
_CANNOT = re.compile(r"cannot import name '(?P<word>\w+)' from")

# The suite whose modules are in sys.modules now, and what was there before it: a process has one sys.modules.
_before: list[tuple[Path, frozenset[str]]] = []


def run_jobs(root: Path, files: Iterable[Path], problems: list[Problem]) -> dict[str, ModuleType]:
    """Run the job files of a suite.

    Args:
        root: the suite, absolute.
        files: `jobs/<name>.py`, each.
        problems: gets one for each file that could not be run.

    Returns:
        The modules by job name, without those that could not be run.
    """
    loaded: dict[str, ModuleType] = {}
    with _importing_from(root):
        for package in PACKAGES:
            try:
                _make_package(root, package)
            except (Exception, SystemExit) as cause:
                problems.append(_explained(cause, root, root / package / "__init__.py"))
        for file in files:
            try:
                loaded[file.stem] = _run(f"jobs.{file.stem}", file)
            except (Exception, SystemExit) as cause:
                problems.append(_explained(cause, root, file))
    return loaded


@contextmanager
def _importing_from(root: Path) -> Iterator[None]:
    for suite, known in _before:
        _forget(suite, known)
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    _before[:] = [(root, frozenset(sys.modules))]
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()  # a folder may have been written a moment ago
    writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writing


def _forget(root: Path, known: frozenset[str]) -> None:
    """Drop the modules that a suite brought from beside its jobs, and the suite from the path."""
    if str(root) in sys.path:
        sys.path.remove(str(root))
    beside = {name for name in {name.split(".")[0] for name in sys.modules} - known if _stands_in(root, name)}
    for name in [name for name in sys.modules if name.split(".")[0] in beside]:
        del sys.modules[name]


def _stands_in(root: Path, name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and Path(file) in (root / f"{name}.py", root / name / "__init__.py")


def _make_package(root: Path, name: str) -> None:
    init = root / name / "__init__.py"
    if init.is_file():
        _run(name, init, search=[str(root / name)])
    else:
        package = ModuleType(name)
        package.__path__ = [str(root / name)]
        sys.modules[name] = package


def _run(name: str, file: Path, search: list[str] | None = None) -> ModuleType:
    """The module of a file, run once; by path, so that nothing else of that name can come before it."""
    if name in sys.modules:  # another job has imported it
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} cannot be run as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if search is None:  # a package stays: its modules can still be run, and may have more to say
            del sys.modules[name]
        raise
    if parent := sys.modules.get(name.rpartition(".")[0]):
        setattr(parent, name.rpartition(".")[2], module)
    return module


def _explained(cause: BaseException, root: Path, file: Path) -> Problem:
    """What happened, and the last line of the suite's own that it happened in."""
    where, line, variables = file, 0, {}  # type: Path, int, dict[str, Any]
    for frame, number in traceback.walk_tb(cause.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(root) and not path.is_relative_to(_ENGINE) and "site-packages" not in path.parts:
            where, line, variables = path, number, {**vars(builtins), **frame.f_globals, **frame.f_locals}
    if isinstance(cause, SyntaxError) and cause.filename and Path(cause.filename).is_relative_to(root):
        where, line = Path(cause.filename), cause.lineno or 0
    place = where.relative_to(root).as_posix()
    return Problem(f"{place}:{line}" if line else place, _sentence(cause, root, variables))


def _sentence(cause: BaseException, root: Path, variables: dict[str, Any]) -> str:
    text = " ".join(str(cause).split())
    if isinstance(cause, SyntaxError):
        return f"is not valid Python: {cause.msg}"
    if isinstance(cause, ModuleNotFoundError):
        return f"there is no module {cause.name}{_near(cause.name or '', _modules(root))}"
    if isinstance(cause, ImportError) and (found := _CANNOT.search(text)):
        return f"{cause.name} has no {found['word']}{_near(found['word'], _members(root, cause.name or ''))}"
    if isinstance(cause, AttributeError) and cause.name:
        owner = getattr(cause.obj, "__name__", type(cause.obj).__name__)
        return f"{owner} has no {cause.name}{_near(cause.name, dir(cause.obj))}"
    if isinstance(cause, NameError) and cause.name:
        return f"{cause.name} is not defined{_near(cause.name, variables)}"
    if isinstance(cause, TypeError) and (found := _KEYWORD.search(text)):
        known = getattr(getattr(declarations, found["call"], None), "__dataclass_fields__", {})
        return f"{found['call']} has no argument {found['word']}{hint(found['word'], known, listed='it has')}"
    if isinstance(cause, TypeError) and (found := _MISSING.search(text)):
        return f"{found['call']} needs {found['words'].replace(chr(39), '')}"
    if isinstance(cause, SystemExit):
        return "ends the program; a suite's file only declares"
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _near(word: str, known: Iterable[str]) -> str:
    text = hint(word, [name for name in known if not name.startswith("__")])
    return text if "did you mean" in text else ""


def _modules(root: Path) -> list[str]:
    inner = [
        f"{name}.{file.stem}" for name in PACKAGES for file in (root / name).glob("*.py") if file.stem != "__init__"
    ]
    return [*PACKAGES, _ENGINE.name, "pyspark", "pyspark.sql", *inner, *(file.stem for file in root.glob("*.py"))]


def _members(root: Path, module: str) -> list[str]:
    files = [file.stem for file in (root / module.replace(".", "/")).glob("*.py")]
    return [*dir(sys.modules.get(module)), *files]
