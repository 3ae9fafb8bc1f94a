"""Search and count: every condition that is given must hold; the default matches all."""

# ruff: noqa: S101
from __future__ import annotations

from uuid import UUID, uuid4

from mognet.engine import GroupBy
from mognet.outcomes import revoke, succeeded, suspend
from mognet.records import Query, Record
from mognet.states import FINAL, ResultState
from mognet.testing.conformance.bench import ENDS, Bench, Group, make_job, plain


class Searching(Group):
    """``get``, ``search`` and ``count``."""

    async def found(self, bench: Bench, query: Query) -> set[UUID]:
        """The ids that a search finds; the count has to agree, by whatever it is grouped."""
        records = await bench.search(query)
        groups: tuple[GroupBy, ...] = ("state", "queue", "name")
        for by in groups:
            counted = await bench.engine.count(query, by=by)
            assert sum(counted.values()) == len(records)
            assert all(counted.values())
        return {record.id for record in records}

    async def test_get(self, bench: Bench) -> None:
        """Records in the order asked for, as often as asked for; None for those that nobody knows."""
        [a, b], unknown = await bench.add(2), uuid4()
        records = await bench.engine.get([b.id, unknown, a.id, b.id])
        assert [record and record.id for record in records] == [b.id, None, a.id, b.id]
        assert records[0] == records[3]

    async def test_by_creation(self, bench: Bench) -> None:
        """Oldest first, or newest first; at most ``limit``."""
        jobs = []
        for number in range(6):
            jobs += await bench.add(priority=number, delay=60.0 - number)
            await bench.advance(1 / 64)
        ids = [job.id for job in jobs]
        assert [record.id for record in await bench.search(Query())] == ids
        assert [record.id for record in await bench.search(Query(newest_first=True))] == ids[::-1]
        assert [record.id for record in await bench.search(Query(limit=2))] == ids[:2]
        assert [record.id for record in await bench.search(Query(limit=2, newest_first=True))] == ids[:3:-1]
        assert await bench.search(Query(limit=0)) == []
        assert await bench.engine.count(Query(limit=2, newest_first=True)) == {"PENDING": 6}

    async def test_records_are_whole(self, bench: Bench) -> None:
        """A search gives the same records as ``get``."""
        await bench.ended(metadata=b'{"a":1}', label="l")
        await bench.start(parent=uuid4())
        await bench.add(delay=5.0)
        records = await bench.search(Query())
        assert len(records) == 3
        assert [plain(record) for record in records] == [plain(record) for record in await bench.find(*(record.id for record in records))]

    async def population(self, bench: Bench) -> dict[str, Record]:
        """One job in each state, each with another queue, name and node."""
        for state in (ResultState.RUNNING, ResultState.SUSPENDED, ResultState.PENDING):
            await bench.add(queue=f"q-{state}", name=f"n-{state}")
        await bench.take(1, ["q-RUNNING"], node="node-RUNNING")
        [claim] = await bench.take(1, ["q-SUSPENDED"], node="node-SUSPENDED")
        await bench.engine.update(claim.token.id, suspend(claim.token))
        for state, end in ENDS.items():
            await bench.add(queue=f"q-{state}", name=f"n-{state}")
            [claim] = await bench.take(1, [f"q-{state}"], node=f"node-{state}")
            await bench.settle(end(claim.token, b"1"))
        return {record.state: record for record in await bench.search(Query())}

    async def test_states(self, bench: Bench) -> None:
        """Any of the states that are named; none named: any."""
        jobs = await self.population(bench)
        assert set(jobs) == set(ResultState)
        for state in ResultState:
            assert await self.found(bench, Query(states=frozenset({state}))) == {jobs[state].id}
        assert await self.found(bench, Query(states=FINAL)) == {jobs[state].id for state in FINAL}
        assert await self.found(bench, Query()) == {record.id for record in jobs.values()}

    async def test_queue_name_and_node(self, bench: Bench) -> None:
        """Equal, not alike; a job that nobody claimed has no node."""
        jobs = await self.population(bench)
        for state, record in jobs.items():
            assert await self.found(bench, Query(queue=f"q-{state}")) == {record.id}
            assert await self.found(bench, Query(name=f"n-{state}")) == {record.id}
            assert await self.found(bench, Query(node=f"node-{state}")) == ({record.id} if record.started else set())
            assert await self.found(bench, Query(queue=f"q-{state}", name="n-OTHER")) == set()
        assert await self.found(bench, Query(queue="q-")) == set()
        assert await self.found(bench, Query(name="")) == set()

    async def test_node_is_the_last_one(self, bench: Bench) -> None:
        """``node`` matches the worker that claimed the job last."""
        ghost, _ = await bench.stolen()
        assert await self.found(bench, Query(node="heir")) == {ghost.token.id}
        assert await self.found(bench, Query(node="node")) == set()

    async def test_parent_and_root(self, bench: Bench) -> None:
        """``parent``: its children, and no deeper; ``root``: the whole tree, the root included."""
        top = make_job()
        a, b = (make_job(parent=top.id, root=top.id) for _ in range(2))
        a1 = make_job(parent=a.id, root=top.id)
        other = make_job()
        await bench.submit(top, a, b, a1, other)
        assert await self.found(bench, Query(parent=top.id)) == {a.id, b.id}
        assert await self.found(bench, Query(parent=a.id)) == {a1.id}
        assert await self.found(bench, Query(parent=a1.id)) == set()
        assert await self.found(bench, Query(root=top.id)) == {top.id, a.id, b.id, a1.id}
        assert await self.found(bench, Query(root=other.id)) == {other.id}
        assert await self.found(bench, Query(root=a.id)) == set()
        assert await self.found(bench, Query(root=top.id, parent=a.id)) == {a1.id}
        await bench.engine.delete([a.id])
        assert await self.found(bench, Query(parent=top.id)) == {b.id}
        assert await self.found(bench, Query(root=top.id)) == {top.id, b.id, a1.id}

    async def test_under(self, bench: Bench) -> None:
        """``under``: a job and all below it, as far as records lead, whatever root they have; in a circle, once."""
        top, a, b = make_job(), make_job(), make_job()
        a, b = a._replace(parent=top.id, root=top.id), b._replace(parent=top.id, root=top.id)
        a1, a2 = (make_job(parent=a.id, root=top.id) for _ in range(2))
        a11 = make_job(parent=a1.id, queue="other")
        await bench.submit(top, a, b, a1, a2, a11)
        assert await self.found(bench, Query(under=top.id)) == {job.id for job in (top, a, b, a1, a2, a11)}
        assert await self.found(bench, Query(under=a.id)) == {a.id, a1.id, a2.id, a11.id}
        assert await self.found(bench, Query(under=a.id, queue="other")) == {a11.id}
        assert await self.found(bench, Query(under=b.id, in_line=True)) == ({b.id} if bench.harness.own_line else set())
        assert await self.found(bench, Query(under=uuid4())) == set()
        assert [record.id for record in await bench.search(Query(under=top.id, newest_first=True, limit=2))] == [a11.id, a2.id]
        await bench.engine.delete([a1.id, top.id])
        assert await self.found(bench, Query(under=a.id)) == {a.id, a2.id}
        assert await self.found(bench, Query(under=top.id)) == {a.id, b.id, a2.id}
        assert await self.found(bench, Query(under=a1.id)) == {a11.id}
        await bench.submit(make_job(id=a1.id, parent=a11.id))
        assert await self.found(bench, Query(under=a11.id)) == {a1.id, a11.id}

    async def test_children_by_state(self, bench: Bench) -> None:
        """Conditions go together: the children of one job that stand in certain states."""
        parent = uuid4()
        await bench.add(3, parent=parent)
        await bench.add(3)
        claims = await bench.take(6)
        await bench.engine.settle([succeeded(claim.token, b"1") for claim in claims[2:5]])
        success = frozenset({ResultState.SUCCESS})
        assert await self.found(bench, Query(parent=parent, states=success)) == {claims[2].token.id}
        assert await self.found(bench, Query(parent=parent, states=frozenset({ResultState.RUNNING}))) == {c.token.id for c in claims[:2]}

    async def test_id_prefix(self, bench: Bench) -> None:
        """The id's first hexadecimal digits, without dashes, any number of them."""
        ids = [UUID(hex=digits.ljust(32, "0")) for digits in ("a", "ab", "abcdef0123", "abcdef0124", "b", "00")]
        await bench.submit(*(make_job(id=id) for id in ids))
        assert await self.found(bench, Query(id_prefix="a")) == set(ids[:4])
        assert await self.found(bench, Query(id_prefix="ab")) == set(ids[1:4])
        assert await self.found(bench, Query(id_prefix="abcdef0123")) == {ids[2]}
        assert await self.found(bench, Query(id_prefix="00000")) == {ids[5]}
        assert await self.found(bench, Query(id_prefix="c")) == set()
        for id in ids:
            assert await self.found(bench, Query(id_prefix=id.hex)) == {id}
        assert await self.found(bench, Query(id_prefix="")) == set(ids)

    async def test_created(self, bench: Bench) -> None:
        """Created after one moment, and before another."""
        jobs, moments = [], []
        for _ in range(4):
            moments.append(await bench.now())
            await bench.advance(1 / 8)
            jobs += await bench.add()
            await bench.advance(1 / 8)
        assert await self.found(bench, Query(created_after=moments[2])) == {jobs[2].id, jobs[3].id}
        assert await self.found(bench, Query(created_before=moments[2])) == {jobs[0].id, jobs[1].id}
        assert await self.found(bench, Query(created_after=moments[1], created_before=moments[3])) == {jobs[1].id, jobs[2].id}

    async def test_count(self, bench: Bench) -> None:
        """By state, queue or name; a group of none is not named."""
        await bench.add(3, queue="a", name="x")
        await bench.add(2, queue="b", name="x")
        await bench.add(1, queue="b", name="y")
        await bench.take(1, ["a"])
        assert await bench.engine.count(Query()) == {"PENDING": 5, "RUNNING": 1}
        assert await bench.engine.count(Query(), by="queue") == {"a": 3, "b": 3}
        assert await bench.engine.count(Query(), by="name") == {"x": 5, "y": 1}
        assert await bench.engine.count(Query(states=frozenset({ResultState.PENDING})), by="queue") == {"a": 2, "b": 3}
        assert await bench.engine.count(Query(queue="none")) == {}

    async def test_nothing(self, bench: Bench) -> None:
        """An empty store finds and counts nothing."""
        assert await bench.search(Query()) == []
        assert await bench.engine.count(Query()) == {}

    async def test_a_search_that_is_left(self, bench: Bench) -> None:
        """Who stops reading, or writes while reading, harms nothing."""
        jobs = await bench.add(50)
        async for _ in bench.engine.search(Query()):
            break
        async for record in bench.engine.search(Query()):
            await bench.engine.update(record.id, revoke())
        assert await bench.engine.count(Query()) == {"REVOKED": len(jobs)}
