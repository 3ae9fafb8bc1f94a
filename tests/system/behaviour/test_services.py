"""Services: what tasks share."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from mognet import App, AppConfig, ClassService, Context

from .conftest import Lab, soon

events: list[str] = []


@pytest.fixture(autouse=True)
def _no_events() -> None:
    events.clear()


class Database(ClassService[str]):
    def __init__(self, config: AppConfig) -> None:
        super().__init__(config)
        events.append("make db")

    def __enter__(self) -> Database:
        events.append("enter db")
        return self

    def __call__(self, context: Context, table: str = "all") -> str:
        return f"{self.config.services_settings['db']}/{table}/{context.request.name}"

    def close(self) -> None:
        events.append("close db")


class Mail(ClassService[int]):
    def __enter__(self) -> Mail:
        events.append("enter mail")
        return self

    def __call__(self, context: Context, *args: int, more: int = 0) -> int:
        return sum(args) + more

    async def close(self) -> None:
        await asyncio.sleep(0)
        events.append("close mail")


class Broken(ClassService[int]):
    def __call__(self, context: Context) -> int:
        return 1

    def close(self) -> None:
        events.append("close broken")
        raise RuntimeError("will not close")


class BrokenAtOnce(ClassService[int]):
    def __enter__(self) -> BrokenAtOnce:
        raise RuntimeError("will not open")

    def __call__(self, context: Context) -> int:
        return 1


class Slow(ClassService[int]):
    def __init__(self, config: AppConfig) -> None:
        super().__init__(config)
        time.sleep(0.05)
        events.append("make slow")

    def __call__(self, context: Context) -> int:
        return id(self)


def by_function(context: Context, a: int, b: int = 0) -> list[Any]:
    events.append("function")
    return [a + b, context.request.name]


async def by_async_function(context: Context, a: int) -> int:
    return a + 1


async def test_a_function_is_called_each_time(app: App) -> None:
    @app.task(name="work")
    async def work(context: Context) -> Any:
        return [
            context.get_service(by_function, 1, b=2),
            context.get_service(by_function, 5),
            await context.get_service(by_async_function, 5),
        ]

    assert await soon(app.run(work)) == [[3, "work"], [5, "work"], 6]
    assert events == ["function", "function"]


async def test_a_class_is_made_once_and_closed_in_reverse_order(lab: Lab) -> None:
    app = await lab.working(services_settings={"db": "local"})

    @app.task(name="db")
    async def db(context: Context) -> str:
        return context.get_service(Database, "users")

    @app.task(name="mail")
    async def mail(context: Context) -> int:
        return context.get_service(Mail, 1, 2, more=3)

    assert events == []
    for _ in range(3):
        assert await soon(app.run(db)) == "local/users/db"
        assert await soon(app.run(mail)) == 6
    assert events == ["make db", "enter db", "enter mail"]
    await app.close()
    assert events == ["make db", "enter db", "enter mail", "close mail", "close db"]
    await lab.start(app)
    assert await soon(app.run(db)) == "local/users/db"
    assert events[5:] == ["make db", "enter db"], "made anew after a close"


async def test_by_def_tasks_at_once_it_is_made_once(app: App) -> None:
    @app.task
    def work(context: Context) -> int:
        return context.get_service(Slow)

    assert len(set(await soon(asyncio.gather(*(app.run(work) for _ in range(8)))))) == 1
    assert events == ["make slow"]


async def test_one_that_does_not_close_keeps_no_other_open(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task
    async def work(context: Context) -> int:
        return context.get_service(Mail) + context.get_service(Broken) + context.get_service(Mail)

    assert await soon(app.run(work)) == 1
    with caplog.at_level(logging.ERROR):
        await app.close()
    assert events == ["enter mail", "close broken", "close mail"]
    assert "Broken" in caplog.text


async def test_one_that_does_not_open_fails_its_task(app: App) -> None:
    @app.task
    async def work(context: Context) -> int:
        return context.get_service(BrokenAtOnce)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="will not open"):
            await soon(app.run(work))


async def test_overriding(app: App) -> None:
    @app.task(name="work")
    async def work(context: Context) -> Any:
        return [context.get_service(by_function, 1), context.get_service(Database, "t"), context.get_service(Mail, 1)]

    class FakeMail(ClassService[int]):
        def __call__(self, context: Context, *args: int, more: int = 0) -> int:
            return -1

        def close(self) -> None:
            events.append("close fake")

    assert isinstance(app.services, dict)
    app.services[by_function] = lambda context, a: ["replaced", a]
    app.services[Database] = lambda context, table: f"fake {table}"
    app.services[Mail] = FakeMail
    assert await soon(app.run(work)) == [["replaced", 1], "fake t", -1]
    assert await soon(app.run(work)) == [["replaced", 1], "fake t", -1]
    assert events == []
    del app.services[by_function]
    assert (await soon(app.run(work)))[0] == [1, "work"]
    await app.close()
    assert events == ["function", "close fake"]
    assert app.services[Mail] is FakeMail, "an override outlives a close"


async def test_overriding_what_has_been_made(lab: Lab) -> None:
    app = await lab.working(services_settings={"db": "local"})

    @app.task(name="work")
    async def work(context: Context) -> str:
        return context.get_service(Database, "t")

    assert await soon(app.run(work)) == "local/t/work"
    app.services[Database] = lambda context, table: f"fake {table}"
    assert await soon(app.run(work)) == "fake t"
    await app.close()
    assert events == ["make db", "enter db", "close db"]
    await lab.start(app)
    assert await soon(app.run(work)) == "fake t"


async def test_what_is_no_service(app: App) -> None:
    @app.task
    async def work(context: Context) -> Any:
        return context.get_service("nothing")  # type: ignore[call-overload]

    with pytest.raises(TypeError, match="nothing"):
        await soon(app.run(work))
