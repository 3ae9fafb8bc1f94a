"""RabbitMQ and what may happen to it: afterwards nothing is lost, and nothing has run twice without reason."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from mognet.engine import Engine
from mognet.engines import paired as paired_module
from mognet.engines.memory import MemoryEngine, MemoryStore
from mognet.engines.paired import Paired
from mognet.engines.rabbitmq.broker import RabbitMQBroker
from mognet.engines.rabbitmq.link import ANSWER_SECONDS
from mognet.engines.rabbitmq.settings import queue_name, read_urls
from mognet.engines.rabbitmq.wire import Wire
from mognet.exceptions import ConnectionError, MognetError
from mognet.outcomes import succeeded
from mognet.records import Claim, Job, Query, Ticket, Token
from proxy import Proxy
from servers import Server
from servers.rabbitmq import rabbitmqctl

LEASE = 1000.0
BACK = 5.0
"""Seconds after the server's return in which a new job has to be claimed."""


@pytest.fixture
def node(killable_rabbitmq: tuple[Server, str]) -> tuple[Server, str]:
    """A node that tests may kill."""
    return killable_rabbitmq


@pytest.fixture
async def proxy(node: tuple[Server, str]) -> AsyncIterator[Proxy]:
    async with Proxy(read_urls(node[1]).addresses[0].port) as proxy:
        yield proxy


class Load:
    """Submits jobs and runs them, and keeps count by itself."""

    def __init__(self, url: str, store: MemoryStore | None = None) -> None:
        self.settings = read_urls(url)
        self.app = uuid4().hex
        self.store = store or MemoryStore()
        self.submitted: list[UUID] = []
        self.runs: Counter[UUID] = Counter()
        self.errors: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.pairs: list[Paired] = []
        self.giving = True

    async def pair(self, store: Engine | None = None) -> Paired:
        pair = Paired(RabbitMQBroker(self.settings, self.app), store or MemoryEngine(self.app, store=self.store))
        await pair.__aenter__()
        self.pairs.append(pair)
        return pair

    async def submit(self, pair: Paired, number: int = 1) -> list[UUID]:
        jobs = [Job(uuid4(), "work", "q", b"{}") for _ in range(number)]
        assert await pair.submit(jobs) == [True] * number
        self.submitted += (ids := [job.id for job in jobs])
        return ids

    async def run(self, claims: list[Claim], pair: Paired) -> None:
        self.runs.update(claim.token.id for claim in claims)
        await pair.settle([succeeded(claim.token, b"1") for claim in claims])

    async def work(self, pair: Paired) -> None:
        while True:
            try:
                await self.run(await pair.claim("n", ["q"], 7, lease=LEASE, wait=1.0), pair)
            except MognetError as error:
                self.errors.append(str(error))
                await asyncio.sleep(0.05)

    async def give(self, pair: Paired) -> None:
        while self.giving:
            await self.submit(pair, 5)
            await asyncio.sleep(0.02)

    async def sweep(self, pair: Paired) -> None:
        while True:
            await pair.sweep()
            await asyncio.sleep(0.2)

    async def begin(self, *, givers: int = 1) -> Paired:
        pairs = [await self.pair() for _ in range(3)]
        work = [self.work(pairs[1]), self.work(pairs[2]), self.sweep(pairs[1]), *(self.give(pairs[0]) for _ in range(givers))]
        self.tasks = [asyncio.create_task(each) for each in work]
        await self.all_run(20)
        return pairs[0]

    async def stop_giving(self) -> None:
        self.giving = False
        await asyncio.gather(*self.tasks[3:])

    async def all_run(self, least: int = 0, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while len(self.runs) < max(least, len(self.submitted) if not least else 0):
                for task in self.tasks:
                    if task.done() and not task.cancelled():
                        task.result()
                await asyncio.sleep(0.02)

    async def claimed_soon(self, pair: Paired, seconds: float = BACK) -> float:
        """How long a new job takes to be run."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        [id] = await self.submit(pair)
        async with asyncio.timeout(seconds):
            while not self.runs[id]:  # noqa: ASYNC110 - a moment
                await asyncio.sleep(0.01)
        return loop.time() - start

    async def check(self) -> None:
        await self.stop_giving()
        await self.all_run()
        assert set(self.runs) == set(self.submitted)
        assert set(self.runs.values()) == {1}
        assert await self.pairs[0].count(Query()) == {"SUCCESS": len(self.submitted)}

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for pair in self.pairs:
            await pair.__aexit__(None, None, None)


@pytest.fixture
async def load(proxy: Proxy, node: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Load]:
    """Load that reaches the node through the proxy. Lost tickets are given up after one second."""
    monkeypatch.setattr(paired_module, "GRACE_EMPTY", 1.0)
    load = Load(proxy.url(node[1]))
    yield load
    await load.close()


async def depth(pair: Paired) -> int:
    try:
        return await pair.broker.depth("q")
    except ConnectionError:
        return 0


async def raw(url: str) -> tuple[Wire, object]:
    settings = read_urls(url)
    wire = Wire(settings.addresses[0], settings, None, "raw")
    await wire.connect()
    return wire, await wire.channel()


# --- the server


async def test_the_node_is_killed_and_comes_back(load: Load, node: tuple[Server, str]) -> None:
    pair = await load.begin()
    await asyncio.to_thread(node[0].kill)
    await asyncio.sleep(1.0)
    before = len(load.submitted)
    await asyncio.to_thread(node[0].start)
    assert len(load.submitted) > before  # the store alone is enough to submit
    await load.claimed_soon(pair)
    await load.check()


async def test_the_node_hangs(load: Load, node: tuple[Server, str]) -> None:
    """For longer than anybody waits for an answer, or for a beat of the heart."""
    load.settings = replace(load.settings, heartbeat=2)
    pair = await load.begin()
    node[0].pause()
    try:
        await asyncio.sleep(ANSWER_SECONDS + 1)
    finally:
        node[0].resume()
    await load.claimed_soon(pair)
    await load.check()


async def test_memory_alarm_blocks_publishers_only(load: Load, node: tuple[Server, str]) -> None:
    """While the broker blocks publishers, what it holds is still given out; a submit is held up once, and then only briefly."""
    pair = await load.pair()
    await load.submit(pair, 20)

    def limit(bytes: str) -> None:
        rabbitmqctl(node[0], "set_vm_memory_high_watermark", bytes)

    await asyncio.to_thread(limit, "0.0000001")
    try:
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(4):
            start = loop.time()
            await load.submit(pair)
            times.append(loop.time() - start)
        assert max(times) < 7
        assert sum(times[1:]) < 3
        claims = [claim for _ in range(4) for claim in await pair.claim("n", ["q"], 5, lease=LEASE, wait=2.0)]
        assert len(claims) >= 20
        await load.run(claims, pair)
    finally:
        await asyncio.to_thread(limit, "0.4")
    load.tasks = [asyncio.create_task(load.work(pair)), asyncio.create_task(load.sweep(pair))]
    await load.claimed_soon(pair, 10)
    await load.all_run()
    assert set(load.runs.values()) == {1}


# --- the way to it


async def test_every_connection_is_cut_again_and_again(load: Load, proxy: Proxy) -> None:
    pair = await load.begin(givers=2)
    for number in range(12):
        (proxy.reset, proxy.cut)[number % 2]()
        await asyncio.sleep(0.25)
    assert await load.claimed_soon(pair) < BACK
    await load.check()


async def test_half_open_connections(load: Load, proxy: Proxy) -> None:
    """Nobody is told that the server's end is gone: silence is enough."""
    load.settings = replace(load.settings, heartbeat=2)
    pair = await load.begin()
    proxy.half_open()
    await asyncio.sleep(ANSWER_SECONDS + 1)
    await load.claimed_soon(pair)
    await load.check()


async def test_the_way_is_closed_for_a_while(load: Load, proxy: Proxy) -> None:
    pair = await load.begin()
    proxy.refuse()
    proxy.reset()
    await asyncio.sleep(4)
    await proxy.accept()
    await load.claimed_soon(pair)
    await load.check()


async def test_a_hundred_clients_come_back_at_once(load: Load, proxy: Proxy) -> None:
    pairs = [await load.pair() for _ in range(100)]
    load.tasks = [asyncio.create_task(load.work(pair)) for pair in pairs]
    giver = await load.pair()
    await load.submit(giver, 300)
    await load.all_run()
    proxy.reset()
    loop = asyncio.get_running_loop()
    start = loop.time()
    while proxy.open < 100:
        assert loop.time() - start < 20
        await asyncio.sleep(0.05)
    await load.claimed_soon(giver)
    await load.submit(giver, 300)
    await load.all_run()
    assert set(load.runs.values()) == {1}


# --- tickets


async def test_a_ticket_twice(load: Load) -> None:
    pair = await load.pair()
    ids = await load.submit(pair, 10)
    for _ in range(3):
        await pair.broker.push([Ticket(id, "q") for id in ids])
    load.tasks = [asyncio.create_task(load.work(await load.pair())) for _ in range(4)]
    await load.all_run()
    async with asyncio.timeout(10):
        while await pair.broker.depth("q"):  # noqa: ASYNC110 - the broker's, which tells nobody
            await asyncio.sleep(0.05)
    assert set(load.runs.values()) == {1}


async def test_a_confirm_is_lost(load: Load, proxy: Proxy) -> None:
    """The submit has succeeded, and the job runs once: its ticket is there, or a sweep finds it."""
    pair = await load.pair()
    await load.submit(pair)
    job = Job(uuid4(), "work", "q", b"{}")
    struck = proxy.lose_reply(str(job.id).encode())
    assert await pair.submit([job]) == [True]
    load.submitted.append(job.id)
    assert struck.is_set()
    load.tasks = [asyncio.create_task(load.work(pair)), asyncio.create_task(load.sweep(pair))]
    await load.check()


async def test_the_answer_to_a_pull_is_lost(load: Load, proxy: Proxy) -> None:
    pair = await load.begin()
    for _ in range(5):
        struck = proxy.lose_reply(queue_name(load.app, "q").encode())
        async with asyncio.timeout(10):
            await struck.wait()
    await load.claimed_soon(pair)
    await load.check()


async def test_tickets_are_lost(load: Load, node: tuple[Server, str]) -> None:
    """The queue is emptied behind our back: a sweep brings what it held."""
    pair = await load.pair()
    await load.submit(pair, 50)
    wire, channel = await raw(node[1])
    assert (await channel.queue_purge(queue_name(load.app, "q"))).message_count == 50  # type: ignore[attr-defined]
    await wire.close()
    assert await pair.claim("n", ["q"], 50, lease=LEASE) == []
    load.tasks = [asyncio.create_task(load.work(pair)), asyncio.create_task(load.sweep(pair))]
    await load.check()


async def test_a_backlog_is_not_copied(load: Load) -> None:
    """As long as tickets wait in the broker, jobs that nobody has claimed are late, not lost."""
    pair = await load.pair()
    await load.submit(pair, 50)
    await asyncio.sleep(1.2)
    for _ in range(3):
        assert (await pair.sweep()).carried == 0
    assert [record async for record in pair.search(Query(in_line=True))] == []
    while claims := await pair.claim("n", ["q"], 50, lease=LEASE):
        await load.run(claims, pair)
    await load.check()


async def test_the_consumer_is_cancelled(load: Load, node: tuple[Server, str]) -> None:
    """The queue is deleted while workers wait at it."""
    pair = await load.begin()
    await load.stop_giving()
    await load.all_run()
    await asyncio.sleep(0.2)
    wire, channel = await raw(node[1])
    for _ in range(3):
        await channel.queue_delete(queue_name(load.app, "q"))  # type: ignore[attr-defined]
        await load.claimed_soon(pair)
    await wire.close()
    await load.check()


async def test_workers_are_cancelled_in_the_storm(load: Load, proxy: Proxy) -> None:
    """Claims that are cancelled at any point while connections break hold nothing."""
    pair = await load.begin()
    other = await load.pair()
    for number in range(80):
        claiming = asyncio.create_task(other.claim("n", ["q"], 3, lease=LEASE, wait=0.5))
        await asyncio.sleep(0.0007 * (number % 30))
        claiming.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await load.run(await claiming, other)
        if number % 20 == 0:
            proxy.reset()
    await load.claimed_soon(pair)
    await load.check()


# --- the store


class Stumbling(MemoryEngine):
    """A store that cannot be reached for a while."""

    down = False

    def _check(self) -> None:
        if self.down:
            raise ConnectionError("the store is down")

    async def submit(self, jobs, *, enqueue=True):  # type: ignore[no-untyped-def]
        self._check()
        return await super().submit(jobs, enqueue=enqueue)

    async def claim(self, *args, **options):  # type: ignore[no-untyped-def]
        self._check()
        return await super().claim(*args, **options)

    async def extend(self, tokens, lease) -> set[Token]:  # type: ignore[no-untyped-def]
        self._check()
        return await super().extend(tokens, lease)


async def test_the_store_is_down_and_the_broker_up(load: Load) -> None:
    store = Stumbling(load.app, store=load.store)
    pair = await load.pair(store)
    await load.submit(pair, 20)
    store.down = True
    with pytest.raises(ConnectionError, match="store is down"):
        await load.submit(pair)
    for wait in (0.0, 0.3):
        with pytest.raises(ConnectionError, match="store is down"):
            await pair.claim("n", ["q"], 5, lease=LEASE, wait=wait)
    assert await (await load.pair()).broker.depth("q") == 20
    store.down = False
    load.tasks = [asyncio.create_task(load.work(pair))]
    await load.claimed_soon(pair)
    await load.check()


async def test_the_store_fails_in_the_moment_in_which_a_ticket_comes(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ticket goes back to its queue: nobody holds it while no claim is under way."""
    waits, came = asyncio.Event(), asyncio.Event()

    class Failing(MemoryEngine):
        async def claim(self, *args, wait=0.0, **options):  # type: ignore[no-untyped-def]
            if wait > 0:
                waits.set()
                await came.wait()
                raise ConnectionError("the store is gone")
            return await super().claim(*args, wait=wait, **options)

    pair = await load.pair(Failing(load.app, store=load.store))
    pull = pair.broker.pull

    async def pull_and_tell(*args, **options):  # type: ignore[no-untyped-def]
        if pulled := await pull(*args, **options):
            came.set()
        return pulled

    monkeypatch.setattr(pair.broker, "pull", pull_and_tell)
    claiming = asyncio.create_task(pair.claim("n", ["q"], 5, lease=LEASE, wait=20.0))
    other = await load.pair()
    await waits.wait()
    await load.submit(other)
    with pytest.raises(ConnectionError, match="store is gone"):
        await claiming
    [claim] = await other.claim("n", ["q"], 5, lease=LEASE, wait=10.0)
    assert claim.token.id == load.submitted[0]


async def test_a_store_that_is_slow_to_give_up_is_not_taken_for_one_without_work(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the worker would believe that it is in touch."""
    pulled_in_vain = asyncio.Event()

    class Slow(MemoryEngine):
        async def claim(self, *args, wait=0.0, **options):  # type: ignore[no-untyped-def]
            if wait > 0:
                await pulled_in_vain.wait()
                await asyncio.sleep(0.05)
                raise ConnectionError("the store is gone")
            return await super().claim(*args, wait=wait, **options)

    pair = await load.pair(Slow(load.app, store=load.store))
    pull = pair.broker.pull

    async def pull_and_tell(*args, **options):  # type: ignore[no-untyped-def]
        pulled = await pull(*args, **options)
        pulled_in_vain.set()
        return pulled

    monkeypatch.setattr(pair.broker, "pull", pull_and_tell)
    pair._idle = True
    with pytest.raises(ConnectionError, match="store is gone"):
        await pair.claim("n", ["q"], 5, lease=LEASE, wait=0.3)


async def test_the_broker_is_down_and_the_store_up(load: Load, proxy: Proxy) -> None:
    """Jobs are accepted without delay, and run from the store's line."""
    proxy.refuse()
    pair = await load.pair()
    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(10):
        await load.submit(pair, 3)
    assert loop.time() - start < 2
    load.tasks = [asyncio.create_task(load.work(pair)), asyncio.create_task(load.sweep(pair))]
    await load.all_run()
    await proxy.accept()
    await load.claimed_soon(pair)
    await load.check()


async def test_a_submit_whose_answer_was_lost_gets_tickets_the_second_time(load: Load) -> None:
    class Forgetful(MemoryEngine):
        lost = 1

        async def submit(self, jobs, *, enqueue=True):  # type: ignore[no-untyped-def]
            answer = await super().submit(jobs, enqueue=enqueue)
            if self.lost:
                self.lost -= 1
                raise ConnectionError("the answer was lost")
            return answer

    pair = await load.pair(Forgetful(load.app, store=load.store))
    jobs = [Job(uuid4(), "work", "q", b"{}") for _ in range(3)]
    with pytest.raises(ConnectionError):
        await pair.submit(jobs)
    assert await pair.submit(jobs) == [False] * 3
    assert await pair.submit(jobs) == [False] * 3
    assert {claim.token.id for claim in await pair.claim("n", ["q"], 5, lease=LEASE)} == {job.id for job in jobs}


async def test_trips(load: Load, proxy: Proxy) -> None:
    """A worker that has enough to do pays one round trip to the broker for each claim, and a submit one."""
    pair = await load.pair()
    await load.submit(pair)
    await load.run(await pair.claim("n", ["q"], 10, lease=LEASE), pair)
    before = proxy.trips
    for _ in range(20):
        await load.submit(pair, 10)
    assert proxy.trips - before <= 20 + 2
    before = proxy.trips
    for _ in range(20):
        claims = await pair.claim("n", ["q"], 10, lease=LEASE, wait=5)
        assert len(claims) == 10
        await load.run(claims, pair)
    assert proxy.trips - before <= 20 + 4


async def test_tickets_that_could_not_be_pushed_follow(load: Load, proxy: Proxy) -> None:
    """Within seconds of the broker's return, not when a sweep takes them for lost: that is late on purpose while tickets wait."""
    pair = await load.pair()
    await load.submit(pair, 3)
    proxy.refuse()
    proxy.reset()
    await load.submit(pair, 20)
    assert await pair.count(Query()) == {"PENDING": 23}
    await proxy.accept()
    async with asyncio.timeout(BACK):
        while await depth(pair) < 23:  # noqa: ASYNC110 - the broker's, which tells nobody
            await asyncio.sleep(0.05)
    load.tasks = [asyncio.create_task(load.work(pair))]
    await load.check()
