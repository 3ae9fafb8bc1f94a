"""No ticket is lost, and none is held, by what may happen around a pair's claims and submits."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from mognet.engines.memory import MemoryEngine
from mognet.engines.paired_claim import waiting_for
from mognet.engines.postgres.engine import PostgresEngine
from mognet.engines.rabbitmq.settings import queue_name
from mognet.exceptions import ImproperlyConfigured
from mognet.outcomes import released, revoke, succeeded
from mognet.records import Job, Ticket
from mognet.testing.conformance import Harness
from mognet.testing.conformance.bench import make_job
from proxy import Proxy
from servers import Server
from servers.postgres import empty_postgres
from servers.rabbitmq import rabbitmqctl

from .test_pairs_faults import BACK, LEASE, Load, depth, load, node, proxy, raw

__all__ = ["load", "node", "proxy"]


async def test_an_alarm_breaks_no_connection(load: Load, node: tuple[Server, str], proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that is short of memory is not bothered by new connections, nor its users by a line for each submit."""
    pair = await load.pair()
    await load.submit(pair, 3)

    def limit(bytes: str) -> None:
        rabbitmqctl(node[0], "set_vm_memory_high_watermark", bytes)

    await asyncio.to_thread(limit, "0.0000001")
    try:
        await load.submit(pair, 3)
        made = proxy.connections
        for _ in range(12):
            await load.submit(pair, 3)
        await asyncio.sleep(3.0)
        assert proxy.connections <= made + 1
        assert len(caplog.records) < 5
    finally:
        await asyncio.to_thread(limit, "0.4")
    load.tasks = [asyncio.create_task(load.work(pair))]
    await load.all_run(seconds=15)
    await load.check()


# --- claims


async def test_a_queue_that_changes_under_an_idle_worker_is_told_of(load: Load, node: tuple[Server, str], proxy: Proxy) -> None:
    """It is made with other settings while a worker waits at it: the claim says so, and does not ask on and on."""
    pair = await load.pair()
    assert await pair.claim("n", ["q"], 5, lease=LEASE, wait=0.1) == []
    claiming = asyncio.create_task(pair.claim("n", ["q"], 5, lease=LEASE, wait=10.0))
    await asyncio.sleep(0.1)
    wire, channel = await raw(node[1])
    name = queue_name(load.app, "q")
    await channel.queue_delete(name)  # type: ignore[attr-defined]
    await channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})  # type: ignore[attr-defined]
    await asyncio.sleep(1.0)
    before = proxy.trips
    with pytest.raises(ImproperlyConfigured, match="exists with other settings"):
        await claiming
    assert proxy.trips - before < 50
    await channel.queue_delete(name)  # type: ignore[attr-defined]
    await wire.close()


async def test_a_full_line_leaves_room_for_tickets(load: Load) -> None:
    pair, other = await load.pair(), await load.pair()
    line = [Job(uuid4(), "work", "q", b"{}", delay=0.001) for _ in range(400)]
    await other.submit(line)
    await asyncio.sleep(0.05)
    [urgent] = await load.submit(other)
    for _ in range(40):
        claims = await pair.claim("n", ["q"], 5, lease=LEASE, wait=1.0)
        if urgent in {claim.token.id for claim in claims}:
            break
        assert claims
        await asyncio.sleep(0.01)
    else:
        pytest.fail("its ticket is never looked at")


async def test_stale_tickets_do_not_keep_the_line_waiting(load: Load) -> None:
    pair, other = await load.pair(), await load.pair()
    await load.submit(other)
    assert len(await pair.claim("n", ["q"], 5, lease=LEASE, wait=1.0)) == 1
    for _ in range(20):
        await other.broker.push([Ticket(uuid4(), "q") for _ in range(500)])
    pair._turns.glance = 0.02
    claiming = asyncio.create_task(pair.claim("n", ["q"], 2, lease=LEASE, wait=5.0))
    await asyncio.sleep(0.1)
    assert not claiming.done()
    [job] = [Job(uuid4(), "work", "q", b"{}", delay=0.001)]
    await other.submit([job])
    [claim] = await claiming
    assert claim.token.id == job.id
    assert await depth(pair) > 100


async def test_a_job_that_is_being_changed_keeps_its_ticket(load: Load) -> None:
    """A store may pass over a job that somebody else holds locked for a moment, as PostgreSQL does."""

    class Busy(MemoryEngine):
        passed_over = 2

        async def claim(self, *args, ids=None, **options):  # type: ignore[no-untyped-def]
            if ids is not None and self.passed_over:
                self.passed_over -= 1
                return []
            return await super().claim(*args, ids=ids, **options)

    pair = await load.pair(Busy(load.app, store=load.store))
    [id] = await load.submit(pair)
    assert await pair.claim("n", ["q"], 5, lease=LEASE) == []
    [claim] = await pair.claim("n", ["q"], 5, lease=LEASE, wait=BACK)
    assert claim.token.id == id


async def test_a_claim_that_is_cancelled_while_it_lets_go_ends(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not begin to wait again; and its ticket goes back."""
    letting_go, gone = asyncio.Event(), asyncio.Event()

    class Slow(MemoryEngine):
        async def claim(self, *args, wait=0.0, **options):  # type: ignore[no-untyped-def]
            try:
                return await super().claim(*args, wait=wait, **options)
            except asyncio.CancelledError:
                letting_go.set()
                await gone.wait()
                raise

    pair, other = await load.pair(Slow(load.app, store=load.store)), await load.pair()
    assert await pair.claim("n", ["q"], 5, lease=LEASE, wait=0.1) == []
    claiming = asyncio.create_task(pair.claim("n", ["q"], 5, lease=LEASE, wait=20.0))
    await asyncio.sleep(0.1)
    [id] = await load.submit(other)
    await letting_go.wait()
    claiming.cancel()
    gone.set()
    await asyncio.wait([claiming], timeout=BACK)
    assert claiming.cancelled()
    [claim] = await other.claim("n", ["q"], 5, lease=LEASE, wait=BACK)
    assert claim.token.id == id


# --- submits


async def test_a_submit_that_is_cancelled_after_it_stored_its_jobs_gets_their_tickets(load: Load) -> None:
    stored = asyncio.Event()

    class Slow(MemoryEngine):
        async def submit(self, jobs, *, enqueue=True):  # type: ignore[no-untyped-def]
            answer = await super().submit(jobs, enqueue=enqueue)
            stored.set()
            await asyncio.sleep(20)
            return answer

    pair, other = await load.pair(Slow(load.app, store=load.store)), await load.pair()
    jobs = [Job(uuid4(), "work", "q", b"{}"), Job(uuid4(), "work", "q", b"{}", delay=1000.0)]
    submitting = asyncio.create_task(pair.submit(jobs))
    await stored.wait()
    submitting.cancel()
    await asyncio.wait([submitting])
    [claim] = await other.claim("n", ["q"], 5, lease=LEASE, wait=BACK)
    assert claim.token.id == jobs[0].id
    assert await depth(other) == 0


async def test_a_log_of_an_outage_does_not_grow_with_the_submits(load: Load, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    pair = await load.pair()
    proxy.refuse()
    for _ in range(100):
        await load.submit(pair)
    assert len(caplog.records) < 6
    assert "they are owed" in caplog.text


async def test_what_one_queue_is_owed_does_not_wait_for_another(load: Load, node: tuple[Server, str], proxy: Proxy) -> None:
    pair = await load.pair()
    wire, channel = await raw(node[1])
    await channel.queue_declare(queue_name(load.app, "kept"), exclusive=True)  # type: ignore[attr-defined]
    await pair.submit([Job(uuid4(), "work", "kept", b"{}"), *(Job(uuid4(), "work", "q", b"{}") for _ in range(700))])
    async with asyncio.timeout(2 * BACK):
        while await depth(pair) < 700:  # noqa: ASYNC110 - the broker's, which tells nobody
            await asyncio.sleep(0.05)
    assert len(pair._owed._tickets) == 1
    await wire.close()


# --- real stores


async def test_jobs_that_need_their_tickets(harness: Harness) -> None:
    """They are known by their records, on every store: as they were submitted, due at once, and claimed by nobody."""
    async with harness.open() as store:
        now, later = [make_job() for _ in range(3)], make_job(delay=1000.0)
        tickets = [Ticket(job.id, job.queue) for job in (*now, later, make_job())]
        await store.submit([*now, later], enqueue=False)
        assert await waiting_for(store, tickets) == {job.id for job in now}
        assert await waiting_for(store, [Ticket(now[0].id, "another queue")]) == set()
        claims = await store.claim("n", [now[0].queue], 2, lease=LEASE, ids=[job.id for job in now[:2]])
        assert await waiting_for(store, tickets) == {now[2].id}
        await store.settle([succeeded(claims[0].token, b"1"), released(claims[1].token)])
        await store.update(now[2].id, revoke())
        assert await waiting_for(store, tickets) == set()


async def test_a_row_that_is_locked_keeps_its_ticket(load: Load) -> None:
    """PostgreSQL passes over a job while a change of its metadata is under way: it is run when that has ended, not by a sweep."""
    url = empty_postgres()
    store = PostgresEngine.from_url(url, load.app)
    pair = await load.pair(store)
    jobs = [Job(uuid4(), "work", "q", b"{}") for _ in range(2)]
    await pair.submit(jobs)
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("SELECT 1 FROM mognet.job WHERE id = %s FOR UPDATE", [jobs[0].id])
        [free] = await pair.claim("n", ["q"], 5, lease=LEASE)
        assert free.token.id == jobs[1].id
        assert await pair.claim("n", ["q"], 5, lease=LEASE) == []
        waiting = asyncio.create_task(pair.claim("n", ["q"], 5, lease=LEASE, wait=4 * BACK))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await other.rollback()
        [claim] = await asyncio.wait_for(waiting, BACK)
    assert claim.token.id == jobs[0].id
