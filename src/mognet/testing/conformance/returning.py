"""Whoever comes back after much has happened is told of the few jobs that matter to him as if he had read on all the time."""

# ruff: noqa: S101
from __future__ import annotations

import pytest

from mognet.codec import dumps
from mognet.labels import label
from mognet.outcomes import merge_metadata, revoke
from mognet.records import Query, Wanted
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, make_job
from mognet.testing.conformance.changing import Watch

PATHS = ("tenant", "kind")


class Returning(Group):
    """The law *changes are folded, never lost*, where few among many changes are asked for."""

    @pytest.mark.parametrize("indexed", [(), PATHS], ids=["looked through", "indexed"])
    async def test_few_among_many(self, bench: Bench, indexed: tuple[str, ...]) -> None:
        """By whatever they are found, and on pages of whatever size: the same jobs, in the order of their changes."""
        assert await bench.engine.declare(indexed) == set(indexed)
        start, queries = await much_happens(bench)
        order = await Watch(bench, start).ids()
        for name, query in queries.items():
            matching = {record.id for record in await bench.search(query)}
            want = [id for id in order if id in matching]
            for limit in (3, 60, 1000):
                watch = Watch(bench, start, query)
                assert [record.id for record in await watch.read(limit=limit)] == want, (name, limit)
                # Who has read to the end goes on from there, whatever is asked for then.
                [new] = await bench.add(delay=LONG)
                assert await Watch(bench, watch.at).ids() == [new.id], (name, limit)
                await bench.engine.delete([new.id])
            changes = await bench.engine.changes(start, query)
            for number, changed in enumerate(changes.changed):
                assert await Watch(bench, changed.at, query).ids() == want[number + 1 :], name

    async def test_an_index_that_comes_and_goes(self, bench: Bench) -> None:
        """While it is not whole, or is given up, no job is missing."""
        [old] = await bench.add(metadata=dumps({"tenant": "a"}))
        start = (await Watch.begin(bench)).at
        await bench.engine.update(old.id, merge_metadata(b'{"n":1}'))
        await bench.add(60, metadata=dumps({"tenant": "z"}))
        await bench.engine.declare(PATHS)
        [new] = await bench.add(metadata=dumps({"tenant": "a"}))
        other = await bench.another()
        query = Query(metadata=(Wanted("tenant", frozenset({label("a")})),))

        async def check() -> None:
            for engine in (bench.engine, other):
                for limit in (10, 1000):
                    watch = Watch(bench, start, query)
                    watch.engine = engine
                    assert [record.id for record in await watch.read(limit=limit)] == [old.id, new.id]

        await check()
        while (await bench.engine.reindex(limit=20)).left:
            await check()
        await check()
        await bench.engine.declare([], only=True)
        await check()
        while (await bench.engine.reindex(limit=20)).left:
            await check()
        await check()


async def much_happens(bench: Bench) -> tuple[str, dict[str, Query]]:
    """A place before it, and questions of few jobs."""
    top = make_job(metadata=dumps({"tenant": "a"}))
    mine = [make_job(metadata=dumps({"tenant": "a", "kind": kind}), delay=LONG) for kind in "xxxyyy"]
    tree = [make_job(metadata=dumps({"tenant": tenant}), parent=top.id, root=top.id, delay=LONG) for tenant in "ab"]
    await bench.submit(top, *mine, *tree)
    start = (await Watch.begin(bench)).at
    for number, job in enumerate((tree[1], mine[5], mine[2], top, tree[0], mine[3])):
        await bench.submit(*(make_job(metadata=dumps({"tenant": "z", "n": n})) for n in range(15)))
        await bench.engine.update(job.id, merge_metadata(dumps({"n": number})))
    await bench.engine.update(mine[4].id, merge_metadata(b'{"tenant":"b"}'))
    await bench.engine.update(mine[0].id, revoke())
    await bench.engine.delete([mine[3].id])
    await bench.submit(make_job(metadata=dumps({"tenant": "b"})), make_job(parent=top.id, root=top.id))

    def has(path: str, *values: object) -> Wanted:
        return Wanted(path, frozenset(map(label, values)))

    return start, {
        "a label": Query(metadata=(has("tenant", "a"),)),
        "one of two": Query(metadata=(has("tenant", "a", "b"),)),
        "both of two": Query(metadata=(has("tenant", "a"), has("kind", "y"))),
        "one without an index": Query(metadata=(has("n", 1), has("kind", "y"))),
        "many have it": Query(metadata=(has("tenant", "z"), has("n", 1, 2))),
        "nobody has it": Query(metadata=(has("tenant", "c"),)),
        "no value": Query(metadata=(has("tenant"),)),
        "a state": Query(metadata=(has("tenant", "a"), has("kind", "x")), states=frozenset({ResultState.REVOKED})),
        "a tree": Query(root=top.id),
        "a label in a tree": Query(root=top.id, metadata=(has("tenant", "a"),)),
        "children": Query(parent=top.id),
        "an id": Query(id_prefix=mine[2].id.hex),
        "an id that has not changed": Query(id_prefix=mine[1].id.hex),
        "no id": Query(id_prefix="x" * 32),
    }
