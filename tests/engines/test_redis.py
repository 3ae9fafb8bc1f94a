"""What is particular to the Redis engine: its clock, bell, URLs, and what servers refuse."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis

from mognet.engines import engine_factory
from mognet.engines.redis import keys
from mognet.engines.redis.address import parse
from mognet.engines.redis.engine import RedisEngine
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.outcomes import merge_metadata, retry, succeeded
from mognet.records import Query, Swept, Wanted
from mognet.testing.conformance import EngineConformance, Harness
from mognet.testing.conformance.bench import make_job
from servers import Server, free_port
from servers.redis import empty_redis, redis_server

from .conftest import RedisHarness


class RealClock(RedisHarness):
    """The server's own clock."""

    fake_clock = False
    unit = 0.25
    engine = RedisEngine

    async def advance(self, seconds: float) -> None:
        await Harness.advance(self, seconds)


class TestOnItsOwnClock(EngineConformance):
    """Every law, while time goes as it goes."""

    @pytest.fixture
    def harness(self) -> Harness:
        return RealClock()


@pytest.fixture
def url() -> str:
    return empty_redis()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for servers, which end with the test."""
    yield tmp_path
    for server in started:
        server.kill()
    started.clear()


started: list[Server] = []


def start(folder: Path, *options: str) -> str:
    server, url = redis_server(folder, *options, durable=False)
    started.append(server)
    server.start()
    return url


def ask(url: str, *command: str) -> Any:
    with Redis.from_url(url, protocol=2) as client:
        return client.execute_command(*command)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


# --- the bell


def claims_so_far(url: str) -> int:
    """How many scripts have run."""
    stats = ask(url, "INFO", "commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_a_submit_wakes_one_at_once(url: str) -> None:
    engines = [await RedisEngine(url).__aenter__() for _ in range(10)]
    try:
        waiting = {asyncio.create_task(engine.claim("node", ["q"], 1, lease=10, wait=60)) for engine in engines}
        await asyncio.sleep(0.3)
        took = []
        while waiting:
            before = claims_so_far(url)
            begin = time.perf_counter()
            await engines[0].submit([make_job()])
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            took.append(time.perf_counter() - begin)
            assert len(done) == 1
            assert claims_so_far(url) - before <= 4  # the submit, the claim, and perhaps a look that was due
        assert sorted(took)[len(took) // 2] < 0.02
    finally:
        for engine in engines:
            await engine.__aexit__()


async def test_idle_waiters_look_seldom(url: str) -> None:
    async with RedisEngine(url) as engine:
        before = claims_so_far(url)
        assert await engine.claim("node", ["q"], 1, lease=10, wait=1.5) == []
        assert claims_so_far(url) - before <= 3


async def test_waiters_learn_of_an_earlier_due_time(url: str) -> None:
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        await engine.submit([make_job(delay=100)])
        waiting = [asyncio.create_task(e.claim("node", ["q"], 1, lease=10, wait=60)) for e in (engine, other)]
        await asyncio.sleep(0.1)
        first, second = make_job(delay=0.3), make_job(delay=0.4)
        begin = time.monotonic()
        await engine.submit([first])
        await other.submit([second])
        got = [claims[0] for claims in await asyncio.gather(*waiting)]
        assert {claim.token.id for claim in got} == {first.id, second.id}
        assert time.monotonic() - begin < 1.5


async def test_a_ring_for_one_who_left_goes_to_the_next(url: str) -> None:
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        for _ in range(20):
            gone = [asyncio.create_task(engine.claim("gone", ["q"], 1, lease=10, wait=60)) for _ in range(3)]
            await asyncio.sleep(0.005)
            stays = asyncio.create_task(other.claim("stays", ["q"], 1, lease=10, wait=60))
            await asyncio.sleep(0.005)
            for task in gone:
                task.cancel()
            begin = time.monotonic()
            await engine.submit([make_job()])
            assert len(await stays) == 1
            assert time.monotonic() - begin < 1.5
            await asyncio.wait(gone)


async def test_a_look_at_an_emptied_line_waits_for_answers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep those who wait for the end of a job; but while there may be more in line, ends and claims go together."""
    async with RedisEngine(url) as engine:
        session = engine._open
        ask_server, unanswered = session.run_firmly, []

        async def note(*request: Any) -> Any:
            assert session._commands is not None
            unanswered.append(session._commands.unanswered)
            return await ask_server(*request)

        monkeypatch.setattr(session, "run_firmly", note)
        for limit, expected in ((1, 1), (2, 0)):
            await engine.submit([make_job()])
            [claim] = await engine.claim("node", ["q"], limit, lease=10)
            unanswered.clear()
            settle = asyncio.create_task(engine.settle([succeeded(claim.token, b"1")]))
            await asyncio.sleep(0)
            assert await engine.claim("node", ["q"], 1, lease=10, wait=0.05) == []
            assert await settle != [None]
            assert unanswered[0] == expected


async def test_nobody_is_kept_waiting_by_the_dead(url: str) -> None:
    """A process that died while it waited takes no ring with it."""
    code = f"import asyncio; from mognet.engines.redis.engine import RedisEngine as R\nasync def f():\n async with R({url!r}) as e: "
    code += "await e.claim('n', ['q'], 1, lease=1, wait=60)\nasyncio.run(f())"
    process = subprocess.Popen([sys.executable, "-c", code])  # noqa: ASYNC220
    try:
        await until(lambda: ask(url, "KEYS", "mognet:{app}:wait:*"))
    finally:
        process.kill()
        process.wait()
    async with RedisEngine(url) as engine:
        waiting = asyncio.create_task(engine.claim("node", ["q"], 1, lease=10, wait=60))
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        await engine.submit([make_job()])
        await waiting
        assert time.monotonic() - begin < 1.5


# --- closing


@pytest.mark.parametrize("known", [True, False])
async def test_what_was_sent_is_done_when_an_engine_closes(url: str, known: bool) -> None:
    """Also what is too large to be sent at once, what nobody waits for any more, and scripts that the server has to be told first."""
    jobs = [make_job(body=b"x" * 1_000_000) for _ in range(20)]
    async with RedisEngine(url) as engine:
        await engine.submit([make_job()])
        if not known:
            ask(url, "SCRIPT", "FLUSH")
        submits = [asyncio.create_task(engine.submit([job])) for job in jobs]
        await asyncio.sleep(0)
        if known:
            submits[-1].cancel()
    assert [submit.cancelled() or submit.result() for submit in submits] == [[True]] * 19 + [True if known else [True]]
    async with RedisEngine(url) as engine:
        assert [record is not None for record in await engine.get([job.id for job in jobs])] == [True] * 20


# --- the line


async def test_a_promotion_of_thousands(url: str) -> None:
    """Many jobs that become due at once are taken in the order of their priorities."""
    async with RedisEngine(url) as engine:
        jobs = [make_job(priority=number % 11, delay=0.3) for number in range(900)]
        await engine.submit(jobs)
        await asyncio.sleep(0.5)
        claims = await engine.claim("node", ["q"], 900, lease=10)
        assert [claim.record.priority for claim in claims] == sorted((job.priority for job in jobs), reverse=True)


async def test_entries_that_lead_nowhere_are_passed_over(url: str) -> None:
    """A store from which somebody deleted keys still works."""
    async with RedisEngine(url) as engine:
        lost, job = make_job(), make_job()
        await engine.submit([lost, job])
        ask(url, "DEL", f"mognet:{{app}}:job:{lost.id.hex}")
        claims = await engine.claim("node", ["q"], 2, lease=10)
        assert [claim.token.id for claim in claims] == [job.id]
        assert [record.id async for record in engine.search(Query())] == [job.id]
        assert await engine.sweep() == Swept()


async def test_keys_are_of_one_slot() -> None:
    for app, tag in (("app", b"app"), ("a}b{c%", b"a%7db%7bc%25"), ("ß", "ß".encode())):
        assert keys.prefix(app) == b"mognet:{" + tag + b"}:"


# --- URLs


@pytest.mark.parametrize(
    ("url", "hosts", "db"),
    [
        ("redis://", (("localhost", 6379),), 0),
        ("valkey://h:1/2", (("h", 1),), 2),
        ("rediss://u:p@h", (("h", 6379),), 0),
        ("redis://[::1]:7/?db=3", (("::1", 7),), 3),
        ("redis+sentinel://a:1,b/service/4", (("a", 1), ("b", 26379)), 4),
        ("redis+cluster://a,b:2", (("a", 6379), ("b", 2)), 0),
    ],
)
def test_urls(url: str, hosts: tuple[tuple[str, int], ...], db: int) -> None:
    address = parse(url)
    assert (address.hosts, address.settings["db"]) == (hosts, db)
    assert engine_factory(url, "app")() is not None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://u:geheim@h?socket_timeout=1", "socket_timeout"),
        ("redis://u:geheim@h?timeout=0", "timeout"),
        ("redis://u:geheim@h?allow_eviction=perhaps", "allow_eviction"),
        ("rediss://u:geheim@h?ssl_cert_reqs=none", "insecure_skip_verify=1"),
        ("redis://u:geheim@h/one", "/0"),
        ("redis://u:geheim@h/0/1", "/0"),
        ("redis://u:geheim@h/99999999999", "/0"),
        ("redis://u:geheim@h?db=-1", "db"),
        ("redis://u:geheim@h:port", "redis://user"),
        ("redis://u:geheim@a,b", "redis+sentinel://"),
        ("redis+sentinel://u:geheim@a", "service"),
        ("redis+cluster://u:geheim@a/1", "database 0"),
        ("redis+else://u:geheim@a/1", "redis+else"),
        ("unix://", "socket"),
    ],
)
def test_urls_that_do_not_fit(url: str, says: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        engine_factory(url, "app")
    assert says in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_redis_py_is_loaded_for_this_engine_only() -> None:
    code = "import sys, mognet; from mognet.engines import engine_factory as f; f('memory://x', 'a'); f('sqlite:///x', 'a')"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'redis' not in sys.modules"], check=True)


async def use(url: str) -> None:
    async with RedisEngine(url) as engine:
        changes = await engine.changes(None)
        await engine.submit([make_job(metadata=b'{"a":1}')])
        await engine.declare(["a"])
        await engine.reindex()
        [claim] = await engine.claim("node", ["q"], 1, lease=10, wait=1)
        await engine.update(claim.token.id, merge_metadata(b'{"a":2}'))
        for newest_first in (False, True):
            query = Query(metadata=(Wanted("a", frozenset({b"2"})),), newest_first=newest_first)
            assert [record.id async for record in engine.search(query)] == [claim.token.id]
        assert await engine.count(Query(), by="metadata:a") == {"2": 1}
        assert [changed.record.id for changed in (await engine.changes(changes.at)).changed] == [claim.token.id]
        await engine.log({claim.token: [b"line"]}, keep=1)
        assert await engine.logs(claim.token.id) == [(1, b"line")]
        await engine.settle([retry(claim.token, 0)])
        [claim] = await engine.claim("node", ["q"], 1, lease=10, wait=1)
        await engine.save(claim.token, {"note": b"1"})
        async with engine.subscribe("c") as signals:
            await engine.publish("c", b"1")
            await anext(signals)
        await engine.settle([succeeded(claim.token, b"1")])
        assert await engine.count(Query()) == {"SUCCESS": 1}
        await engine.sweep()
        await engine.delete([claim.token.id])
        await engine.declare([], only=True)
        await engine.identity()


# --- what servers refuse


async def test_eviction(folder: Path) -> None:
    for policy in ("allkeys-lru", "volatile-ttl"):
        (folder / policy).mkdir()
        url = start(folder / policy, "--maxmemory-policy", policy)
        with pytest.raises(ImproperlyConfigured, match=rf"{policy}.*CONFIG SET maxmemory-policy noeviction.*allow_eviction=1"):
            await use(url)
        await use(f"{url}?allow_eviction=1")


async def test_a_wrong_password(folder: Path) -> None:
    url = start(folder, "--requirepass", "geheim").replace("://", "://default:{}@")
    for wrong in ("://default:{}@", "falsch"):
        with pytest.raises(ImproperlyConfigured) as caught:
            await use(url.replace(wrong, "://") if "{}" in wrong else url.format(wrong))
        assert "password" in str(caught.value)
        assert "falsch" not in str(caught.value)
    await use(url.format("geheim"))


async def test_a_database_that_is_not_there(folder: Path) -> None:
    """It is no outage: to come again would not help."""
    url = start(folder, "--databases", "3").removesuffix("/0")
    await use(f"{url}/2")
    for number in ("/3", "/99999", "?db=99999"):
        with pytest.raises(ImproperlyConfigured, match=r"no database of this number.*`databases`"):
            await use(f"{url}{number}")


async def test_a_user_with_few_rights(folder: Path) -> None:
    """The rules that the documentation gives are enough, and less is refused with the remedy."""
    url = start(folder)
    rules = (Path(__file__).parents[2] / "docs/engines/redis.md").read_text()
    line = next(line for line in rules.splitlines() if line.startswith("ACL SETUSER mognet"))
    ask(url, *line.replace("PASSWORD", "geheim").split())
    await use(url.replace("://", "://mognet:geheim@"))
    ask(url, "ACL", "SETUSER", "mognet", "-publish")
    with pytest.raises(ImproperlyConfigured, match="ACL SETUSER"):
        await use(url.replace("://", "://mognet:geheim@"))


async def test_a_replica(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
    master = start(folder / "a")
    replica = start(folder / "b", "--replicaof", "127.0.0.1", str(urlsplit(master).port))
    await until(lambda: ask(replica, "INFO", "replication")["master_link_status"] == "up")
    with pytest.raises(ConnectionError, match="replica"):
        await use(replica)


async def test_no_memory_left(folder: Path) -> None:
    url = start(folder, "--maxmemory", "3mb")
    async with RedisEngine(url) as engine:
        [claim] = [await engine.submit([make_job()]), *await engine.claim("node", ["q"], 1, lease=10)][1:]
        with pytest.raises(ConnectionError, match="maxmemory"):
            for _ in range(200):
                await engine.submit([make_job(body=b"x" * 50_000)])
        ids = [record.id async for record in engine.search(Query(states=frozenset({claim.record.state.PENDING})))]
        assert await engine.delete(ids) == len(ids)
        assert await engine.settle([succeeded(claim.token, b"1")]) != [None]


async def test_nobody_there() -> None:
    with pytest.raises(ConnectionError, match="cannot be reached"):
        await use(f"redis://u:geheim@127.0.0.1:{free_port()}")
