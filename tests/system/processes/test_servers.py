"""Servers that go, stand still, or forget; and the apps that use them."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import mognet.app as app_module
from mognet import App, Backoff, ResultState
from mognet.engines.postgres import doorbell as postgres_doorbell
from mognet.engines.postgres import pool as postgres_pool
from mognet.engines.rabbitmq import session as rabbitmq_session
from mognet.engines.redis import session as redis_session
from mognet.exceptions import ResultLost
from servers import find_binary
from servers.places import Place, on_servers
from system.processes import jobs
from system.processes.crew import Crew, Ledger
from system.processes.jobs import insist

BACK = 5.0
"""Seconds after a server's return in which a new job has to be begun."""


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an outage of hours, and with bad luck in each draw: whoever has failed waits two minutes for the next attempt."""
    long = Backoff(base=120, cap=120, jitter=False)
    monkeypatch.setattr(redis_session, "_AGAIN", long)
    monkeypatch.setattr(postgres_pool, "RECONNECT", long)
    monkeypatch.setattr(postgres_doorbell, "RECONNECT", long)
    monkeypatch.setattr(rabbitmq_session, "pause", lambda _: 120.0)
    monkeypatch.setattr(app_module, "_RECONNECT", long)


@asynccontextmanager
async def working(app: App) -> AsyncIterator[None]:
    """Inside the context it has a worker, in this process."""
    task = asyncio.create_task(app.start())
    try:
        yield
    finally:
        await app.close()
        await task


def echo_app(place: Place) -> App:
    app = place.app()

    @app.task(name="echo")
    async def echo(number: int) -> int:
        return number

    app.__dict__["echo"] = echo
    return app


async def away(place: Place) -> None:
    await asyncio.gather(*(asyncio.to_thread(server.kill) for server in place.servers.values()))


async def here(place: Place) -> None:
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in place.servers.values()))


async def runs_a_job(app: App, seconds: float = BACK) -> None:
    request = app.create_request(app.__dict__["echo"], 7)
    async with asyncio.timeout(seconds):
        assert await (await insist(lambda: app.submit(request))) == 7


@on_servers
@pytest.mark.usefixtures("_patience")
async def test_a_return_is_noticed_long_before_the_next_attempt(place: Place) -> None:
    app, client = echo_app(place), echo_app(place)
    async with client, working(app):
        await runs_a_job(client, 30)
        await away(place)
        await asyncio.sleep(3)
        await here(place)
        await runs_a_job(client)


@on_servers
@pytest.mark.usefixtures("_patience")
async def test_a_worker_that_was_started_during_the_outage(place: Place) -> None:
    app = echo_app(place)
    async with echo_app(place) as client:
        await away(place)
        async with working(app):
            await asyncio.sleep(2.5)
            assert not app.ready
            await here(place)
            await runs_a_job(client)
            assert app.ready


@on_servers
async def test_a_way_that_hangs_for_longer_than_a_lease(crew: Crew, ledger: Ledger) -> None:
    """Running tasks go on, their ends are stored afterwards, waiters wait, and nothing has run twice."""
    async with crew.place.behind_proxies():
        member = await crew.start().ready()
        async with crew.place.app() as app:
            job = await app.submit(jobs.hold, 0.7)
            waiting = asyncio.ensure_future(_value(job))
            await ledger.seen("start", job.id)
            proxy = crew.place.proxies["store"]
            with proxy.hanging():
                await ledger.seen("finish", job.id)
                await asyncio.sleep(2)  # longer than the lease
                assert not waiting.done()
            async with asyncio.timeout(BACK):
                assert await waiting == "held"
                assert await app.run(jobs.quick, 7) == 7
            await job.refresh()
            assert (job.number_of_starts, job.unexpected_retry_count) == (1, 0)
            assert ledger.starts(job.id) == 1
            assert member.alive


async def _value(job):  # type: ignore[no-untyped-def]
    return await job


@on_servers
async def test_stopping_while_the_store_is_away(crew: Crew, ledger: Ledger) -> None:
    """What runs is handed back as soon as the store answers again."""
    async with crew.place.behind_proxies():
        member = await crew.start(shutdown_grace="0", lease="15").ready()
        async with crew.place.app() as app:
            job = await app.submit(jobs.hold)
            await ledger.seen("start", job.id)
            proxy = crew.place.proxies["store"]
            proxy.refuse()
            proxy.reset()
            member.send(signal.SIGTERM)
            await ledger.seen("cancelled", job.id)
            await asyncio.sleep(0.5)
            assert member.alive
            await proxy.accept()
            assert await member.ended() == 0
            await insist(job.refresh)
            assert (job.state, job.unexpected_retry_count) == (ResultState.SUSPENDED, 0)


def _copy(source: Path, target: Path) -> None:
    """With owners and all: a PostgreSQL looks at them."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([find_binary("cp"), "-a", str(source), str(target)], check=True)


@on_servers
async def test_a_store_that_is_restored_from_an_older_state(place: Place, tmp_path: Path) -> None:
    """What it has forgotten is lost, and whoever waits for it is told; what it has forgotten the end of runs again; all else goes on."""
    store, backup = place.servers["store"], tmp_path / "backup"
    client = echo_app(place)
    async with client:
        echo = client.__dict__["echo"]
        async with working(echo_app(place)):
            ended = await client.submit(echo, 1)
            assert await ended == 1
        again = await client.submit(echo, 2)
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(_copy, store.folder, backup)
        await asyncio.to_thread(store.start)

        forgotten = await insist(lambda: client.submit(client.create_request(echo, 3)))
        async with working(echo_app(place)):
            assert [await again, await forgotten] == [2, 3]
        unborn = await client.submit(echo, 4)  # its ticket, if there are tickets, outlives its record
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(_copy, backup, store.folder)
        await asyncio.to_thread(store.start)

        app = echo_app(place)
        async with working(app):
            await runs_a_job(client)
            await insist(again.refresh)
            async with asyncio.timeout(20):  # a pair's has lost its ticket: a sweep sees that
                assert await again == 2
            assert await ended == 1
            for lost in (forgotten, unborn):
                with pytest.raises(ResultLost):
                    await lost.refresh()
            assert await client.engine.count(app_module.Query()) == {"SUCCESS": 3}
            if "broker" in place.servers:
                assert await app.engine._engine.broker.depth("tasks") == 0  # type: ignore[attr-defined]
