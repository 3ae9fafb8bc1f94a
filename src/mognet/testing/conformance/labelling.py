"""Finding records by their metadata: the same ones, with an index and without."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from mognet.codec import dumps
from mognet.labels import label
from mognet.outcomes import merge_metadata, retry, revoke, succeeded
from mognet.records import Query, Wanted
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, Harness, make_job

INDEXED = ("tenant", "user.id")


def wants(path: str, *values: Any) -> Query:
    """The records that have one of these values there."""
    return Query(metadata=(Wanted(path, frozenset(label(value) for value in values)),))


async def found(bench: Bench, query: Query) -> set[UUID]:
    """The ids that a search finds; the count has to agree."""
    ids = [record.id for record in await bench.search(query)]
    assert len(set(ids)) == len(ids)
    assert sum((await bench.engine.count(query)).values()) == len(ids)
    return set(ids)


async def add(bench: Bench, metadata: dict[str, Any], **fields: Any) -> UUID:
    """A job with this metadata."""
    return (await bench.add(metadata=dumps(metadata), **fields))[0].id


class Labels(Group):
    """What holds with an index and without."""

    @pytest_asyncio.fixture(params=[(), INDEXED], ids=["looked through", "indexed"])
    async def labelled(self, request: pytest.FixtureRequest, harness: Harness) -> AsyncIterator[Bench]:
        """A bench on an engine that was told which paths are to be indexed, before any job came."""
        async with Bench(harness) as bench:
            if request.param:
                assert await bench.engine.declare(request.param) == set(request.param)
            yield bench
            await bench.check_leftovers()

    async def test_json_equality(self, labelled: Bench) -> None:
        """Values match as JSON: by kind and content, not by the way they are written."""
        values: list[Any] = [
            "acme",
            "ACME",
            "1",
            1,
            1.5,
            True,
            False,
            None,
            "null",
            "",
            [1, 2],
            [2, 1],
            {"a": 1, "b": [2]},
            {},
            10**20,
            "ä€𝄞",
        ]
        ids = [await add(labelled, {"tenant": value, "other": number}) for number, value in enumerate(values)]
        await add(labelled, {"other": "acme"})
        await labelled.add()
        for id, value in zip(ids, values, strict=True):
            assert await found(labelled, wants("tenant", value)) == {id}, value
        [float_] = await labelled.add(metadata=b'{"tenant": 1.0}')
        assert await found(labelled, wants("tenant", 1.0)) == {ids[3], float_.id}
        [turned] = await labelled.add(metadata=b'{"tenant" : {"b":[2.0], "a":1}}')
        assert await found(labelled, wants("tenant", {"a": 1, "b": [2]})) == {ids[12], turned.id}
        assert await found(labelled, wants("tenant", "acm")) == set()
        assert await found(labelled, wants("missing", None)) == set()

    async def test_any_of_several_and_all_conditions(self, labelled: Bench) -> None:
        """A condition holds for any of its values; all conditions have to hold."""
        a, b, c = [await add(labelled, {"tenant": tenant, "kind": "x"}) for tenant in "abc"]
        assert await found(labelled, wants("tenant", "a", "c")) == {a, c}
        assert await found(labelled, wants("tenant")) == set()
        both = Query(metadata=(*wants("tenant", "a", "b").metadata, *wants("kind", "x").metadata))
        assert await found(labelled, both) == {a, b}
        assert await found(labelled, both._replace(queue="none")) == set()
        assert await found(labelled, Query(metadata=(*wants("tenant", "a").metadata, *wants("kind", "y").metadata))) == set()
        assert await found(labelled, both._replace(metadata=both.metadata * 2)) == {a, b}
        assert c not in await found(labelled, both)

    async def test_within_a_tree(self, labelled: Bench) -> None:
        """Both conditions hold, and the root is told once, whichever of the two leads to fewer jobs."""
        top = make_job(metadata=dumps({"tenant": "a"}))
        below = [make_job(parent=top.id, root=top.id, metadata=dumps({"tenant": tenant})) for tenant in "abbbb"]
        await labelled.submit(top, *below)
        await add(labelled, {"tenant": "a"})
        assert await found(labelled, wants("tenant", "a")._replace(root=top.id)) == {top.id, below[0].id}
        assert await found(labelled, wants("tenant", "b")._replace(root=top.id)) == {job.id for job in below[1:]}
        assert await found(labelled, wants("tenant", "a")._replace(parent=top.id)) == {below[0].id}

    async def test_paths_reach_into_objects(self, labelled: Bench) -> None:
        """Dots stand between the keys; what is no object has nothing below it."""
        deep = await add(labelled, {"user": {"id": "dkl", "roles": ["a"]}})
        await add(labelled, {"user": "dkl"})
        await add(labelled, {"user": [{"id": "dkl"}]})
        await add(labelled, {"id": "dkl"})
        assert await found(labelled, wants("user.id", "dkl")) == {deep}
        assert await found(labelled, wants("user.roles", ["a"])) == {deep}
        assert await found(labelled, wants("user.id.x", "dkl")) == set()

    async def test_long_and_strange_values(self, labelled: Bench) -> None:
        """Values of any length and with any characters, keys too."""
        long = "x" * 5000
        a, b = await add(labelled, {"tenant": long + "a"}), await add(labelled, {"tenant": long + "b"})
        assert await found(labelled, wants("tenant", long + "a")) == {a}
        assert await found(labelled, wants("tenant", long + "b", "x")) == {b}
        strange = "'; DROP TABLE job; -- \" \\ \n %s {} * ?1"
        c = await add(labelled, {strange: strange, "tenant": strange})
        assert await found(labelled, wants(strange, strange)) == {c}
        assert await found(labelled, wants("tenant", strange)) == {c}
        assert await labelled.engine.count(Query(id_prefix=c.hex), by=f"metadata:{strange}") == {label(strange).decode(): 1}

    async def test_in_every_state(self, labelled: Bench) -> None:
        """Jobs that wait, run, have ended, or were born revoked are found alike, until they are gone."""
        metadata = dumps({"tenant": "acme"})
        waiting = await add(labelled, {"tenant": "acme"}, delay=LONG)
        running = (await labelled.start(metadata=metadata)).token.id
        again = await labelled.settle(retry((await labelled.start(metadata=metadata)).token, LONG))
        ended = await labelled.ended(metadata=metadata)
        top = await labelled.ended(ResultState.REVOKED)
        born = make_job(parent=top.id, metadata=metadata)
        assert await labelled.engine.submit([born]) == [False]
        revoked = await add(labelled, {"tenant": "acme"})
        await labelled.engine.update(revoked, revoke())
        query = wants("tenant", "acme")
        assert await found(labelled, query) == {waiting, running, again.id, ended.id, born.id, revoked}
        assert await found(labelled, query._replace(states=frozenset({ResultState.RUNNING}))) == {running}
        assert await found(labelled, query._replace(states=frozenset({ResultState.SUCCESS, ResultState.PENDING}))) == {
            waiting,
            again.id,
            ended.id,
        }
        await labelled.engine.delete([running, ended.id])
        assert await found(labelled, query) == {waiting, again.id, born.id, revoked}

    async def test_expired_is_not_found(self, labelled: Bench) -> None:
        """What has expired is not found, not even before a sweep."""
        claim = await labelled.start(metadata=dumps({"tenant": "acme"}))
        await labelled.settle(succeeded(claim.token, b"1", ttl=labelled.unit))
        await labelled.advance(1)
        assert await found(labelled, wants("tenant", "acme")) == set()
        assert await labelled.engine.count(Query(), by="metadata:tenant") == {}

    async def test_changed_metadata(self, labelled: Bench) -> None:
        """A job is found by what its metadata says now, changed by whomever, in whatever state."""
        claim = await labelled.start(metadata=dumps({"tenant": "a", "user": {"id": 1}}))
        id = claim.token.id
        await labelled.engine.update(id, merge_metadata(dumps({"tenant": "b"}), claim.token))
        assert await found(labelled, wants("tenant", "a")) == set()
        assert await found(labelled, wants("tenant", "b")) == {id}
        assert await found(labelled, wants("user.id", 1)) == {id}
        await labelled.settle(succeeded(claim.token, b"1"))
        await labelled.engine.update(id, merge_metadata(dumps({"user": {"name": "x"}})), unless=())
        assert await found(labelled, wants("user.id", 1)) == set()
        assert await found(labelled, wants("user.name", "x")) == {id}
        await labelled.engine.update(id, merge_metadata(dumps({"tenant": "b"})), unless=())
        assert await found(labelled, wants("tenant", "b")) == {id}
        await labelled.engine.delete([id])
        await labelled.submit(make_job(id=id))
        assert await found(labelled, wants("tenant", "b")) == set()

    async def test_writers_side_by_side(self, labelled: Bench) -> None:
        """Two who set one key, and others who set others: what is found is what is stored."""
        [job], other = await labelled.add(), await labelled.another()
        changes = [merge_metadata(dumps({"tenant": number % 3, f"k{number}": number})) for number in range(24)]
        engines = [labelled.engine, other] * 12
        await asyncio.gather(*(engine.update(job.id, change) for engine, change in zip(engines, changes, strict=True)))
        counted = await labelled.engine.count(Query(), by="metadata:tenant")
        [(tenant, number)] = counted.items()
        assert number == 1
        assert await found(labelled, wants("tenant", int(tenant))) == {job.id}

    async def test_counts_by_value(self, labelled: Bench) -> None:
        """By the value at a path; those without one have a group of their own."""
        for tenant, number in {"a": 3, "b": 2}.items():
            await labelled.add(number, metadata=dumps({"tenant": tenant}))
        await labelled.add(2, queue="other", metadata=dumps({"tenant": "a", "user": {"id": 7}}))
        await labelled.add(1)
        await labelled.take(1)
        assert await labelled.engine.count(Query(), by="metadata:tenant") == {'"a"': 5, '"b"': 2, "": 1}
        assert await labelled.engine.count(Query(queue="other"), by="metadata:tenant") == {'"a"': 2}
        assert await labelled.engine.count(wants("tenant", "a"), by="state") == {"PENDING": 4, "RUNNING": 1}
        assert await labelled.engine.count(wants("tenant", "a"), by="queue") == {"q": 3, "other": 2}
        assert await labelled.engine.count(wants("tenant", "a"), by="metadata:user.id") == {"7": 2, "": 3}

    async def test_pages(self, labelled: Bench) -> None:
        """By creation in both orders, from page to page, also when the record at the end of a page is gone."""
        jobs = [make_job(metadata=dumps({"tenant": "ab"[n % 2]})) for n in range(60)]
        await labelled.submit(*jobs)
        await labelled.advance(1 / 64)
        jobs += await labelled.submit(*(make_job(metadata=dumps({"tenant": "ab"[n % 2]})) for n in range(20)))
        for newest_first in (False, True):
            for query, ids in (
                (wants("tenant", "a"), [job.id for job in jobs[::2]]),
                (wants("tenant", "a", "b"), [job.id for job in jobs]),
                (Query(), [job.id for job in jobs]),
            ):
                page = query._replace(limit=7, newest_first=newest_first)
                found = []
                while records := await labelled.search(page):
                    found += [record.id for record in records]
                    page = page._replace(after=records[-1].stand)
                assert found == (ids[::-1] if newest_first else ids)
        query = wants("tenant", "b")._replace(limit=5)
        first = await labelled.search(query)
        await labelled.engine.delete([first[-1].id])
        rest = await labelled.search(query._replace(after=first[-1].stand, limit=None))
        assert [record.id for record in first + rest] == [job.id for job in jobs[1::2]]

    async def test_born_again_in_one_id(self, labelled: Bench) -> None:
        """An id that expired and is submitted again has the new job's metadata only."""
        claim = await labelled.start(metadata=dumps({"tenant": "a"}))
        await labelled.settle(succeeded(claim.token, b"1", ttl=labelled.unit))
        await labelled.advance(1)
        await labelled.submit(make_job(id=claim.token.id, metadata=dumps({"tenant": "b"})))
        assert await found(labelled, wants("tenant", "a")) == set()
        assert await found(labelled, wants("tenant", "b")) == {claim.token.id}

    async def test_other_apps_jobs(self, labelled: Bench) -> None:
        """Another app's jobs are not found."""
        other = await labelled.another("other")
        await other.submit([make_job(metadata=dumps({"tenant": "acme"}))])
        id = await add(labelled, {"tenant": "acme"})
        assert await found(labelled, wants("tenant", "acme")) == {id}
        assert await labelled.engine.count(Query(), by="metadata:tenant") == {'"acme"': 1}


async def reindexed(bench: Bench, *, limit: int = 1000) -> None:
    """The indexes are brought up to date, a step at a time."""
    for _ in range(1000):
        if (await bench.engine.reindex(limit=limit)).left == 0:
            return
    pytest.fail("the index is never whole")


class Indexing(Group):
    """How an index comes, and goes."""

    @pytest_asyncio.fixture
    async def indexed(self, harness: Harness) -> AsyncIterator[Bench]:
        """A bench on an engine that was told which paths are to be indexed, before any job came."""
        async with Bench(harness) as bench:
            assert await bench.engine.declare(INDEXED) == set(INDEXED)
            yield bench
            await bench.check_leftovers()

    async def test_declared_later(self, indexed: Bench) -> None:
        """Jobs that were there before are found at once, and by the index once it is whole; new ones meanwhile too."""
        old = [job.id for job in await indexed.add(25, metadata=dumps({"later": "a"}))]
        query = wants("later", "a")
        await indexed.engine.declare(["later"])
        assert await found(indexed, query) == set(old)
        await indexed.engine.reindex(limit=10)
        new = [job.id for job in await indexed.add(5, metadata=dumps({"later": "a"}))]
        await indexed.engine.update(old[0], merge_metadata(dumps({"later": "b"})))
        await indexed.engine.delete([old[1]])
        assert await found(indexed, query) == {*old[2:], *new}
        await reindexed(indexed, limit=10)
        assert await indexed.engine.declare(["later", *INDEXED]) == {"later", *INDEXED}
        assert await found(indexed, query) == {*old[2:], *new}
        assert await found(indexed, wants("later", "b")) == {old[0]}

    async def test_whole_as_soon_as_nothing_is_left(self, indexed: Bench) -> None:
        """Also if each call looked at as many jobs as it might, and the last one at the very last."""
        for count in (20, 1):
            await indexed.add(count, metadata=dumps({"exact": "a"}))
        for limit, key in ((1, "exact"), (7, "other"), (21, "third")):
            await indexed.engine.declare([key])
            left = 1
            while left:
                left = (await indexed.engine.reindex(limit=limit)).left
            assert await indexed.engine.declare([key]) == {key}

    async def test_given_up(self, indexed: Bench) -> None:
        """A key that is declared no more is found without its index, and leaves nothing of it."""
        id = await add(indexed, {"tenant": "a", "user": {"id": 1}})
        assert await indexed.engine.declare(["tenant"], only=True) == {"tenant"}
        await reindexed(indexed)
        assert await found(indexed, wants("user.id", 1)) == {id}
        assert await found(indexed, wants("tenant", "a")) == {id}
        await indexed.engine.delete([id])

    async def test_who_opened_before(self, indexed: Bench) -> None:
        """A process that was there before the declaration indexes what it submits and changes, too."""
        other = await indexed.another()
        before = make_job(metadata=dumps({"late": "a"}))
        assert await other.submit([before]) == [True]
        await indexed.engine.declare(["late"])
        await reindexed(indexed)
        job = make_job(metadata=dumps({"late": "a"}))
        assert await other.submit([job]) == [True]
        assert await found(indexed, wants("late", "a")) == {before.id, job.id}
        await other.update(before.id, merge_metadata(dumps({"late": "b"})))
        assert await found(indexed, wants("late", "a")) == {job.id}
        assert await found(indexed, wants("late", "b")) == {before.id}

    async def test_declared_twice(self, indexed: Bench) -> None:
        """Nothing happens; and what is declared in an empty store is whole at once."""
        other = await indexed.another()
        assert await other.declare(INDEXED) == set(INDEXED)
        assert await other.declare([]) == frozenset()
        assert (await indexed.engine.reindex()).left == 0

    async def test_large_batches(self, indexed: Bench) -> None:
        """Thousands of jobs in one submit, all found by their values."""
        jobs = [make_job(metadata=dumps({"tenant": n % 7, "user": {"id": str(n)}})) for n in range(2500)]
        await indexed.submit(*jobs)
        assert await found(indexed, wants("tenant", 3)) == {job.id for job in jobs[3::7]}
        assert await found(indexed, wants("user.id", "2499", "0")) == {jobs[0].id, jobs[-1].id}
        assert len(await indexed.engine.count(Query(), by="metadata:user.id")) == 2500

    async def test_unknown_ids_harm_nothing(self, indexed: Bench) -> None:
        """Tombstones and ids that nobody knows have no metadata."""
        await indexed.engine.update(uuid4(), revoke())
        assert await indexed.engine.update(uuid4(), merge_metadata(dumps({"tenant": "a"}))) is None
        assert await found(indexed, wants("tenant", "a")) == set()
