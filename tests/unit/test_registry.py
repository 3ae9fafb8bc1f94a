"""What is registered: which functions get the context, which exceptions are retried, and one function for each name."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest

import mognet
from mognet import App, Context
from mognet import Context as Ctx
from mognet.exceptions import ImproperlyConfigured, InvalidTaskArguments
from mognet.registry import TaskMaker, TaskRegistry, make_task

if TYPE_CHECKING:
    import mognet.context as elsewhere


class Mine(Context):
    pass


def alias(ctx: Ctx, n: int) -> None: ...
def optional(c: Ctx | None, n: int) -> None: ...
def old_optional(c: Optional[Context], n: int) -> None: ...  # noqa: UP045
def dotted(c: mognet.Context, n: int) -> None: ...
def quoted(c: "mognet.Context", n: int) -> None: ...  # noqa: UP037
def annotated(c: Annotated[Ctx, "mine"], n: int) -> None: ...
def subclass(c: Mine, n: int) -> None: ...
def for_type_checkers(c: elsewhere.Context, n: int) -> None: ...
def optional_for_type_checkers(c: elsewhere.Context | None, n: int) -> None: ...
def old_optional_for_type_checkers(c: Optional[elsewhere.Context], n: int) -> None: ...  # noqa: UP045
def by_name(context, n: int) -> None: ...  # type: ignore[no-untyped-def]


def foreign(c: contextvars.Context) -> None: ...
def inside(c: dict[str, Ctx]) -> None: ...
def inside_for_type_checkers(c: dict[str, elsewhere.Context]) -> None: ...
def bare(n) -> None: ...  # type: ignore[no-untyped-def]
def second(n: int, c: Ctx) -> None: ...
def variadic(*context: Ctx) -> None: ...
def nothing() -> None: ...


WITH = [alias, optional, old_optional, dotted, quoted, annotated, subclass, for_type_checkers, optional_for_type_checkers]
WITH += [old_optional_for_type_checkers, by_name]


@pytest.mark.parametrize("function", WITH)
def test_these_get_the_context(function: Callable[..., Any]) -> None:
    task = make_task(function)
    assert task.takes_context
    assert task.arguments([5], {}) == ((5,), {})


@pytest.mark.parametrize("function", [foreign, inside, inside_for_type_checkers, bare, second, variadic, nothing])
def test_these_do_not(function: Callable[..., Any]) -> None:
    assert not make_task(function).takes_context


@pytest.mark.skipif(sys.version_info < (3, 14), reason="needs Python 3.14: before, such a function could not be defined")
@pytest.mark.parametrize("annotation", ["Context", "Context | None", "mognet.Context"])
def test_a_context_that_only_type_checkers_import(annotation: str) -> None:
    """Without quotes, since nobody evaluates annotations before somebody asks."""
    names: dict[str, Any] = {}
    text = f"def work(c: {annotation}, n: int) -> list[int]: return [n]\ndef other(n: Missing) -> int: ..."
    exec(compile(text, __file__, "exec", dont_inherit=True), names)
    task = make_task(names["work"])
    assert task.takes_context
    assert task.arguments(["5"], {}) == ((5,), {})
    assert task.read_value(b'["6"]') == [6]
    with pytest.raises(ImproperlyConfigured, match="'Missing'"):
        make_task(names["other"]).check([5], {})


def test_an_alias_that_only_the_surroundings_know() -> None:
    from mognet import Context as Local

    def nested(c: Local, n: int) -> None: ...

    assert make_task(nested).takes_context


@pytest.mark.parametrize("classes", [[ValueError], {ValueError}, ValueError, iter([ValueError])], ids=["list", "set", "class", "iterator"])
def test_retry_on_takes_any_number_of_classes(classes: Any) -> None:
    assert make_task(nothing, retry_on=classes).retry_on == (ValueError,)


@pytest.mark.parametrize("wrong", ["ValueError", [ValueError()], ["ValueError"], 5, None, [int], [list[int]]], ids=str)
def test_retry_on_takes_nothing_else(wrong: Any) -> None:
    with pytest.raises(ValueError, match="retry_on takes exception classes"):
        make_task(nothing, retry_on=wrong)


@pytest.mark.parametrize("app_first", [True, False])
def test_one_name_for_two_functions(app_first: bool) -> None:
    below = TaskRegistry()
    above = TaskRegistry(below)
    makers = [TaskMaker(above), TaskMaker(below)]
    first, then = makers if app_first else makers[::-1]
    first(name="same")(alias)
    with pytest.raises(ImproperlyConfigured, match=r"'same': .*alias.*optional"):
        then(name="same")(optional)
    then(name="same")(alias)
    assert above.get("same").function is alias
    TaskMaker(TaskRegistry(TaskRegistry()))(name="same")(optional)


def test_apps_may_have_tasks_of_one_name() -> None:
    one, other = App("one", url="memory://"), App("other", url="memory://")
    one.task(name="same in both")(alias)
    other.task(name="same in both")(optional)


def plain(a: int, b: int = 2) -> object:
    return a, b


def named(a: int, *, b: int, c: int = 3) -> object:
    return a, b, c


def untyped(a, b=2, *, c=3):  # type: ignore[no-untyped-def]
    return a, b, c


def positional(a: int, /, b: int = 2) -> object:
    return a, b


def variadic(a: int, *more: int, **names: int) -> object:
    return a, more, names


def with_context(context: Context, a: int = 1, b: int = 2) -> object:
    return context, a, b


@pytest.mark.parametrize("function", [plain, named, untyped, positional, variadic])
@pytest.mark.parametrize("args", [(), (1,), (1, 5), (1, 5, 6)])
@pytest.mark.parametrize("names", [set(), {"a"}, {"b"}, {"c"}, {"b", "c"}, {"a", "b"}, {"other"}])
def test_a_call_fits_as_python_has_it(function: Callable[..., Any], args: tuple[int, ...], names: set[str]) -> None:
    kwargs = dict.fromkeys(sorted(names), 7)
    task = make_task(function)
    try:
        expected = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidTaskArguments):
            task.arguments(args, kwargs)
        return
    first, rest = task.arguments(args, kwargs)
    assert function(*first, **rest) == expected
    assert len(first) >= len(args)


def test_what_comes_first_is_given_by_position_as_in_the_call_that_was_written() -> None:
    assert make_task(plain).arguments([1], {"b": 3}) == ((1, 3), {})
    assert make_task(plain).arguments([], {"a": 1}) == ((1,), {})
    assert make_task(named).arguments([1], {"b": 3}) == ((1,), {"b": 3})
    assert make_task(with_context).arguments([], {"b": 3}) == ((), {"b": 3})
