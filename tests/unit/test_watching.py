"""The hub alone, on the memory engine: whatever the interleaving, no final state goes missing."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mognet import watching
from mognet.engines.memory import MemoryEngine
from mognet.events import Event
from mognet.exceptions import InvalidQuery, ResultLost
from mognet.outcomes import failed, merge_metadata, retry, succeeded
from mognet.records import Changes, Query, Record
from mognet.watching import Hub, Watch
from watches import LEASE, hasten, job, opened, rest, shrink, take


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


# --- random interleavings


class Dawdler(MemoryEngine):
    """Takes its time before and after it reads, as an engine over a network does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)

    async def dawdle(self) -> None:
        for _ in range(self.random.choice([0, 0, 1, 2, 5])):
            await asyncio.sleep(0)

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008
        await self.dawdle()
        changes = await super().changes(since, query, limit=limit)
        await self.dawdle()
        return changes

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        await self.dawdle()
        records = await super().get(ids)
        await self.dawdle()
        return records

    async def search(self, query: Query) -> AsyncIterator[Record]:
        await self.dawdle()
        async for record in super().search(query):
            await self.dawdle()
            yield record


class Story:
    """Jobs of a tree that are submitted, claimed, labelled, tried again and ended, while others watch."""

    def __init__(self, engine: MemoryEngine, hub: Hub) -> None:
        self.engine = engine
        self.hub = hub
        self.top = uuid4()
        self.ids: list[UUID] = []
        self.watches: list[Follower] = []

    async def begin(self) -> None:
        await self.engine.submit([job(id=self.top, metadata=b'{"tenant":"a"}')])
        self.ids.append(self.top)

    async def step(self, action: str, number: int) -> None:
        if action == "submit":
            new = [job(parent=self.top, root=self.top, metadata=b'{"tenant":"a"}') for _ in range(1 + number % 4)]
            await self.engine.submit(new)
            self.ids += [each.id for each in new]
        elif action == "label":
            await self.engine.update(self.ids[number % len(self.ids)], merge_metadata(b'{"n":%d}' % number), unless=())
        elif action == "read":
            for watch in self.watches[number % 3 :: 3]:
                await watch.read(number % 5)
        elif action == "leave":
            for watch in self.watches[number % 3 :: 3]:
                watch.come_back()
        elif action == "turn":
            await asyncio.sleep(0.002)
        else:
            await self.work(action, number)
        await asyncio.sleep(0)

    async def work(self, action: str, number: int) -> None:
        claims = await self.engine.claim("n", ["q"], 1 + number % 3, lease=LEASE)
        claims = [claim for claim in claims if claim.token.id != self.top or await self.again(claim.token)]
        if action == "retry":
            await self.engine.settle([retry(claim.token, 0.0) for claim in claims])
        elif action == "end":
            await self.engine.settle([succeeded(claim.token, b"1") for claim in claims])
        else:
            await self.engine.settle([failed(claim.token, b"1") for claim in claims])

    async def again(self, token: Any) -> bool:
        """The root ends last."""
        await self.engine.settle([retry(token, 0.0)])
        return False

    async def finish(self) -> None:
        while claims := await self.engine.claim("n", ["q"], 100, lease=LEASE):
            claims.sort(key=lambda claim: claim.token.id == self.top)
            await self.engine.settle([succeeded(claim.token, b"1") for claim in claims])
        await asyncio.sleep(0.005)  # the hub reads all of it, and the watches do not


class Follower:
    """Watches, slowly, loses patience, and comes back with its last cursor."""

    def __init__(self, hub: Hub, start: str | None, ends: bool, **what: Any) -> None:
        self.hub = hub
        self.what = what
        self.ends = ends
        self.cursor = start
        self.latest: dict[UUID, Event] = {}
        self.watch = self.open()

    def open(self) -> Watch:
        args = {"id": None, "root": None, "metadata": None} | self.what
        return self.hub.watch(args["id"], args["root"], args["metadata"], self.cursor)

    def come_back(self) -> None:
        self.watch = self.open()

    def heard(self, event: Event) -> None:
        before = self.latest.get(event.id)
        assert before is None or not before.done or event.done, "back in time"
        self.latest[event.id] = event
        self.cursor = event.cursor

    async def read(self, count: int) -> None:
        with suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(0.003):
                for _ in range(count):
                    self.heard(await anext(self.watch))

    async def read_all(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while self.ends or not enough():
                try:
                    self.heard(await anext(self.watch))
                except StopAsyncIteration:
                    return


ACTIONS = st.sampled_from(["submit", "submit", "submit", "label", "read", "read", "leave", "turn", "turn", "retry", "end", "fail"])


@settings(max_examples=60)
@given(steps=st.lists(st.tuples(ACTIONS, st.integers(0, 20)), min_size=10, max_size=60), eager=st.booleans(), seed=st.integers(0, 1000))
def test_no_final_state_goes_missing(steps: list[tuple[str, int]], eager: bool, seed: int) -> None:
    async def tell() -> None:
        engine = Dawdler(seed)
        async with opened(engine) as hub:
            story = Story(engine, hub)
            await story.begin()
            now = await hub.cursor()
            story.watches = [
                Follower(hub, None, True, id=story.top),
                Follower(hub, None, True, root=story.top),
                Follower(hub, now, False, metadata={"tenant": ["a", "b"]}),
                Follower(hub, now, False),
                Follower(hub, now, True, root=story.top),
            ]
            for watch in story.watches if eager else []:
                await watch.read(2)
            for action, number in steps:
                await story.step(action, number)
            await story.finish()
            records = {record.id: record async for record in engine.search(Query())}
            for watch in story.watches:

                def enough(watch: Follower = watch) -> bool:
                    return all(id in watch.latest and watch.latest[id].done for id in records)

                await watch.read_all(enough)
                wanted = {story.top} if "id" in watch.what else set(records)
                told = {id: event.record for id, event in watch.latest.items()}
                assert set(told) == wanted, watch.what
                for id in wanted:
                    assert told[id].state == records[id].state
                    assert not watch.ends or told[id] == records[id]

    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink(monkeypatch)
        asyncio.run(tell())


# --- slow, late and gone


async def test_a_slow_watch_holds_little_and_misses_nothing(small: None) -> None:
    engine = MemoryEngine()
    async with opened(engine) as hub:
        slow, quick = hub.watch(None, None, None, await hub.cursor()), hub.watch(None, None, None, await hub.cursor())
        jobs = [job() for _ in range(40)]
        await engine.submit(jobs[:1])
        assert {(await take(slow)).id, (await take(quick)).id} == {jobs[0].id}
        for new in jobs[1:]:
            await engine.submit([new])
            assert (await take(quick)).id == new.id
            assert len(slow._box._waiting) <= 4
        assert [(await take(slow)).id for _ in jobs[1:]] == [new.id for new in jobs[1:]]


async def test_cancelled_while_it_waits_it_goes_on() -> None:
    engine = MemoryEngine()
    async with opened(engine) as hub:
        watch = hub.watch(None, None, None, None)
        for seconds in (0.0, 0.001, 0.01, 0.05):
            with pytest.raises(TimeoutError):
                await take(watch, seconds)
        new = job()
        await engine.submit([new])
        assert (await take(watch)).id == new.id


async def test_a_watch_that_is_dropped_leaves_nothing() -> None:
    engine = MemoryEngine()
    [new] = jobs = [job()]
    await engine.submit(jobs)
    async with opened(engine) as hub:
        for what in ((new.id, None, None), (None, new.id, None), (None, None, {"a": [1, 2], "b": 1})):
            watch = hub.watch(*what, since=None)
            with suppress(TimeoutError):
                await take(watch, 0.05)
            with suppress(TimeoutError):
                await take(watch, 0.05)
            assert hub._boxes
            del watch
            live = hub._live
            async with asyncio.timeout(5):
                while hub._boxes:
                    gc.collect()
                    await asyncio.sleep(0)
            assert not (hub._boxes or hub._joining or hub._trees or live.boxes)
            assert not (live._by_id or live._by_root or live._by_label or live._queries or live._paths or live._ways)


async def test_a_watch_that_never_got_in_leaves_nothing() -> None:
    class Silent(MemoryEngine):
        async def identity(self) -> str:
            await asyncio.sleep(60)
            return ""

    async with opened(Silent()) as hub:
        for since in (None, "cursor"):
            watch = hub.watch(None, None, None, since)
            with suppress(TimeoutError):
                await take(watch, 0.02)
            assert hub._boxes
            del watch
            async with asyncio.timeout(5):
                while hub._boxes:
                    gc.collect()
                    await asyncio.sleep(0)


async def test_when_nobody_watches_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    engine = MemoryEngine()
    async with opened(engine) as hub:
        watch = hub.watch(None, None, None, None)
        with suppress(TimeoutError):
            await take(watch, 0.02)
        await watch.aclose()
        assert await rest(watch) == []
        async with asyncio.timeout(5):
            while hub._task is not None:  # noqa: ASYNC110 - a moment
                await asyncio.sleep(0.001)
        assert not engine._store.exchange._boxes


async def test_closing_ends_all() -> None:
    engine = MemoryEngine()
    new = job()
    await engine.submit([new])
    hub = Hub(engine)
    watches = [hub.watch(new.id, None, None, None), hub.watch(None, new.id, None, None), hub.watch(None, None, None, None)]
    reading = [asyncio.create_task(rest(watch)) for watch in watches]
    await asyncio.sleep(0.05)
    await hub.close()
    assert [[event.state for event in events] for events in await asyncio.gather(*reading)] == [["PENDING"], ["PENDING"], []]
    assert await rest(hub.watch(None, None, None, None)) == []


async def test_what_is_deleted_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MISSING_EVERY", 0.02)
    hasten(monkeypatch)
    engine = MemoryEngine()
    new = job()
    await engine.submit([new])
    async with opened(engine) as hub:
        for what in ((new.id, None), (None, new.id)):
            with pytest.raises(ResultLost):
                await take(hub.watch(*(uuid4() if each else None for each in what), None, None))
        one, tree = hub.watch(new.id, None, None, None), hub.watch(None, new.id, None, None)
        assert {(await take(one)).id, (await take(tree)).id} == {new.id}
        with suppress(TimeoutError):
            await take(tree, 0.05)
        await engine.delete([new.id])
        for watch in (one, tree):
            with pytest.raises(ResultLost):
                await take(watch)


async def test_a_tree_with_a_deleted_child_ends() -> None:
    engine = MemoryEngine()
    top = job()
    child = job(parent=top.id, root=top.id)
    await engine.submit([top, child])
    async with opened(engine) as hub:
        watch = hub.watch(None, top.id, None, None)
        assert [(await take(watch)).id, (await take(watch)).id] == [top.id, child.id]
        await engine.delete([child.id])
        [claim] = await engine.claim("n", ["q"], 1, lease=LEASE)
        await engine.settle([succeeded(claim.token, b"1")])
        assert [event.state for event in await rest(watch)] == ["SUCCESS"]


async def test_an_inner_job_is_no_root() -> None:
    engine = MemoryEngine()
    top = job()
    child = job(parent=top.id, root=top.id)
    await engine.submit([top, child])
    async with opened(engine) as hub:
        with pytest.raises(InvalidQuery, match=str(top.id)):
            await take(hub.watch(None, child.id, None, None))
