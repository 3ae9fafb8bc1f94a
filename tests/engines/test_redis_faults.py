"""The Redis engine while its server and the way to it fail: nothing is lost, nothing runs twice without a cause, and it comes back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from redis import Redis

from mognet.codec import unpack_done
from mognet.engine import DONE
from mognet.engines.redis.engine import RedisEngine
from mognet.exceptions import ConnectionError
from mognet.outcomes import retry, succeeded
from mognet.records import Query
from mognet.states import ResultState
from mognet.testing.conformance.bench import make_job
from processor import Processor
from proxy import Proxy
from servers import Server
from servers.redis import empty_redis, redis_server

T = TypeVar("T")

LEASE = 1.5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server of its own, that keeps what it has answered."""
    server, url = redis_server(tmp_path)
    server.start()
    yield server, url
    server.resume()
    server.kill()


@pytest.fixture
async def proxied() -> AsyncIterator[tuple[Proxy, str]]:
    """The shared server, behind a proxy."""
    url = empty_redis()
    async with Proxy(urlsplit(url).port or 0) as proxy:
        yield proxy, proxy.url(url) + "?timeout=1"


def ask(url: str, *command: str) -> Any:
    with Redis.from_url(url.partition("?")[0], protocol=2) as client:
        return client.execute_command(*command)


async def insist(operation: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer."""
    while True:
        try:
            return await operation()
        except ConnectionError:
            await asyncio.sleep(0.02)


async def one_job(engine: RedisEngine) -> None:
    """After this, the server knows the scripts."""
    await engine.submit([make_job()])
    [claim] = await engine.claim("node", ["q"], 1, lease=10)
    await engine.settle([succeeded(claim.token, b"1")])


class Load:
    """Producers and workers, and a note of what they were told."""

    def __init__(self, url: str, engines: int = 3) -> None:
        self.url = url
        self.submitted: list[UUID] = []
        self.begun: Counter[UUID] = Counter()
        self.claimed = asyncio.Event()
        self._number = engines
        self._producing = True

    @asynccontextmanager
    async def going(self) -> AsyncIterator[Load]:
        async with AsyncExitStack() as stack:
            self.engines = [await stack.enter_async_context(RedisEngine(self.url)) for _ in range(self._number)]
            self.producers = [asyncio.create_task(self._produce(engine)) for engine in self.engines]
            tasks = [asyncio.create_task(part(engine)) for engine in self.engines for part in (self._work, self._sweep)] + self.producers
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for task in tasks:
                    if not task.cancelled():
                        task.result()

    async def _produce(self, engine: RedisEngine) -> None:
        while self._producing:
            jobs = [make_job() for _ in range(5)]
            await insist(lambda jobs=jobs: engine.submit(jobs))  # type: ignore[misc]
            self.submitted += [job.id for job in jobs]
            await asyncio.sleep(0.01)

    async def _work(self, engine: RedisEngine) -> None:
        while True:
            claims = await insist(lambda: engine.claim("node", ["q"], 10, lease=LEASE, wait=0.5))
            for claim in claims:
                self.begun[claim.token.id] += 1
                self.claimed.set()
            await insist(lambda claims=claims: engine.settle([succeeded(claim.token, b"1") for claim in claims]))  # type: ignore[misc]

    async def _sweep(self, engine: RedisEngine) -> None:
        while True:
            await insist(engine.sweep)
            await asyncio.sleep(0.2)

    async def claims_again(self, seconds: float = 5.0) -> None:
        """New jobs are claimed within so many seconds."""
        self.claimed.clear()
        async with asyncio.timeout(seconds):
            await self.claimed.wait()

    async def check(self, most_twice: int) -> None:
        """All that was submitted ends, once; so many at most began twice."""
        self._producing = False
        engine = self.engines[0]
        async with asyncio.timeout(20):
            await asyncio.wait(self.producers)
            while (await insist(lambda: engine.count(Query()))) != {"SUCCESS": len(set(self.submitted))}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        records = await engine.get(self.submitted)
        assert {record and record.state for record in records} == {ResultState.SUCCESS}
        again = sum(record.starts - 1 for record in records if record is not None)
        assert again <= most_twice
        assert {record.stops for record in records if record is not None} == {1}
        assert not [
            key for key in ask(self.url, "KEYS", "mognet:*") if key.split(b"}:")[1].split(b":")[0] in (b"ready", b"later", b"leases")
        ]


async def test_killed_and_restarted_under_load(server: tuple[Server, str]) -> None:
    redis, url = server
    async with Load(url).going() as load:
        for _ in range(3):
            await asyncio.sleep(0.4)
            await asyncio.to_thread(redis.restart)
            await load.claims_again()
        await load.check(most_twice=3 * 3 * 10)
    assert len(load.submitted) > 50


async def test_a_long_outage(server: tuple[Server, str]) -> None:
    redis, url = server
    async with Load(url).going() as load:
        await asyncio.sleep(0.3)
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(6)
        await asyncio.to_thread(redis.start)
        await load.claims_again()
        await load.check(most_twice=3 * 10)


async def test_every_connection_cut_under_load(server: tuple[Server, str]) -> None:
    _, url = server
    async with Load(url).going() as load:
        for _ in range(8):
            await asyncio.sleep(0.15)
            for kind in ("normal", "pubsub"):
                ask(url, "CLIENT", "KILL", "TYPE", kind)
            await load.claims_again()
        await load.check(most_twice=8 * 3 * 10)


async def test_a_server_that_stands_still(server: tuple[Server, str]) -> None:
    """It keeps its connections and says nothing, for longer than we wait; what it was told it does when it goes on."""
    redis, url = server
    async with Load(f"{url}?timeout=1").going() as load:
        await asyncio.sleep(0.3)
        redis.pause()
        await asyncio.sleep(3)
        redis.resume()
        await load.claims_again()
        await load.check(most_twice=3 * 10)


async def test_scripts_forgotten_under_load(server: tuple[Server, str]) -> None:
    _, url = server
    async with Load(url).going() as load:
        for _ in range(20):
            await asyncio.sleep(0.03)
            ask(url, "SCRIPT", "FLUSH")
        await load.claims_again()
        await load.check(most_twice=0)


async def test_a_hundred_come_back_at_once(server: tuple[Server, str]) -> None:
    redis, url = server
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(RedisEngine(url)) for _ in range(100)]
        waiting = [asyncio.create_task(insist(lambda e=e: e.claim("node", ["q"], 1, lease=LEASE, wait=30))) for e in engines]  # type: ignore[misc]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(redis.restart)
        start, processor = time.monotonic(), Processor()
        await insist(lambda: engines[0].submit([make_job() for _ in range(100)]))
        async with asyncio.timeout(60):
            got = [claims[0].token.id for claims in await asyncio.gather(*waiting)]
        assert len(set(got)) == 100
        assert time.monotonic() - start < 5 * processor.slowness()


async def test_half_open(proxied: tuple[Proxy, str]) -> None:
    """The server's end is gone and nobody said so: a waiter and a listener find out, and come back."""
    proxy, url = proxied
    async with RedisEngine(url) as engine, engine.subscribe("c") as signals:
        waiting = asyncio.create_task(insist(lambda: engine.claim("node", ["q"], 1, lease=LEASE, wait=30)))
        await asyncio.sleep(0.05)
        proxy.half_open()
        other_url = url.replace(str(proxy.port), str(proxy._target[1]))
        await asyncio.sleep(0.2)
        async with RedisEngine(other_url) as other:
            await other.submit([make_job()])
            async with asyncio.timeout(8):
                assert len(await waiting) == 1
            await other.publish("c", b"1")
            async with asyncio.timeout(2):
                assert (await anext(signals)).body == b"1"


async def test_a_hanging_way(proxied: tuple[Proxy, str]) -> None:
    """An operation on it ends with an error in time; afterwards all goes on."""
    proxy, url = proxied
    async with RedisEngine(url) as engine:
        await engine.submit([make_job()])
        start = time.monotonic()
        with proxy.hanging():
            with pytest.raises(ConnectionError):
                await engine.count(Query())
            assert time.monotonic() - start < 3
        assert await insist(lambda: engine.count(Query())) == {"PENDING": 1}


async def test_lost_replies(proxied: tuple[Proxy, str]) -> None:
    """What was done although its answer was lost is not done twice when it is asked for again."""
    proxy, url = proxied
    async with RedisEngine(url) as engine:
        await one_job(engine)
        job = make_job(name="lost-submit")
        struck = proxy.lose_reply(b"lost-submit")
        with pytest.raises(ConnectionError):
            await engine.submit([job])
        assert struck.is_set()
        assert await insist(lambda: engine.submit([job])) == [False]

        struck = proxy.lose_reply(b"lost-node")
        with pytest.raises(ConnectionError):
            await engine.claim("lost-node", ["q"], 1, lease=0.3)
        assert struck.is_set()
        assert await insist(lambda: engine.claim("node", ["q"], 1, lease=0.3)) == []
        await asyncio.sleep(0.35)
        assert (await engine.sweep()).recovered == 1

        [claim] = await engine.claim("node", ["q"], 1, lease=10)
        struck = proxy.lose_reply(b'"lost-value"')
        with pytest.raises(ConnectionError):
            await engine.settle([succeeded(claim.token, b'"lost-value"')])
        assert struck.is_set()
        assert await insist(lambda: engine.settle([succeeded(claim.token, b'"lost-value"')])) == [None]
        assert await engine.value(job.id) == b'"lost-value"'


async def test_listeners_hear_after_any_break(proxied: tuple[Proxy, str]) -> None:
    proxy, url = proxied
    async with RedisEngine(url) as engine, RedisEngine(url) as other, other.subscribe(DONE) as signals:
        for harm in (proxy.cut, proxy.reset):
            harm()
            await asyncio.sleep(0.05)
            await insist(lambda: engine.submit([make_job()]))
            [claim] = await insist(lambda: engine.claim("node", ["q"], 1, lease=10, wait=5))
            await insist(lambda: other.count(Query()))
            await engine.settle([succeeded(claim.token, b"1")])
            async with asyncio.timeout(5):
                assert unpack_done((await anext(signals)).body)[0].id == claim.token.id


async def test_refused_for_a_while(proxied: tuple[Proxy, str]) -> None:
    """Operations raise ConnectionError meanwhile, and wait a little before they do."""
    proxy, url = proxied
    async with RedisEngine(url) as engine:
        proxy.refuse()
        proxy.reset()
        with pytest.raises(ConnectionError):
            await engine.count(Query())
        await proxy.accept()
        assert await insist(lambda: engine.count(Query())) == {}


async def test_cancelled_while_the_way_hangs(proxied: tuple[Proxy, str]) -> None:
    """A claim that is cancelled while its answer is under way is handed back when it has come."""
    proxy, url = proxied
    async with RedisEngine(url) as engine:
        await engine.submit([make_job()])
        with proxy.hanging():
            claim = asyncio.create_task(engine.claim("gone", ["q"], 1, lease=100))
            await asyncio.sleep(0.1)
            claim.cancel()
            await asyncio.sleep(0.1)
        with suppress(asyncio.CancelledError):
            await claim
        [claimed] = await engine.claim("node", ["q"], 1, lease=100, wait=2)
        assert (claimed.record.starts, claimed.record.node) == (1, "node")


async def test_round_trips(proxied: tuple[Proxy, str]) -> None:
    """One to submit, one to claim, one to settle, for one job as for many."""
    proxy, url = proxied
    async with RedisEngine(url) as engine:
        await one_job(engine)
        for number in (1, 100):
            trips = proxy.trips
            await engine.submit([make_job() for _ in range(number)])
            claims = await engine.claim("node", ["q"], number, lease=10, wait=5)
            await engine.settle([succeeded(claim.token, b"1") for claim in claims])
            assert len(claims) == number
            assert proxy.trips - trips == 3


async def test_a_delay_on_the_way_is_no_harm(proxied: tuple[Proxy, str]) -> None:
    proxy, url = proxied
    async with RedisEngine(url) as engine:
        proxy.delay = 0.05
        jobs = [make_job() for _ in range(3)]
        assert await engine.submit(jobs) == [True] * 3
        [claim, *_] = await engine.claim("node", ["q"], 3, lease=10)
        assert await engine.settle([retry(claim.token, 0)]) != [None]
