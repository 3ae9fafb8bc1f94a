"""What is particular to the Redis engine where it indexes metadata, takes notes of changes, and keeps bodies and logs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic_core import from_json
from redis import Redis

from mognet.codec import dumps
from mognet.engine import CHANGED
from mognet.engines.redis import keys
from mognet.engines.redis.engine import RedisEngine
from mognet.engines.redis.scripts import inline, script
from mognet.labels import label
from mognet.outcomes import Outcome, failed, merge_metadata, rerun, succeeded
from mognet.records import Query, Wanted
from mognet.states import ResultState
from mognet.testing.conformance.bench import make_job
from servers.redis import empty_redis

LUA = files("mognet.engines.redis") / "lua"
APP = "mognet:{app}:app"


@pytest.fixture
def url() -> str:
    return empty_redis()


@pytest.fixture
def server(url: str) -> Iterator[Redis]:
    with Redis.from_url(url, protocol=2) as client:
        yield client


def wants(path: str, *values: object) -> Query:
    return Query(metadata=(Wanted(path, frozenset(label(value) for value in values)),))


async def found(engine: RedisEngine, query: Query) -> int:
    return len([record async for record in engine.search(query)])


def text(answer: bytes | str) -> str:
    return str(answer, "utf-8") if isinstance(answer, bytes) else str(answer)


def looked_at(server: Redis) -> int:
    """How many rows the scripts have read so far."""
    return int(server.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))


# --- the index


async def test_a_page_costs_what_is_on_it(url: str, server: Redis) -> None:
    """However many jobs there are, and whichever of the conditions is the narrow one."""
    async with RedisEngine(url) as engine:
        await engine.declare(["tenant", "user"])
        for number in range(5):
            await engine.submit([make_job(metadata=dumps({"tenant": "a", "user": n})) for n in range(number * 1000, number * 1000 + 1000)])
        await found(engine, wants("user", 0))
        for query, records, rows in (
            (wants("user", 4321), 1, 10),
            (wants("tenant", "a")._replace(metadata=(*wants("tenant", "a").metadata, *wants("user", 1, 2, 3).metadata)), 3, 20),
            (wants("tenant", "a")._replace(newest_first=True, limit=50), 50, 60),
        ):
            before = looked_at(server)
            assert await found(engine, query) == records
            assert looked_at(server) - before <= rows


@pytest.mark.parametrize("newest_first", [True, False])
async def test_no_call_looks_through_very_much_metadata(url: str, server: Redis, newest_first: bool) -> None:
    """So that others get their turn; the result is the same."""
    async with RedisEngine(url) as engine:
        metadata = [dumps({"large": [{"n": 1}] * 2000, "user": f"{n % 3}"}) for n in range(300)]
        await engine.submit([make_job(metadata=each) for each in metadata])
        query = wants("user", "1")._replace(newest_first=newest_first)
        server.config_resetstat()
        assert await found(engine, query) == 100
        assert await engine.count(query, by="metadata:user") == {'"1"': 100}
        calls = int(server.info("commandstats")["cmdstat_evalsha"]["calls"])
        read = sum(map(len, metadata))
        assert read / 1_500_000 < calls / 2 < read / 500_000


@pytest.mark.parametrize("keys", [1, 8])
async def test_no_step_of_a_walk_looks_through_very_much_metadata(url: str, server: Redis, keys: int) -> None:
    """And looks through it once for all keys."""
    async with RedisEngine(url) as engine:
        last = {f"user{number}": number for number in range(keys)}
        metadata = dumps({"large": [{"n": 1}] * 2000, **last})
        await engine.submit([make_job(metadata=metadata) for _ in range(300)])
        await engine.declare(last.keys())
        server.config_resetstat()
        assert (await engine.reindex(limit=300)).left == 0
        steps = int(server.info("commandstats")["cmdstat_evalsha"]["calls"]) / 2
        assert 300 * len(metadata) / 1_500_000 < steps < 300 * len(metadata) / 500_000
        assert await engine.declare(last.keys()) == last.keys()
        assert [await found(engine, wants(key, value)) for key, value in last.items()] == [300] * keys


async def test_a_family_with_very_much_metadata(url: str, server: Redis) -> None:
    """Those that are found by their parents are looked at in as many calls."""
    async with RedisEngine(url) as engine:
        top = make_job()
        metadata = [dumps({"large": [{"n": 1}] * 2000, "user": f"{n % 3}"}) for n in range(240)]
        await engine.submit([top, *[make_job(parent=top.id, root=top.id, metadata=each) for each in metadata]])
        query = wants("user", "1")._replace(under=top.id)
        server.config_resetstat()
        assert await found(engine, query) == 80
        assert int(server.info("commandstats")["cmdstat_evalsha"]["calls"]) > sum(map(len, metadata)) / 1_500_000 + 3


async def test_what_is_remembered_of_metadata_follows_the_declaration(url: str) -> None:
    """Jobs with the same metadata as others before, and with more different metadata than are remembered."""
    async with RedisEngine(url) as engine:
        for declared in (["tenant"], ["tenant", "user"], ["user"]):
            await engine.submit([make_job(metadata=dumps({"tenant": "a", "user": n})) for n in (*range(1200), 0)])
            await engine.declare(declared, only=True)
            await engine.reindex(limit=10_000)
        await engine.submit([make_job(metadata=dumps({"tenant": "a", "user": n})) for n in (*range(1200), 0)])
        assert await engine.declare(["user"]) == {"user"}
        groups = await engine.count(Query(), by="metadata:user")
        assert [groups[str(n)] for n in (0, 1, 1199)] == [8, 4, 4]
        assert [await found(engine, wants("user", n)) for n in (0, 1, 1199)] == [8, 4, 4]
        assert await found(engine, wants("tenant", "a")._replace(limit=5000)) == 4 * 1201


async def test_more_values_than_one_look(url: str) -> None:
    """Counting by value goes on where it stopped, and a condition with very many values needs no index."""
    async with RedisEngine(url) as engine:
        await engine.declare(["user"])
        await engine.submit([make_job(metadata=dumps({"user": n // 2})) for n in range(1400)])
        await engine.submit([make_job()])
        counted = await engine.count(Query(), by="metadata:user")
        assert counted == {"": 1} | {str(n): 2 for n in range(700)}
        assert await found(engine, wants("user", *range(90))) == 180
        assert await found(engine, wants("user", *range(300))) == 600
        assert await engine.count(wants("user", *range(300)), by="state") == {"PENDING": 600}


async def test_a_walk_that_is_interrupted_goes_on(url: str, server: Redis) -> None:
    """Where it stands is kept at the server, and jobs that end meanwhile are not passed over."""
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        await engine.submit([make_job(metadata=dumps({"user": n})) for n in range(1500)])
        claims = await engine.claim("node", ["q"], 700, lease=100)
        assert await engine.declare(["user"]) == frozenset()
        first = await engine.reindex(limit=400)
        assert (first.done, first.left) == (400, 1100)
        await engine.settle([succeeded(claim.token, b"1") for claim in claims])
        assert await other.declare(["user"]) == frozenset()
        second = await other.reindex(limit=2000)
        assert (second.done, second.left) == (1100, 0)
        assert server.zcard("mognet:{app}:has:1") == 1500
        assert await engine.declare(["user"]) == {"user"}
        assert await engine.count(Query(), by="metadata:user") == {str(n): 1 for n in range(1500)}


async def test_what_changes_between_the_steps_of_a_walk(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is not written if the job says something else by then, or is another one."""
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        jobs = [make_job(metadata=dumps({"user": {"id": 1}})) for _ in range(4)]
        await engine.submit(jobs)
        await engine.declare(["user.id"])
        run = engine._run

        async def meddled(name: str, /, *arguments: bytes | int) -> object:
            if name == "index":
                await other.update(jobs[0].id, merge_metadata(dumps({"user": {"id": 2}})))
                await other.update(jobs[1].id, merge_metadata(dumps({"user": {}})))
                await other.delete([jobs[2].id, jobs[3].id])
                await other.submit([make_job(id=jobs[2].id)])
            return await run(name, *arguments)

        monkeypatch.setattr(engine._indexing, "_run", meddled)
        assert (await engine.reindex()).left == 0
        assert await engine.declare(["user.id"]) == {"user.id"}
        assert await found(engine, wants("user.id", 1)) == 0
        assert await found(engine, wants("user.id", 2)) == 1
        assert await engine.count(Query(), by="metadata:user.id") == {"2": 1, "": 2}


async def test_given_up_and_declared_again(url: str, server: Redis) -> None:
    """The old labels are no labels of the new declaration; nothing of the old index stays."""
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        await engine.declare(["user"])
        job = make_job(metadata=dumps({"user": 1}))
        await other.submit([job])
        await engine.declare([], only=True)
        assert server.exists("mognet:{app}:has:1") == 0
        await other.update(job.id, merge_metadata(dumps({"user": 2})))
        assert await engine.declare(["user"]) == frozenset()
        while (await other.reindex(limit=1)).left:
            pass
        assert await engine.declare(["user"]) == {"user"}
        assert await found(engine, wants("user", 1)) == 0
        assert await found(engine, wants("user", 2)) == 1
        assert set(server.hkeys(f"mognet:{{app}}:meta:{job.id.hex}")) == {b'"user"', b"2"}
        await engine.delete([job.id])
        assert server.keys("mognet:{app}:has:*") == []


async def test_a_server_that_was_emptied(url: str, server: Redis) -> None:
    """What an engine knew of its indexes is not believed any more."""
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        await engine.declare(["user", "tenant"])
        await engine.submit([make_job(metadata=dumps({"user": 1, "tenant": "a"}))])
        server.flushall()
        await other.declare(["tenant"])
        assert await engine.submit([make_job(metadata=dumps({"user": 1, "tenant": "a"}))]) == [True]
        assert await found(engine, wants("user", 1)) == 1
        assert await found(engine, wants("tenant", "a")) == 1
        assert await found(other, wants("tenant", 1)) == 0


async def test_a_server_that_was_emptied_is_told_again_what_to_index(url: str, server: Redis) -> None:
    """By whoever works with it first."""
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        await engine.declare(["user"])
        await engine.declare(["tenant"])
        await other.submit([make_job(metadata=dumps({"user": 1}))])
        server.flushall()
        await engine.submit([make_job(metadata=dumps({"user": 1}))])
        await other.submit([make_job(metadata=dumps({"user": 1}))])
        assert await other.declare(["tenant", "user"]) == {"tenant", "user"}
        assert server.zcard("mognet:{app}:has:1") + server.zcard("mognet:{app}:has:2") == 2
        assert await found(engine, wants("user", 1)) == 2
        await other.declare(["user"], only=True)
        await engine.submit([make_job(metadata=dumps({"user": 1, "tenant": 1}))])
        assert set(engine._indexing.paths.numbers) == {"user"}


# --- changes


async def test_few_among_many_changes_are_read_by_their_index(url: str, server: Redis) -> None:
    """Only these are looked at, up to now; unless they are too many, or more than fit into an answer."""
    async with RedisEngine(url) as engine:
        await engine.declare(["user"])
        start = (await engine.changes(None)).at
        top = make_job()
        await engine.submit([top, make_job(parent=top.id, root=top.id)])
        await engine.submit([make_job(metadata=dumps({"user": number % 1500})) for number in range(3000)])
        now = (await engine.changes(None)).at
        for query, number in (
            (wants("user", 3), 2),
            (wants("user", *range(0, 1500, 30)), 100),
            (Query(root=top.id), 2),
            (Query(parent=top.id), 1),
            (Query(id_prefix=top.id.hex), 1),
        ):
            server.config_resetstat()
            changes = await engine.changes(start, query)
            assert (len(changes.changed), changes.at, changes.more) == (number, now, False)
            assert looked_at(server) <= number + 2  # and what is known of the app
        for query, number in ((wants("user", *range(100)), 100), (Query(metadata=wants("user", 1).metadata, name="no"), 0)):
            told, more, at = 0, True, start
            while more:
                changes = await engine.changes(at, query, limit=50)
                told, more, at = told + len(changes.changed), changes.more, changes.at
            assert (told, at) == (2 * number, now)


async def test_what_was_read_before_a_server_was_emptied_is_no_place_in_what_came_since(url: str, server: Redis) -> None:
    """However much has changed there until the reader comes back; also if there was nothing to be read when it left."""
    async with RedisEngine(url) as engine, RedisEngine(url) as other:
        for before in (0, 3):
            place = (await engine.changes(None)).at
            for _ in range(before):
                await engine.submit([make_job()])
                place = (await engine.changes(place)).at
            server.flushdb()
            start = (await other.changes(None)).at
            jobs = [make_job() for _ in range(5)]
            await other.submit(jobs)
            assert {each.record.id for each in (await other.changes(start)).changed} == {job.id for job in jobs}
            assert (await engine.changes(place)).lost
            assert not (await engine.changes(start)).lost


async def test_a_replica_that_had_not_got_the_last_writes(url: str, server: Redis) -> None:
    """Whoever had read those is told of what changes on it."""
    async with RedisEngine(url) as engine:
        await engine.changes(None)
        await engine.submit([make_job()])
        saved = {key: server.dump(key) for key in server.keys()}
        await engine.submit([make_job() for _ in range(3)])
        place = (await engine.changes(None)).at
        server.flushdb()
        for key, value in saved.items():
            server.restore(key, 0, value)
        jobs = [make_job() for _ in range(5)]
        await engine.submit(jobs)
        changes = await engine.changes(place)
        assert {each.record.id for each in changes.changed} == {job.id for job in jobs}


async def test_no_notes_for_nobody(url: str, server: Redis) -> None:
    """Until somebody asks, and when nobody has asked for long; then what is left of them goes, and who comes back is told so."""
    async with RedisEngine(url) as engine:
        await engine.submit([make_job()])
        assert server.exists("mognet:{app}:changes") == 0
        at = (await engine.changes(None)).at
        await engine.submit([make_job()])
        assert server.zcard("mognet:{app}:changes") == 1
        assert len((await engine.changes(at)).changed) == 1
        server.hset(APP, "watched", 1)
        await engine.submit([make_job()])
        assert server.exists("mognet:{app}:changes") == 0
        assert server.hget(APP, "watched") is None
        await engine.submit([make_job()])
        again = await engine.changes(at)
        assert again.lost
        assert not (await engine.changes(again.at)).lost


async def test_reading_writes_seldom(url: str, server: Redis) -> None:
    """That somebody still reads is written once an hour."""
    async with RedisEngine(url) as engine:
        at = (await engine.changes(None)).at
        until = server.hget(APP, "watched")
        await engine.changes(at)
        assert server.hget(APP, "watched") == until
        server.hincrby(APP, "watched", -3_600_000_001)
        await engine.changes(at)
        assert int(server.hget(APP, "watched") or 0) >= int(until or 0)


async def test_one_ring_for_a_batch(url: str) -> None:
    """However many jobs change in one step."""
    async with RedisEngine(url) as engine:
        await engine.changes(None)
        async with engine.subscribe(CHANGED, "end") as signals:
            await engine.submit([make_job() for _ in range(300)])
            await engine.claim("node", ["q"], 300, lease=100)
            await engine.publish("end", b"")
            heard = []
            async with asyncio.timeout(20):
                async for signal in signals:
                    heard.append(signal.channel)
                    if signal.channel == "end":
                        break
        assert heard == [CHANGED, CHANGED, "end"]


# --- bodies and values


async def test_where_bodies_and_values_are(url: str, server: Redis) -> None:
    """One text for a job that succeeded, two for one that did not; a rerun leaves one."""
    async with RedisEngine(url) as engine:
        await engine.submit([make_job(), make_job()])
        good, bad = await engine.claim("node", ["q"], 2, lease=10)
        await engine.settle([succeeded(good.token, b"value"), failed(bad.token, b"error")])

        def texts(id: object) -> set[str]:
            return {key.decode().split(":")[2] for key in server.keys(f"mognet:{{app}}:*:{id}")} - {"job"}

        assert texts(good.token.id.hex) == {"body"}
        assert texts(bad.token.id.hex) == {"body", "value"}
        assert [await engine.value(each.token.id) for each in (good, bad)] == [b"value", b"error"]
        await engine.update(bad.token.id, rerun(b"again"), unless=())
        assert texts(bad.token.id.hex) == {"body"}
        assert await engine.body(bad.token.id) == b"again"


# --- metadata

DESCRIBED = {"user": 1, "tenant": 'a"}é', "deep": {"id": [1.5, None]}}
STAGES = ("never", "pending", "running", "ended")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("value", [None, b"", b"value", b"+value"])
async def test_metadata_stands_before_the_call_until_it_is_changed(url: str, server: Redis, stage: str, value: bytes | None) -> None:
    """Whenever that is, calls and values are what they were, and the indexes lead to the job."""
    async with RedisEngine(url) as engine:
        await engine.declare(["user", "deep.id"])
        job = make_job(metadata=dumps(DESCRIBED), body=b"+body")
        start, expected = "mognet:{app}:", dict(DESCRIBED)

        def keys_of_it() -> set[str]:
            return {text(key).removeprefix(start).split(":")[0] for key in server.keys(f"{start}*:{job.id.hex}")}

        async def reach(now: str) -> None:
            if stage == now:
                await engine.update(job.id, merge_metadata(dumps({"user": 2})), unless=())
                expected["user"] = 2
            assert ("meta" in keys_of_it()) == (expected["user"] == 2)
            [record] = await engine.get([job.id])
            assert record is not None
            assert from_json(record.metadata) == expected
            for path, wanted in (("user", expected["user"]), ("deep.id", [1.5, None]), ("tenant", 'a"}é')):
                assert await found(engine, wants(path, wanted)) == 1
            assert await found(engine, wants("user", 3 - int(str(expected["user"])))) == 0
            assert await engine.count(Query(), by="metadata:tenant") == {'"a\\"}é"': 1}

        await engine.submit([job])
        await reach("pending")
        [claim] = await engine.claim("node", ["q"], 1, lease=10)
        assert (claim.body, from_json(claim.record.metadata)) == (b"+body", expected)
        await reach("running")
        assert await engine.body(job.id) == b"+body"
        [ended] = await engine.settle([Outcome(claim.token, ResultState.SUCCESS, value)])
        assert ended is not None
        assert from_json(ended.metadata) == expected
        await reach("ended")
        assert await engine.value(job.id) == value
        await engine.delete([job.id])
        assert [key for key in server.keys(f"{start}*") if text(key).removeprefix(start) not in ("app", "paths", "seq")] == []


@pytest.mark.parametrize("changed", [False, True])
async def test_a_value_that_goes_leaves_the_metadata(url: str, server: Redis, changed: bool) -> None:
    async with RedisEngine(url) as engine:
        job = make_job(metadata=dumps(DESCRIBED))
        await engine.submit([job])
        [claim] = await engine.claim("node", ["q"], 1, lease=10)
        await engine.settle([succeeded(claim.token, b"value", value_ttl=0.0)])
        if changed:
            await engine.update(job.id, merge_metadata(dumps({"user": 1.5})), unless=())
        assert [(await engine.sweep()).expired for _ in range(2)] == [1, 0]
        [record] = await engine.get([job.id])
        assert record is not None
        assert from_json(record.metadata) == DESCRIBED | ({"user": 1.5} if changed else {})
        assert await engine.value(job.id) is None


async def test_a_rerun_keeps_the_metadata_before_its_call(url: str) -> None:
    async with RedisEngine(url) as engine:
        job = make_job(metadata=dumps(DESCRIBED))
        await engine.submit([job])
        for body in (b"again", b"once more"):
            [claim] = await engine.claim("node", ["q"], 1, lease=10)
            await engine.settle([failed(claim.token, b"error")])
            await engine.update(job.id, rerun(body), unless=())
            assert await engine.body(job.id) == body
        [claim] = await engine.claim("node", ["q"], 1, lease=10)
        assert (claim.body, from_json(claim.record.metadata)) == (b"once more", DESCRIBED)


@pytest.mark.parametrize("spaces", [False, True])
async def test_metadata_is_taken_apart_where_its_keys_are(url: str, spaces: bool) -> None:
    """Whatever brackets, quotes and backslashes stand in it, and however its text was written."""
    odd = ["", "\\", '"', '\\"', "{", "}", "[", "],", ":", "a,b", "é\n\x00", '{"a":1}', "p", "1"]
    values = [0, -1.5e300, True, None, "", [], {}, [[{"a": "]}"}], "["], {"x": {"y": ['"', {}]}, "}": "{"}, *odd]
    metadata = {
        key: values[(number + shift) % len(values)] for shift in (0, 7) for number, key in enumerate(f"{each}{shift}" for each in odd)
    }
    async with RedisEngine(url) as engine:
        job = make_job(metadata=json.dumps(metadata, separators=None if spaces else (",", ":")).encode())
        await engine.submit([job])
        for key, value in metadata.items():
            if "." not in key:
                assert await engine.count(Query(), by=f"metadata:{key}") == {label(value).decode(): 1}
        for change in ({"new": "}"}, {"{0": 1}):
            metadata |= change
            await engine.update(job.id, merge_metadata(dumps(change)))
            [record] = await engine.get([job.id])
            assert record is not None
            assert from_json(record.metadata) == metadata


@pytest.mark.parametrize("indexed", [[], ["user"]])
async def test_metadata_that_the_server_has_deleted(url: str, server: Redis, indexed: list[str]) -> None:
    """It may, if one allows it (``allow_eviction``): what is left is answered and goes its way."""
    async with RedisEngine(url) as engine:
        await engine.declare(indexed)
        job = make_job(metadata=dumps(DESCRIBED))
        await engine.submit([job])
        server.delete(f"mognet:{{app}}:body:{job.id.hex}")
        [record] = await engine.get([job.id])
        assert record is not None
        assert record.metadata == b"{}"
        [claim] = await engine.claim("node", ["q"], 1, lease=10)
        assert (claim.body, claim.record.metadata) == (b"", b"{}")
        await engine.settle([failed(claim.token, b"error")])
        assert await engine.value(job.id) == b"error"
        assert await engine.delete([job.id]) == 1


@pytest.mark.parametrize("again", [False, True])
async def test_what_comes_after_metadata_that_the_server_has_deleted(url: str, server: Redis, again: bool) -> None:
    """No part of a later value or call is taken for it."""
    value = b"x" * 1000
    async with RedisEngine(url) as engine:
        job = make_job(metadata=dumps(DESCRIBED))
        await engine.submit([job])
        [claim] = await engine.claim("node", ["q"], 1, lease=10)
        server.delete(f"mognet:{{app}}:body:{job.id.hex}")
        if again:
            await engine.settle([failed(claim.token, b"error")])
            await engine.update(job.id, rerun(value), unless=())
            assert await engine.body(job.id) == value
            [claim] = await engine.claim("node", ["q"], 1, lease=10)
            assert claim.body == value
        await engine.settle([succeeded(claim.token, value)])
        [record] = await engine.get([job.id])
        assert record is not None
        assert record.metadata == b"{}"
        assert await engine.value(job.id) == value


async def test_to_index_later_takes_nothing_apart(url: str, server: Redis) -> None:
    """Labels are added to the metadata where it stands, and taken away there when a path is given up."""
    async with RedisEngine(url) as engine:
        job = make_job(metadata=dumps(DESCRIBED), body=b"body")
        await engine.submit([job])
        for declared in (["user"], ["user", "tenant"], ["tenant", "deep.id"], [], ["user", "tenant", "deep.id"], []):
            await engine.declare(declared, only=True)
            server.config_resetstat()
            while (await engine.reindex(limit=1)).left:
                pass
            assert server.info("commandstats").get("cmdstat_set", {}).get("calls", 0) <= 2  # old labels go, and then all new ones come
            values = {"user": 1, "tenant": 'a"}é', "deep.id": [1.5, None]}
            assert [await found(engine, wants(path, values[path])) for path in declared] == [1] * len(declared)
            assert len(server.keys("mognet:{app}:has:*")) == len(declared)
            assert server.exists(f"mognet:{{app}}:meta:{job.id.hex}") == 0
        assert await engine.body(job.id) == b"body"
        assert text(server.hget(f"mognet:{{app}}:job:{job.id.hex}", "m") or b"").endswith(":0")  # no labels


# --- the scripts


def test_the_fields_are_the_same_everywhere() -> None:
    text = (LUA / "common.lua").read_text()
    listed = re.search(r"local FIELDS = \{(.*)\}", text)
    assert listed is not None
    assert re.findall("'(.)'", listed[1]) == list(keys.FIELDS)
    assert f"RECORD, PROGRESS = {keys.RECORD}, {keys.RECORD + 1}" in text
    used = {name for path in LUA.iterdir() for name in re.findall(r"P \.\. 'app', '(\w+)'", path.read_text())}
    assert used <= set(keys.APP_FIELDS)


def test_constants_are_put_in() -> None:
    source = "local ONE, TWO = 1, 'two'\nlocal P = KEYS[1]\n-- ONE isn't\ncall('ONE', P, ONE, TWO, ONES)\n"
    assert inline(source) == "\nlocal P = KEYS[1]\n-- ONE isn't\ncall('ONE', P, 1, 'two', ONES)\n"
    assert b"r[STATE]" not in script("submit").text


def test_rights_that_the_documentation_gives() -> None:
    """Each command that a script calls."""
    line = next(
        line
        for line in (Path(__file__).parents[2] / "docs/engines/redis.md").read_text().splitlines()
        if line.startswith("ACL SETUSER mognet")
    )
    allowed = {word[1:].split("|")[0] for word in line.split() if word.startswith("+")}
    called = {name.lower() for path in LUA.iterdir() for name in re.findall(r"'([A-Z]{3,})'", path.read_text())}
    assert called - {"nx", "withscores", "limit", "numsub"} <= allowed
