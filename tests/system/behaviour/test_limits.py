"""What is too deep, too long, too large or too far away is refused where it is written, so that all that is stored can be read."""

from __future__ import annotations

from typing import Any

import pytest

from mognet import App, Context, Request, ResultState
from mognet.exceptions import CouldNotSubmit, InvalidTaskArguments, NotStorable

from .conftest import soon


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


UNREADABLE = {"deep": nested(230), "digits": 10**5000}
LARGEST = {"deep": nested(190), "digits": 10**4299}


class Odd(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_values_that_could_not_be_read(app: App, kind: str) -> None:
    @app.task
    async def give(kind: str) -> Any:
        return UNREADABLE[kind]

    result = await app.submit(give, kind)
    with pytest.raises(NotStorable, match=r"nested deeper than 190 levels|number out of range"):
        await soon(result)
    assert result.state is ResultState.FAILURE


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_arguments_that_could_not_be_read(idle: App, kind: str) -> None:
    @idle.task(name="take")
    async def take(value: Any = None, *many: Any, **more: Any) -> None: ...

    value = UNREADABLE[kind]
    for args, kwargs, loc in (((value,), {}, "value"), ((0, value), {}, "many"), ((), {"other": value}, "more")):
        with pytest.raises(InvalidTaskArguments) as caught:
            idle.create_request(take, *args, **kwargs)
        assert [(error.loc, error.type) for error in caught.value.errors] == [((loc,), "not_storable")]
        with pytest.raises(CouldNotSubmit, match="take cannot be stored"):
            await idle.submit(Request(name="take", args=args, kwargs=kwargs))


@pytest.mark.parametrize("kind", LARGEST)
async def test_the_largest_come_back(app: App, kind: str) -> None:
    @app.task
    async def echo(value: Any) -> Any:
        return value

    @app.task
    async def echo_list(value: list[Any] | int) -> list[Any] | int:
        return value

    value = LARGEST[kind]
    for function in (echo, echo_list):
        assert await soon(app.run(function, value)) == value
        assert await soon(app.run(Request(name=app.registry.of(function).name, kwargs={"value": value}))) == value


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_what_an_error_holds_that_could_not_be_read(app: App, kind: str) -> None:
    @app.task
    async def fail(kind: str) -> None:
        raise Odd(UNREADABLE[kind] if kind == "digits" else nested(191))

    with pytest.raises(Odd) as caught:
        await soon(app.run(fail, kind))
    assert isinstance(caught.value.args[0], str)


async def test_state_that_could_not_be_read(app: App) -> None:
    @app.task
    async def work(context: Context) -> int:
        refused = 0
        for value in UNREADABLE.values():
            try:
                await context.state.set("a", value)
            except NotStorable:
                refused += 1
        await context.state.set(**LARGEST)
        assert [await context.state.get(key) for key in LARGEST] == list(LARGEST.values())
        assert await context.state.get("a") is None
        return refused

    assert await soon(app.run(work)) == 2
