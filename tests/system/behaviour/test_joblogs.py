"""What a job logs is kept with it, as far as the worker is told to."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from contextlib import suppress
from typing import Any

import pytest

from mognet import App, Context, Request, Result, Retry, joblogs
from mognet import worker as worker_module
from mognet.joblogs import _Listening

from .conftest import Lab, soon, until

log = logging.getLogger("mine")


@pytest.fixture(autouse=True)
def _levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def messages(result: Result[Any]) -> list[str]:
    return [entry.message for entry in await result.logs()]


async def ended(app: App, request: Request[Any]) -> Result[Any]:
    result = await app.submit(request)
    await soon(result.wait())
    return result


async def test_nothing_is_kept_unless_told(app: App) -> None:
    @app.task(name="work")
    async def work() -> None:
        log.info("hello")

    assert await (await ended(app, Request(name="work"))).logs() == []
    assert _Listening._listeners == 0


async def test_records_with_all_that_belongs_to_them(lab: Lab) -> None:
    app = await lab.working(keep_logs=10)

    @app.task(name="work")
    async def work() -> None:
        log.info("hello %s", "wörld\0")
        logging.getLogger("other").warning("careful")
        log.debug("not enabled")
        try:
            raise KeyError("k")
        except KeyError:
            log.exception("broken")

    first, second, third = await (await ended(app, Request(name="work"))).logs()
    assert (first.number, first.level, first.logger, first.message) == (1, "INFO", "mine", "hello wörld\0")
    assert (second.level, second.logger) == ("WARNING", "other")
    assert (third.level, third.message) == ("ERROR", "broken")
    assert third.exception is not None
    assert "KeyError: 'k'" in third.exception
    assert first.time <= second.time


async def test_only_the_last_ones_and_no_longer_than_a_limit(lab: Lab) -> None:
    app = await lab.working(keep_logs=3)

    @app.task(name="work")
    async def work(lines: int) -> None:
        for number in range(lines):
            log.info("line %d", number)
        log.info("x" * 100_000)

    result = await ended(app, Request(name="work", args=(5,)))
    kept = await messages(result)
    assert kept[:2] == ["line 3", "line 4"]
    assert len(kept[2]) == 2000


async def test_each_job_has_its_own_and_threads_belong_to_it(lab: Lab) -> None:
    app = await lab.working(keep_logs=10)

    @app.task(name="loud")
    def loud(name: str) -> None:
        log.info("from %s", name)

    @app.task(name="nested")
    async def nested(context: Context) -> None:
        await asyncio.gather(*(asyncio.to_thread(log.info, "thread %d", n) for n in range(2)))
        await context.run(loud, "child")

    results = await app.submit_many([Request(name="loud", args=(name,)) for name in "abc"])
    parent = await ended(app, Request(name="nested"))
    await soon(asyncio.gather(*results))
    assert [await messages(result) for result in results] == [["from a"], ["from b"], ["from c"]]
    assert sorted(await messages(parent)) == ["thread 0", "thread 1"]
    [child] = [child async for child in parent.children.iter_instances()]
    assert await messages(child) == ["from child"]


async def test_while_it_runs_over_retries_and_when_it_fails(lab: Lab) -> None:
    app, go = await lab.working(keep_logs=10), asyncio.Event()

    @app.task(name="work")
    async def work(context: Context) -> None:
        log.info("attempt %d", context.attempt)
        if context.attempt == 1:
            raise Retry(after=0)
        await go.wait()
        log.info("last words")
        raise ValueError

    result = await app.submit(Request(name="work"))

    async def both() -> bool:
        return await messages(result) == ["attempt 1", "attempt 2"]

    await until(both)
    assert [entry.message for entry in await result.logs(after=1)] == ["attempt 2"]
    go.set()
    await soon(result.wait())
    assert await messages(result) == ["attempt 1", "attempt 2", "last words"]


async def test_a_task_that_leaves_a_cancellation_behind_ends_as_it_did(lab: Lab) -> None:
    """What is written before the end is stored must not take the end with it."""
    app = await lab.working(keep_logs=10)

    @app.task(name="work")
    async def work(context: Context, progress: bool) -> int:
        log.info("hello")
        if progress:
            await context.progress(1)
            await context.progress(2)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 7

    for progress in (False, True):
        result = await ended(app, Request(name="work", args=(progress,)))
        assert (await result.get(), await messages(result)) == (7, ["hello"])
        assert result.number_of_starts == 1
        assert result.progress is None or result.progress.done == 2


async def test_lines_that_are_being_written_when_the_job_ends_come_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await lab.working(keep_logs=10)
    write, going, go = app.engine.log, asyncio.Event(), asyncio.Event()

    async def slow(lines: Any, *, keep: int) -> Any:
        if not going.is_set():
            going.set()
            await go.wait()
        return await write(lines, keep=keep)

    monkeypatch.setattr(app.engine, "log", slow)

    @app.task(name="work")
    async def work() -> None:
        log.info("first")
        await going.wait()
        log.info("last")
        asyncio.get_running_loop().call_later(0.1, go.set)

    result = await ended(app, Request(name="work"))
    assert await messages(result) == ["first", "last"]


async def test_an_engine_with_a_bug_ends_no_keeping(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await lab.working(keep_logs=10)
    write, failed = app.engine.log, asyncio.Event()

    async def broken(lines: Any, *, keep: int) -> Any:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")
        return await write(lines, keep=keep)

    monkeypatch.setattr(app.engine, "log", broken)

    @app.task(name="work")
    async def work() -> None:
        log.info("hello")
        await failed.wait()
        await asyncio.sleep(0)
        log.info("still here")

    assert await messages(await ended(app, Request(name="work"))) == ["still here"]
    assert await messages(await ended(app, Request(name="work"))) == ["hello", "still here"]


async def test_prints_if_asked(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    app = await lab.working(keep_logs=10, keep_prints=True)
    await until(lambda: _Listening._printing)

    @app.task(name="work")
    def work() -> None:
        print("one\ntwo", end="")
        print(" goes on")
        print("rest", end="")

    entries = await (await ended(app, Request(name="work"))).logs()
    assert [(entry.level, entry.message) for entry in entries] == [("PRINT", "one"), ("PRINT", "two goes on"), ("PRINT", "rest")]
    assert "two goes on" in capsys.readouterr().out
    before = sys.stdout
    await lab.close()
    assert _Listening._printing == _Listening._listeners == 0
    assert sys.stdout is not before


async def test_lines_that_are_written_together(lab: Lab) -> None:
    app = await lab.working(keep_logs=10, keep_prints=True)
    await until(lambda: _Listening._printing)

    @app.task(name="work")
    def work() -> None:
        sys.stdout.writelines(line for line in ("one\n", "two\n"))

    assert await messages(await ended(app, Request(name="work"))) == ["one", "two"]


async def test_an_executors_threads_belong_to_the_job_if_they_are_given_its_variables(lab: Lab) -> None:
    app = await lab.working(keep_logs=10, keep_prints=True)
    await until(lambda: _Listening._printing)

    @app.task(name="work")
    async def work() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, contextvars.copy_context().run, print, "printed")
        await loop.run_in_executor(None, contextvars.copy_context().run, log.info, "logged")

    assert await messages(await ended(app, Request(name="work"))) == ["printed", "logged"]


@pytest.mark.parametrize("swallows", ["cancellation", "its end, too"])
async def test_of_an_attempt_that_is_ended_by_force(lab: Lab, monkeypatch: pytest.MonkeyPatch, swallows: str) -> None:
    """Its last lines are kept, also those of its clean-up, and those of one that can only be left behind."""
    monkeypatch.setattr(worker_module, "PATIENCE", 0.2)
    monkeypatch.setattr(joblogs, "FLUSH_EVERY", 3600.0)
    app, reader, begun = await lab.working(keep_logs=10), await lab.connected(), asyncio.Event()

    @app.task(name="work")
    async def work() -> None:
        log.info("hello")
        begun.set()
        with suppress(GeneratorExit if swallows == "its end, too" else ()):
            await deaf()
        await asyncio.sleep(0)

    async def deaf() -> None:
        try:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        finally:
            log.info("cleaned up")

    result = await reader.submit(Request(name="work"))
    await soon(begun.wait())
    await soon(app.close())
    assert await messages(result) == ["hello", "cleaned up"]


async def test_gone_with_the_record(lab: Lab) -> None:
    app = await lab.working(keep_logs=10)

    @app.task(name="work")
    async def work() -> None:
        log.info("hello")

    result = await ended(app, Request(name="work"))
    assert await messages(result) == ["hello"]
    await result.delete()
    assert await app.result_backend.logs(result.id) == []
