"""Two lines for each run, and records that know their task."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from mognet import App, Context, Pause, Request, Retry

from .conftest import nothing_runs, soon


@pytest.fixture(autouse=True)
def _levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def lines(caplog: pytest.LogCaptureFixture, id: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "mognet.task" and str(id) in record.getMessage()]


async def test_one_line_at_the_start_and_one_at_the_end(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="work")
    async def work() -> None: ...

    result = await app.submit(work)
    await soon(result)
    await nothing_runs(app)
    start, end = lines(caplog, result.id)
    assert re.fullmatch(rf"work\[{result.id}\] started, attempt 1, waited \d+\.\d+ s", start)
    assert re.fullmatch(rf"work\[{result.id}\] succeeded, attempt 1, took \d+\.\d+ s", end)


async def test_each_run_has_them(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="work")
    async def work(context: Context) -> None:
        if not await context.state.get("paused"):
            await context.state.set("paused", True)
            raise Pause
        if context.attempt == 1:
            raise Retry(after=0)
        raise KeyError("at last")

    result = await app.submit(work)
    with pytest.raises(KeyError):
        await soon(result)
    await nothing_runs(app)
    words = [re.sub(r"^.*\] ([a-z ]+).*attempt (\d).*$", r"\1\2", line) for line in lines(caplog, result.id)]
    assert [word.split()[0].rstrip("123") for word in words] == ["started", "paused", "started", "retrying", "started", "failed"]
    [failure] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failure.exc_info is not None
    assert isinstance(failure.exc_info[1], KeyError)


async def test_jobs_that_cannot_be_run(app: App, caplog: pytest.LogCaptureFixture) -> None:
    result = await app.submit(Request(name="unknown"))
    await soon(result.wait())
    await nothing_runs(app)
    assert len(lines(caplog, result.id)) == 2
    assert "invalid" in lines(caplog, result.id)[1]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
async def test_every_record_inside_a_task_carries_its_id_and_name(app: App, caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    log = logging.getLogger("somebody.elses")

    async def as_async(n: int) -> None:
        log.info("inside %d", n)
        await asyncio.sleep(0)
        await asyncio.create_task(deeper(n))

    async def deeper(n: int) -> None:
        log.info("inside %d", n)

    def as_def(n: int) -> None:
        log.info("inside %d", n)
        log.info("inside %d", n)

    function = app.task(name="work")(as_async if is_async else as_def)
    log.info("outside")
    results = [await app.submit(function, n) for n in range(10)]
    await soon(asyncio.gather(*results))
    inside = [record for record in caplog.records if record.getMessage().startswith("inside")]
    assert len(inside) == 20
    for record in inside:
        fields: Any = record
        n = int(record.getMessage().split()[1])
        assert fields.task_id == str(results[n].id)
        assert (fields.task, fields.queue, fields.attempt, fields.node) == ("work", "tasks", 1, app.config.node_id)
    [outside] = [record for record in caplog.records if record.getMessage() == "outside"]
    assert outside.__dict__["task_id"] is None
    ends: list[Any] = [record for record in caplog.records if record.name == "mognet.task"]
    assert {record.task_id for record in ends} == {str(result.id) for result in results}


async def test_arguments_are_not_logged(app: App, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    @app.task
    async def work(password: str) -> str:
        return password

    result = await app.submit(work, "c4n4ry")
    assert await soon(result) == "c4n4ry"
    assert "c4n4ry" not in caplog.text
    assert result.request_kwargs_repr is None
