"""Whatever is cancelled when, each claimed job is settled or handed back, and the slots are counted right."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any
from uuid import uuid4

import pytest

from mognet import App, AppConfig, Context, Middleware, ResultState
from mognet.engines.memory import MemoryEngine
from mognet.exceptions import ConnectionError
from mognet.outcomes import Outcome, succeeded
from mognet.records import Claim, Job, Query, Record
from mognet.registry import global_registry
from mognet.settling import Settler


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tasks of other tests' modules, which may have the same names."""
    monkeypatch.setattr(global_registry, "_by_name", {})
    monkeypatch.setattr(global_registry, "_by_function", {})


async def noop() -> None: ...


def make_app(url: str | None = None, **settings: object) -> App:
    app = App("worker", AppConfig(**settings), url=url or f"memory://{uuid4().hex}")  # type: ignore[arg-type]

    @app.task(name="nap")
    async def nap(context: Context, seconds: float = 0.0) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @app.task(name="fail")
    async def fail(context: Context) -> None:
        raise ValueError("early")

    @app.task(name="impatient")
    async def impatient(context: Context) -> str:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(context.run(nap, 0.05), 0.02)  # and then it waits for its slot
        return "left"

    @app.task(name="gatherer")
    async def gatherer(context: Context) -> str:
        slow = await context.submit(nap, 0.05)
        with pytest.raises(ValueError, match="early"):
            await context.gather(slow, await context.submit(fail))
        return str(await context.gather(slow))

    app.__dict__.update(nap=nap, fail=fail, impatient=impatient, gatherer=gatherer)
    return app


def call(app: App, name: str, *args: object):  # type: ignore[no-untyped-def]
    return app.create_request(app.__dict__[name], *args)


@pytest.mark.parametrize("seed", range(40))
async def test_cancelled_at_any_moment(seed: int) -> None:
    moments = random.Random(seed)
    app = make_app(minimum_concurrency=5)
    async with app:
        await app.submit_many([call(app, "nap", moments.choice([0.0, 0.001, 60.0])) for _ in range(30)])
        working = asyncio.create_task(app.start())
        for _ in range(moments.randrange(40)):
            await asyncio.sleep(0)
        for _ in range(moments.choice([1, 1, 2])):
            working.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await working
        async for record in app.engine.search(Query()):
            assert record.state in (ResultState.PENDING, ResultState.SUSPENDED, ResultState.SUCCESS)
            assert record.starts == record.stops


@pytest.mark.parametrize("turns", [*range(0, 24, 3), 100])
def test_the_loop_ends_under_it(turns: int) -> None:
    """The end of ``asyncio.run`` cancels everything at once: the worker, its attempts, and what stores their ends."""
    url = f"memory://{uuid4().hex}"
    keep = make_app(url)  # the store lives as long as somebody uses it

    async def main() -> None:
        app = make_app(url, minimum_concurrency=5)
        await app.connect()
        await app.submit_many([call(app, "nap", seconds) for seconds in (0.0, 0.001, 60.0) for _ in range(10)])
        app.__dict__["working"] = asyncio.create_task(app.start())
        for _ in range(turns):
            await asyncio.sleep(0)

    async def look() -> list[Record]:
        async with keep:
            return [record async for record in keep.engine.search(Query())]

    async def connect() -> None:
        await keep.connect()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, connect()).result()
        pool.submit(asyncio.run, main()).result()
        records = pool.submit(asyncio.run, look()).result()
    assert len(records) == 30
    assert [record for record in records if record.starts != record.stops] == []


@pytest.mark.parametrize("name", ["impatient", "gatherer"])
async def test_waits_that_end_early(name: str) -> None:
    app = make_app(minimum_concurrency=1)
    async with app:
        working = asyncio.create_task(app.start())
        job = await app.submit(call(app, name))
        async with asyncio.timeout(5):
            assert await job in ("left", "[0.05]")
        assert app.worker is not None
        while app.worker.running_tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        slots = app.worker._slots
        assert (slots.running, slots.held) == (0, 0)
        working.cancel()
        await asyncio.wait([working])


async def test_a_burst_ends_when_the_last_end_is_stored_late() -> None:
    class Slow(MemoryEngine):
        async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
            await asyncio.sleep(0.05)
            return await super().settle(outcomes)

    app = make_app()
    async with app:
        engine = Slow("worker", store=app.engine._engine._store)  # type: ignore[attr-defined]
        app.engine._engine = engine  # type: ignore[attr-defined]
        await app.submit_many([call(app, "nap") for _ in range(3)])
        async with asyncio.timeout(5):
            await app.start(burst=True)
        assert await app.engine.count(Query()) == {"SUCCESS": 3}


async def test_slots_are_filled_again_before_the_ends_of_those_that_had_them_are_stored() -> None:
    """While an engine stores the ends, the next jobs run already."""
    asked: list[str] = []

    class Asked(MemoryEngine):
        async def claim(self, *args: Any, **kwargs: Any) -> list[Claim]:
            asked.append("claim")
            return await super().claim(*args, **kwargs)

        async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
            asked.append(f"settle {len(outcomes)}")
            return await super().settle(outcomes)

    app = make_app(minimum_concurrency=10)
    app.task(name="noop")(noop)
    async with app:
        app.engine._engine = Asked("worker", store=app.engine._engine._store)  # type: ignore[attr-defined]
        await app.submit_many([app.create_request(noop) for _ in range(30)])
        working = asyncio.create_task(app.start())
        async with asyncio.timeout(5):
            while (await app.engine.count(Query())) != {"SUCCESS": 30}:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert asked[:3] == ["claim", "claim", "settle 10"]
        working.cancel()
        await asyncio.wait([working])


async def test_an_engine_that_is_behind_with_ends_gets_no_more_of_them() -> None:
    """Jobs whose ends are not stored run again after a crash: no more of them than twice the slots."""
    may_settle, claimed = asyncio.Event(), 0

    class Behind(MemoryEngine):
        async def claim(self, *args: Any, **kwargs: Any) -> list[Claim]:
            nonlocal claimed
            claims = await super().claim(*args, **kwargs)
            claimed += len(claims)
            return claims

        async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
            await may_settle.wait()
            return await super().settle(outcomes)

    app = make_app(minimum_concurrency=5)
    app.task(name="noop")(noop)
    async with app:
        app.engine._engine = Behind("worker", store=app.engine._engine._store)  # type: ignore[attr-defined]
        await app.submit_many([app.create_request(noop) for _ in range(100)])
        working = asyncio.create_task(app.start(burst=True))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert claimed == 10
        may_settle.set()
        async with asyncio.timeout(5):
            await working
        assert await app.engine.count(Query()) == {"SUCCESS": 100}


async def test_a_claim_that_does_not_end_keeps_no_job_from_being_stopped() -> None:
    """An engine that is away may take long to undo a claim that was cancelled; what runs is told to stop meanwhile."""
    claiming, undone, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Away(MemoryEngine):
        async def claim(self, *args: Any, **kwargs: Any) -> list[Claim]:
            if claims := await super().claim(*args, **kwargs | {"wait": 0.0}):
                return claims
            claiming.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await undone.wait()
                raise
            return []

    app = make_app(minimum_concurrency=2)

    @app.task(name="stubborn")
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    async with app:
        app.engine._engine = Away("worker", store=app.engine._engine._store)  # type: ignore[attr-defined]
        job = await app.submit(stubborn)
        working = asyncio.create_task(app.start())
        async with asyncio.timeout(5):
            await claiming.wait()
            stopping = asyncio.create_task(app.stop(grace=0))
            await stopped.wait()
        undone.set()
        async with asyncio.timeout(5):
            await asyncio.wait([stopping, working])
        await job.refresh()
        assert (job.state, job.unexpected_retry_count) == (ResultState.SUSPENDED, 0)


async def test_an_end_that_cannot_be_logged_is_an_end(caplog: pytest.LogCaptureFixture) -> None:
    def choke(record: logging.LogRecord) -> bool:
        if "succeeded" in record.getMessage():
            raise RuntimeError("a filter's bug")
        return True

    app = make_app()
    log = logging.getLogger("mognet.task")
    log.addFilter(choke)
    try:
        with caplog.at_level(logging.INFO, log.name):
            async with app:
                await app.submit_many([call(app, "nap") for _ in range(3)])
                async with asyncio.timeout(5):
                    await app.start(burst=True)
                assert await app.engine.count(Query()) == {"SUCCESS": 3}
    finally:
        log.removeFilter(choke)
    assert caplog.text.count("went wrong") == 3


@pytest.mark.parametrize("hooked", [False, True])
async def test_the_line_at_the_end_belongs_to_the_job(caplog: pytest.LogCaptureFixture, hooked: bool) -> None:
    app = make_app()
    if hooked:
        app.add_middleware(Middleware())
    with caplog.at_level(logging.INFO, "mognet.task"):
        async with app:
            jobs = await app.submit_many([call(app, name) for name in ("nap", "nap", "fail")])
            async with asyncio.timeout(5):
                await app.start(burst=True)
    ends = [record for record in caplog.records if record.name == "mognet.task" and "started" not in record.getMessage()]
    assert sorted(record.__dict__["task_id"] for record in ends) == sorted(str(job.id) for job in jobs)
    assert all(record.__dict__["task_id"] in record.getMessage() for record in ends)


async def test_an_end_whose_answer_was_lost_is_recognised() -> None:
    class Forgetful(MemoryEngine):
        lost = 1

        async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
            records = await super().settle(outcomes)
            if self.lost:
                self.lost -= 1
                raise ConnectionError("cut")
            return records

    engine = Forgetful()
    config = AppConfig(node_id="me")
    await engine.submit([Job(uuid4(), "task", "queue", b"")])
    (claim,) = await engine.claim("me", ["queue"], 1, lease=15)
    record: asyncio.Future[Record | Exception | None] = asyncio.get_running_loop().create_future()
    Settler(engine, config).settle(succeeded(claim.token, b"1"), record.set_result, copy_context())
    stored = await record
    assert isinstance(stored, Record)
    assert stored.state is ResultState.SUCCESS
