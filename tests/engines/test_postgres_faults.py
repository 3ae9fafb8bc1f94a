"""The PostgreSQL engine while its server and the way to it fail: nothing is lost, nothing runs twice without a cause, and it comes back."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from mognet import Backoff
from mognet.engine import DONE
from mognet.engines.postgres import connecting, doorbell, pool
from mognet.engines.postgres.engine import PostgresEngine
from mognet.exceptions import ConnectionError
from mognet.outcomes import merge_metadata, revoke, succeeded
from mognet.records import Query
from mognet.states import ResultState
from mognet.testing.conformance.bench import make_job
from proxy import Proxy
from servers import Server
from servers.postgres import empty_postgres, own_postgres, query

T = TypeVar("T")

LEASE = 1.5


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    """A server of its own, that keeps what it has answered."""
    with own_postgres() as own:
        yield own


@pytest.fixture
async def proxied() -> AsyncIterator[tuple[Proxy, str]]:
    """The shared server, behind a proxy."""
    url = empty_postgres()
    async with Proxy(urlsplit(url).port or 0) as proxy:
        yield proxy, proxy.url(url)


async def test_who_subscribes_while_nothing_can_be_heard_is_not_kept(
    proxied: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is back, its signals not yet: whoever waits looks by himself, and that begins at once."""
    proxy, url = proxied
    monkeypatch.setattr(doorbell, "RECONNECT", Backoff(base=120, cap=120, jitter=False))
    caplog.set_level(logging.INFO, doorbell.__name__)
    async with PostgresEngine.from_url(url) as engine:
        async with engine.subscribe(DONE):
            proxy.refuse()
            proxy.cut()
            async with asyncio.timeout(10):
                while "no signals from other processes" not in caplog.text:  # noqa: ASYNC110 - a moment
                    await asyncio.sleep(0.01)
        engine._doors._due = math.inf  # nobody notices that it is back
        await proxy.accept()
        began = time.monotonic()
        async with engine.subscribe(DONE):
            assert time.monotonic() - began < doorbell.EXCHANGE_SECONDS / 2
        assert await insist(lambda: engine.count(Query())) == {}


async def insist(operation: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer."""
    while True:
        try:
            return await operation()
        except ConnectionError:
            await asyncio.sleep(0.02)


class Load:
    """Producers and workers, and a note of what they were told."""

    def __init__(self, url: str, engines: int = 3) -> None:
        self.url = url
        self.submitted: list[UUID] = []
        self.begun: Counter[UUID] = Counter()
        self.claims: list[float] = []
        self.engines = engines

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[PostgresEngine]]:
        async with AsyncExitStack() as stack:
            engines = [await stack.enter_async_context(PostgresEngine.from_url(self.url, "load")) for _ in range(self.engines)]
            self.over = asyncio.Event()
            tasks = [asyncio.create_task(self.produce(engines[0])), asyncio.create_task(self.sweep(engines[0]))]
            tasks += [asyncio.create_task(self.work(engine, f"node{n}")) for n, engine in enumerate(engines)]
            try:
                yield engines
                self.over.set()
                await asyncio.wait_for(asyncio.gather(*tasks), 60)
                await self.drain(engines[0])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def produce(self, engine: PostgresEngine) -> None:
        while not self.over.is_set():
            jobs = [make_job(queue="load") for _ in range(5)]
            await insist(lambda jobs=jobs: engine.submit(jobs))  # type: ignore[misc]
            self.submitted += [job.id for job in jobs]
            await asyncio.sleep(0.01)

    async def sweep(self, engine: PostgresEngine) -> None:
        while not self.over.is_set():
            await insist(engine.sweep)
            await asyncio.sleep(0.2)

    async def work(self, engine: PostgresEngine, node: str) -> None:
        while not self.over.is_set():
            with suppress(ConnectionError):
                claims = await engine.claim(node, ["load"], 10, lease=LEASE, wait=0.5)
                self.claims.append(time.monotonic())
                for claim in claims:
                    self.begun[claim.token.id] += 1
                await insist(lambda claims=claims: engine.settle([succeeded(claim.token, b"1") for claim in claims]))  # type: ignore[misc]

    async def drain(self, engine: PostgresEngine) -> None:
        """What the faults have left unfinished comes back by lease and sweep."""
        until = time.monotonic() + 30
        while sum((await engine.count(Query(states=frozenset({ResultState.PENDING, ResultState.RUNNING})))).values()):
            assert time.monotonic() < until, "jobs are stuck"
            await engine.sweep()
            claims = await engine.claim("last", ["load"], 500, lease=LEASE, wait=0.2)
            await engine.settle([succeeded(claim.token, b"1") for claim in claims])

    async def check(self, engine: PostgresEngine, *, most_twice: int) -> None:
        """All that was submitted has ended, once; so many at most began twice."""
        records = await engine.get(self.submitted)
        assert {record and record.state for record in records} == {ResultState.SUCCESS}
        assert sum(record.starts - 1 for record in records if record is not None) <= most_twice
        assert {record.stops for record in records if record is not None} == {1}
        assert self.submitted

    def back_after(self, moment: float) -> float:
        """Seconds from then to the first claim that was answered."""
        return min(at for at in self.claims if at > moment) - moment


async def test_killed_under_load(server: tuple[Server, str]) -> None:
    process, url = server
    load = Load(url)
    async with load.running() as engines:
        for _ in range(2):
            await asyncio.sleep(0.7)
            await asyncio.to_thread(process.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(process.start)
            back = time.monotonic()
            await asyncio.sleep(3)
            assert load.back_after(back) < 5
    async with PostgresEngine.from_url(url, "load") as engine:
        await load.check(engine, most_twice=2 * len(engines) * 10)


async def test_all_connections_terminated_under_load(server: tuple[Server, str]) -> None:
    _, url = server
    load = Load(url)
    async with load.running():
        for _ in range(6):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(query, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mognet'")
        moment = time.monotonic()
        await asyncio.sleep(2)
        assert load.back_after(moment) < 5
    async with PostgresEngine.from_url(url, "load") as engine:
        await load.check(engine, most_twice=6 * 3 * 10)


async def test_paused_server(server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs holds no operation for longer than its deadline; afterwards all goes on."""
    process, url = server
    monkeypatch.setattr(pool, "OPERATION_SECONDS", 1.0)
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 2.0)
    async with PostgresEngine.from_url(url) as engine:
        [job] = [make_job()]
        await engine.submit([job])
        backends = [int(str(pid)) for (pid,) in query(url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'mognet'")]
        for pid in backends:  # each is in a process group of its own
            os.kill(pid, signal.SIGSTOP)
        process.pause()
        start = time.monotonic()
        with pytest.raises(ConnectionError):
            await engine.get([job.id])
        assert time.monotonic() - start < 3
        process.resume()
        for pid in backends:
            os.kill(pid, signal.SIGCONT)
        [claim] = await insist(lambda: engine.claim("node", ["q"], 1, lease=10, wait=5))
        assert (claim.token.id, claim.record.starts) == (job.id, 1)


async def test_a_claim_whose_answer_is_lost_is_undone(proxied: tuple[Proxy, str]) -> None:
    proxy, url = proxied
    async with PostgresEngine.from_url(url) as engine:
        [job] = [make_job()]
        await engine.submit([job])
        [claim] = await engine.claim("node", ["q"], 1, lease=60)
        await engine.settle([succeeded(claim.token, b"1")])
        [job] = [make_job()]
        await engine.submit([job])
        struck = proxy.lose_reply(b"node-that-hears-nothing")
        with pytest.raises(ConnectionError):
            await engine.claim("node-that-hears-nothing", ["q"], 1, lease=60)
        assert struck.is_set()
        [claim] = await insist(lambda: engine.claim("other", ["q"], 1, lease=60, wait=10))
        assert (claim.token.id, claim.record.starts) == (job.id, 1)


async def test_reset_connections_and_signals_come_back(proxied: tuple[Proxy, str]) -> None:
    proxy, url = proxied
    async with (
        PostgresEngine.from_url(url) as here,
        PostgresEngine.from_url(empty_postgres()) as there,
        here.subscribe("c", DONE) as signals,
    ):
        await there.publish("c", b"1")
        assert (await asyncio.wait_for(anext(signals), 5)).body == b"1"
        proxy.reset()
        until = time.monotonic() + 10

        async def speak() -> None:
            while time.monotonic() < until:
                await there.publish("c", b"2")
                await asyncio.sleep(0.05)

        speaking = asyncio.create_task(speak())
        assert (await asyncio.wait_for(anext(signals), 10)).body == b"2"
        speaking.cancel()
        await asyncio.wait([speaking])


async def test_a_hundred_clients_come_back_at_once(server: tuple[Server, str]) -> None:
    process, url = server
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(PostgresEngine.from_url(url + "?pool_size=1")) for _ in range(100)]
        waiting = [asyncio.create_task(insist(lambda e=e: e.claim("node", ["q"], 1, lease=LEASE, wait=30))) for e in engines]  # type: ignore[misc]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(process.restart)
        start = time.monotonic()
        await insist(lambda: engines[0].submit([make_job()]))
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert time.monotonic() - start < 5
        await insist(lambda: engines[0].submit([make_job() for _ in range(99)]))
        async with asyncio.timeout(20):
            got = [claims[0].token.id for claims in await asyncio.gather(*waiting)]
        assert len(set(got)) == 100


async def test_trees_and_submits_at_once_leave_no_orphan(proxied: tuple[Proxy, str]) -> None:
    """Revokes from several sides and submits of children at the same time: no deadlock, and no child of a revoked job is left."""
    _, url = proxied
    async with PostgresEngine.from_url(url) as one, PostgresEngine.from_url(url) as two:
        for _ in range(5):
            root, middle = make_job(), make_job()
            middle = middle._replace(parent=root.id, root=root.id)
            children = [make_job(parent=middle.id, root=root.id) for _ in range(40)]
            await one.submit([root, middle])
            await asyncio.gather(
                *((one, two)[n % 2].submit([child]) for n, child in enumerate(children)),
                one.update(root.id, revoke()),
                two.update(middle.id, revoke()),
            )
            records = await one.get([root.id, middle.id, *(child.id for child in children)])
            assert {record and record.state for record in records} == {ResultState.REVOKED}


async def test_merges_at_once_lose_no_key(proxied: tuple[Proxy, str]) -> None:
    _, url = proxied
    async with PostgresEngine.from_url(url) as one, PostgresEngine.from_url(url) as two:
        job = make_job()
        await one.submit([job])
        merges = [(one, two)[n % 2].update(job.id, merge_metadata(b'{"%d":%d}' % (n, n))) for n in range(30)]
        await asyncio.gather(*merges)
        [record] = await one.get([job.id])
        assert record is not None
        assert len(record.metadata.split(b",")) == 30


async def test_extends_at_once_hold_the_job(proxied: tuple[Proxy, str]) -> None:
    """Statements that wait for each other's rows see what became of them meanwhile."""
    _, url = proxied
    async with PostgresEngine.from_url(url) as one, PostgresEngine.from_url(url) as two:
        await one.submit([make_job() for _ in range(30)])
        tokens = [claim.token for claim in await one.claim("node", ["q"], 30, lease=60)]
        extended = await asyncio.gather(*((one, two)[n % 2].extend(tokens, 60) for n in range(16)))
        assert all(each == set(tokens) for each in extended)
        settled = await asyncio.gather(
            one.extend(tokens, 60), one.settle([succeeded(t, b"1") for t in tokens]), two.extend(tokens[::-1], 60)
        )
        assert None not in settled[1]


async def test_half_open(proxied: tuple[Proxy, str]) -> None:
    """The server's end is gone and nobody said so: what waits for an answer ends long before its deadline, and all is made anew."""
    proxy, url = proxied
    async with PostgresEngine.from_url(url) as engine:
        job = make_job()
        await engine.submit([job])
        [claim] = await engine.claim("node", ["q"], 1, lease=60)
        await asyncio.gather(*(engine.count(Query()) for _ in range(8)))  # all connections of the pool are open
        proxy.half_open()
        start = time.monotonic()
        results = await asyncio.gather(*(engine.count(Query()) for _ in range(8)), return_exceptions=True)
        assert any(isinstance(result, ConnectionError) for result in results)
        assert await insist(lambda: engine.extend([claim.token], 60)) == {claim.token}
        assert time.monotonic() - start < 8  # and not 28, in which leases of 15 s are lost
        assert await engine.settle([succeeded(claim.token, b"1")]) != [None]


async def test_half_open_while_it_connects(proxied: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was just being made is not waited for until its deadline."""
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 200.0)
    proxy, url = proxied
    async with PostgresEngine.from_url(url) as engine:
        await engine.count(Query())
        proxy.reset()
        proxy.delay, trips = 0.2, proxy.trips
        counting = asyncio.create_task(insist(lambda: engine.count(Query())))
        while proxy.trips == trips:  # noqa: ASYNC110 - a proxy tells nobody
            await asyncio.sleep(0.001)
        proxy.half_open()
        proxy.delay = 0.0
        async with asyncio.timeout(60):
            assert await counting == {}


async def test_an_operation_that_takes_long_is_not_taken_for_dead(proxied: tuple[Proxy, str]) -> None:
    _, url = proxied
    async with PostgresEngine.from_url(url) as engine:
        pool_ = engine._open_pool

        async def slow(connection: connecting.Connection) -> object:
            cursor = await connection.execute("SELECT pg_sleep(6), 7")
            return (await cursor.fetchall())[0][1]

        assert await pool_.run(slow) == 7
