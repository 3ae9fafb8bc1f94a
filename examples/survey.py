"""A survey of a folder of Python source, as one tree of tasks: folder -> package -> file.

    mognet examples.survey run                                     a worker; start as many as you like
    mognet examples.survey call survey folder=/usr/lib/python3     survey a folder; without one, Python's own library
    mognet examples.survey tasks tree ID                           look at the tree, while it grows or afterwards

``mognet demo`` runs this app on two workers and kills one of them. What makes it indifferent to that:

* A task notes in its **state** what it has listed, so that a second start goes on with the same list.
* Each child has an **id** made from its parent's and its path, so that submitting it again changes nothing.
* A task that waits for its children frees its slot, and a file is measured in a thread, so nothing blocks the event loop.
* What can go wrong with a file (it cannot be read, it is no valid Python) is a finding, and no failure.

**Metadata** labels each job with its package and file, and says how large it was found to be: anyone can read that while the survey runs.
"""

from __future__ import annotations

import ast
import asyncio
import os
import sysconfig
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid5

from pydantic import BaseModel

from mognet import App, AppConfig, Context, Request

# Measuring computes, it does not wait: a few slots keep a core busy, and more would only take turns.
app = App("survey", AppConfig(minimum_concurrency=4))

TOP = 10
"""How many of the largest, the most complex and the unreadable are kept."""

LARGEST_FILE = 2 * 1024 * 1024
"""Bytes; larger files are data in disguise, and are not parsed."""

NOT_SURVEYED = {"__pycache__", "site-packages", "dist-packages", "node_modules"}


# What is found -----------------------------------------------------------------------------------


class Size(BaseModel):
    """How large a package or a file is."""

    name: str
    files: int
    lines: int


class Function(BaseModel):
    """How complex a function is."""

    name: str
    place: str
    lines: int
    branches: int
    """Ways that may be taken in it: its ifs, loops, handlers, cases, conditions and so on."""
    depth: int
    """How deep its blocks are nested."""


class Problem(BaseModel):
    """A file that could not be measured."""

    file: str
    reason: str


class Findings(BaseModel):
    """What a survey of a file, a package or a folder found."""

    files: int = 0
    lines: int = 0
    classes: int = 0
    functions: int = 0
    async_functions: int = 0
    undocumented: int = 0
    """Public classes and functions without a docstring."""
    packages: list[Size] = []
    largest: list[Size] = []
    hardest: list[Function] = []
    not_parsed: int = 0
    problems: list[Problem] = []

    @classmethod
    def together(cls, parts: Sequence[Findings]) -> Findings:
        """The sum of several findings."""
        names = ("files", "lines", "classes", "functions", "async_functions", "undocumented", "not_parsed")
        return cls(
            **{name: sum(getattr(part, name) for part in parts) for name in names},
            largest=top((size for part in parts for size in part.largest), lambda size: size.lines),
            hardest=top((function for part in parts for function in part.hardest), lambda function: function.branches),
            problems=[problem for part in parts for problem in part.problems][:TOP],
        )


def top(items: Iterator[Any], key: Callable[[Any], int]) -> list[Any]:
    """The largest of the items, largest first."""
    return sorted(items, key=key, reverse=True)[:TOP]


# The tasks ---------------------------------------------------------------------------------------
# They have names of their own, so that they are the same tasks under whatever name this module is imported.


@app.task(name="survey")
async def survey(context: Context, folder: Path | None = None) -> Findings:
    """Survey a folder; without one, the standard library of the Python that runs this."""
    root = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    await context.set_metadata(folder=str(root))
    packages = await listed(context, list_packages, root)
    requests = [child(context, survey_package, root, name, package=name) for name in packages]
    parts = await context.gather(*await context.submit_many(requests))
    found = Findings.together(parts)
    sizes = (Size(name=name, files=part.files, lines=part.lines) for name, part in zip(packages, parts, strict=True))
    found.packages = top(sizes, lambda size: size.lines)
    await context.set_metadata(files=found.files, lines=found.lines, not_parsed=found.not_parsed)
    return found


@app.task(name="package", priority=6)  # before the files, so that the whole tree is soon known
async def survey_package(context: Context, root: Path, package: str) -> Findings:
    """Survey the files of one package."""
    files = await listed(context, list_files, root, package)
    requests = [child(context, measure, root, file, package=package, file=file) for file in files]
    found = Findings.together(await context.gather(*await context.submit_many(requests)))
    await context.set_metadata(files=found.files, lines=found.lines, not_parsed=found.not_parsed)
    return found


@app.task(name="file", retries=2, retry_on=SystemError)  # see PARSER
def measure(context: Context, root: Path, file: str) -> Findings:
    """Parse one file and measure it. A ``def`` task: it runs in a thread."""
    found = Findings(files=1)
    try:
        source = (root / file).read_bytes()
        found.lines = len(source.splitlines())
        measure_tree(found, parse(source), file)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        found.not_parsed = 1
        found.problems.append(Problem(file=file, reason=reason(error)))
    found.largest.append(Size(name=file, files=1, lines=found.lines))
    context.call_threadsafe(context.set_metadata(lines=found.lines, not_parsed=found.not_parsed))
    return found


async def listed(context: Context, function: Callable[..., list[str]], *args: Any) -> list[str]:
    """What a function lists; noted at the first start, so that a second one, after a crash, goes on with the same list."""
    names: list[str] | None = await context.state.get("listed")
    if names is None:
        names = await asyncio.to_thread(function, *args)
        await context.state.set("listed", names)
    return names


def child(context: Context, function: Callable[..., Any], *args: Any, **labels: Any) -> Request[Findings]:
    """A request for a part of this job, labelled; the same one each time it is asked for."""
    request = context.create_request(function, *args)
    request.id = uuid5(context.id, repr(labels))
    request.metadata = labels
    return request


# Measuring ---------------------------------------------------------------------------------------


def walk(folder: Path) -> Iterator[Path]:
    """The Python files below a folder."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_SURVEYED and not Path(place, name, "pyvenv.cfg").exists())
        yield from (Path(place, file) for file in sorted(files) if file.endswith(".py"))


def list_packages(root: Path) -> list[str]:
    """The folders of a folder that hold Python files; "." stands for the files beside them."""
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink() and entry.name not in NOT_SURVEYED)
    packages = [readable(name) for name in folders if next(walk(root / name), None)]
    return [*packages, "."] if list_files(root, ".") else packages


def list_files(root: Path, package: str) -> list[str]:
    """The Python files of a package, as paths below the root."""
    if package == ".":
        return sorted(readable(path.name) for path in root.glob("*.py") if path.is_file())
    return [readable(path.relative_to(root).as_posix()) for path in walk(root / package)]


def readable(name: str) -> str:
    """A file's name as text, also if its bytes are none; then no file is found under it, which is a finding as well."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def reason(error: Exception) -> str:
    """Why a file could not be measured, in a few words."""
    if isinstance(error, SyntaxError):
        return error.msg if error.lineno in (None, 0) else f"line {error.lineno}: {error.msg}"
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


PARSER = threading.Lock()
"""One at a time: CPython's parser, up to 3.12, counts its depth for all threads together, and may stumble with a SystemError."""


def parse(source: bytes) -> ast.Module:
    """The syntax tree of a source. What the compiler warns of is its author's concern."""
    if len(source) > LARGEST_FILE:
        raise ValueError(f"more than {LARGEST_FILE} bytes: not parsed")
    warnings.filterwarnings("ignore", module="<surveyed>")
    with PARSER:
        return ast.parse(source, filename="<surveyed>")


def measure_tree(found: Findings, tree: ast.Module, file: str) -> None:
    """Count what is defined in a file."""
    todo: list[tuple[ast.AST, bool]] = [(tree, True)]
    while todo:
        scope, public = todo.pop()
        for node in definitions(scope):
            seen = public and not node.name.startswith("_")
            found.undocumented += seen and ast.get_docstring(node, clean=False) is None
            if isinstance(node, ast.ClassDef):
                found.classes += 1
                todo.append((node, seen))
                continue
            found.functions += 1
            found.async_functions += isinstance(node, ast.AsyncFunctionDef)
            found.hardest.append(measure_function(node, file))
            todo.append((node, False))
    found.hardest = top(iter(found.hardest), lambda function: function.branches)


def definitions(scope: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The classes and functions of a scope, not those inside them."""
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif not isinstance(node, ast.expr):
            todo.extend(ast.iter_child_nodes(node))


BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.match_case,
    ast.IfExp,
    ast.BoolOp,
    ast.comprehension,
    ast.Assert,
)
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def measure_function(function: ast.FunctionDef | ast.AsyncFunctionDef, file: str) -> Function:
    """Count a function's branches, with those of the functions in it, and how deep they go."""
    branches, deepest = 1, 0
    todo: list[tuple[ast.AST, int]] = [(statement, 0) for statement in function.body]
    while todo:
        node, depth = todo.pop()
        if isinstance(node, BRANCHES):
            branches += 1
        if isinstance(node, BLOCKS):
            depth += 1
            deepest = max(deepest, depth)
        for below in ast.iter_child_nodes(node):
            # An elif is written as an if in the else of another, but reads as its neighbour.
            elif_ = isinstance(below, ast.If) and isinstance(node, ast.If) and node.orelse == [below]
            todo.append((below, depth - 1 if elif_ else depth))
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    return Function(name=function.name, place=f"{file}:{function.lineno}", lines=lines, branches=branches, depth=deepest)
