"""A task's exception is raised at the caller."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pytest

from mognet import App, Request
from mognet.exceptions import TaskError

from .conftest import nothing_runs, soon


class Plain(Exception):
    pass


class WithArguments(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Deep(BaseException):
    pass


class Slotted(LookupError):
    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


def chained() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


RAISE: dict[str, Any] = {
    "plain": Plain("a", 2, None, ["x"]),
    "arguments": WithArguments(5, hint="look"),
    "builtin": ZeroDivisionError("division by zero"),
    "os": FileNotFoundError(2, "No such file or directory", "/nowhere"),
    "timeout": TimeoutError("too slow"),
    "stop": StopIteration(3),
    "exit": SystemExit(3),
    "cancelled": asyncio.CancelledError("own"),
    "deep": Deep("bottom"),
    "group": ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    "base group": BaseExceptionGroup("several", [Deep("a")]),
    "unprintable": Unprintable("x"),
    "object": Plain(object(), "after"),
    "surrogate": Plain("\ud800"),
    "slotted": Slotted("there"),
    "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
}


@pytest.fixture(autouse=True)
def _no_logs(caplog: pytest.LogCaptureFixture) -> None:
    """A lone surrogate in a captured record is more than pytest-xdist can send."""
    caplog.set_level(logging.CRITICAL, "mognet.task")


async def caught(app: App, error: BaseException, is_async: bool) -> Exception:
    """What the caller of a task that raises this gets."""

    async def as_async() -> None:
        raise error

    def as_def() -> None:
        raise error

    name = f"raise{is_async}{type(error).__name__}"
    app.task(name=name)(as_async if is_async else as_def)
    result = await app.submit(Request(name=name))
    try:
        await soon(result)
    except Exception as raised:
        assert result.state == "FAILURE"
        await nothing_runs(app)
        return raised
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
async def test_its_own_class_when_that_is_loaded(app: App, is_async: bool) -> None:
    plain = await caught(app, RAISE["plain"], is_async)
    assert type(plain) is Plain
    assert plain.args == ("a", 2, None, ["x"])
    own = await caught(app, RAISE["arguments"], is_async)
    assert type(own) is WithArguments
    assert (own.code, own.hint, own.args, str(own)) == (5, "look", ("code 5",), "code 5")
    builtin = await caught(app, RAISE["builtin"], is_async)
    assert (type(builtin), str(builtin)) == (ZeroDivisionError, "division by zero")
    missing = await caught(app, RAISE["os"], is_async)
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.filename) == (2, "/nowhere")
    assert type(await caught(app, RAISE["timeout"], is_async)) is TimeoutError


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
@pytest.mark.parametrize("kind", RAISE)
async def test_whatever_it_is_the_job_ends(app: App, kind: str, is_async: bool) -> None:
    raised = await caught(app, RAISE[kind], is_async)
    assert isinstance(raised, Exception)

    @app.task(name="after")
    async def after() -> int:
        return 1

    assert await soon(app.run(after)) == 1, "the worker goes on"


async def test_else_a_task_error_that_knows_all(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("here_today")
    exec("class Gone(Exception): pass", module.__dict__)
    error = module.Gone("a", 1)
    described = f"{module.Gone.__module__}:Gone"
    monkeypatch.setattr("mognet.codec._loaded_exception", lambda name: None)
    raised = await caught(app, error, True)
    assert isinstance(raised, TaskError)
    assert raised.type_name == described
    assert raised.message == "('a', 1)"
    assert "raise error" in raised.traceback
    assert str(raised) == "Gone: ('a', 1)"


async def test_the_traceback_is_kept(app: App, idle: App) -> None:
    @app.task(name="chained")
    async def work() -> None:
        chained()

    result = await idle.submit(Request(name="chained"))
    with pytest.raises(ValueError, match="outer") as raised:
        await soon(result)
    info = await result.value.get_error()
    assert info is not None
    for text in ("KeyError: 'inner'", "ValueError: outer", "direct cause", "chained()", __file__):
        assert text in info.traceback
    assert isinstance(raised.value.__cause__, TaskError)
    assert raised.value.__cause__.traceback == info.traceback


async def test_a_long_traceback_is_cut(app: App) -> None:
    async def deep(n: int) -> None:
        if n:
            return await deep(n - 1)
        raise ValueError("x" * 100_000)

    app.task(name="deep")(deep)
    result = await app.submit(deep, 50)
    with pytest.raises(ValueError, match="xxx"):
        await soon(result)
    info = await result.value.get_error()
    assert info is not None
    assert len(info.traceback) <= 16 * 1024
