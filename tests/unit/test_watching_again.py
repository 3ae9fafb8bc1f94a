"""The hub alone, on the memory engine: an engine in trouble, notes that are lost, cursors and questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import Result, context
from mognet.cursors import write_cursor
from mognet.engines.memory import MemoryEngine
from mognet.events import Event, make_want
from mognet.exceptions import ConnectionError, InvalidCursor, InvalidQuery
from mognet.outcomes import failed, merge_metadata, revoke, succeeded
from mognet.records import Changes, Job, Query
from mognet.states import ResultState
from mognet.watching import Hub, Watch
from watches import LEASE, hasten, job, opened, shrink, take


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


# --- an engine in trouble


class Shaky(MemoryEngine):
    """Fails, and forgets, when told."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.broken = 0
        self.lost = False

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008
        if self.broken:
            self.broken -= 1
            raise ConnectionError("gone")
        changes = await super().changes(since, query, limit=limit)
        if self.lost and since is not None:
            self.lost = False
            return Changes([], changes.at, lost=True)
        return changes


async def test_an_engine_that_cannot_be_reached_ends_no_watch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    hasten(monkeypatch)
    engine = Shaky()
    async with opened(engine) as hub:
        cursor = await hub.cursor()
        for since in (None, cursor):
            engine.broken = 3
            watch = hub.watch(None, None, None, since)
            with suppress(TimeoutError):
                await take(watch, 0.05)
            engine.broken = 3
            new = job()
            await engine.submit([new])
            while (await take(watch)).id != new.id:
                pass
    assert "watching goes on while the engine cannot be reached: gone" in caplog.text


async def test_many_watches_say_once_that_the_engine_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hasten(monkeypatch)
    engine = Shaky()
    async with opened(engine) as hub:
        cursor = await hub.cursor()
        watches = [hub.watch(None, None, None, cursor) for _ in range(100)]
        engine.broken = 500
        waiting = [asyncio.create_task(take(watch)) for watch in watches]
        while engine.broken:  # noqa: ASYNC110 - an engine that fails tells nobody
            await asyncio.sleep(0)
        new = job()
        await engine.submit([new])
        assert {event.id for event in await asyncio.gather(*waiting)} == {new.id}
    assert caplog.text.count("cannot be reached") == 1


async def test_cursors_are_those_of_the_store_as_it_is_now() -> None:
    """It may have been emptied while nobody watched."""
    engine = MemoryEngine()
    async with opened(engine) as hub:
        first = hub.watch(None, None, None, None)
        with suppress(TimeoutError):
            await take(first, 0.05)
        await first.aclose()
        engine._store.identity = "another"
        watch = hub.watch(None, None, None, None)
        with suppress(TimeoutError):
            await take(watch, 0.05)
        jobs = [job(), job()]
        await engine.submit(jobs)
        event = await take(watch)
        assert (await take(hub.watch(None, None, None, event.cursor))).id == jobs[1].id


async def test_when_notes_do_not_reach_back_all_is_told_in_its_latest_state(small: None) -> None:
    """Also what changed in jobs that have ended, of which nothing but a note says when."""
    now = [1_000_000.0]
    engine = Shaky(clock=lambda: now[0])
    old, ended, pending = jobs = [job(metadata=b'{"tenant":"acme"}') for _ in range(3)]
    await engine.submit(jobs)
    for _ in range(2):
        [claim] = await engine.claim("n", ["q"], 1, lease=LEASE)
        await engine.settle([succeeded(claim.token, b"1")])
    now[0] += 1000
    async with opened(engine) as hub:
        cursor, live = await hub.cursor(), hub.watch(None, None, {"tenant": "acme"}, None)
        with suppress(TimeoutError):
            await take(live, 0.05)
        for since in (None, cursor):
            engine.lost = True
            await engine.update(old.id, merge_metadata(b'{"checked":true}'), unless=())
            watch = live if since is None else hub.watch(None, None, {"tenant": "acme"}, since)
            seen = {(event := await take(watch)).id: (event.state, event.metadata.get("checked")) for _ in jobs}
            assert seen == {old.id: ("SUCCESS", True), ended.id: ("SUCCESS", None), pending.id: ("PENDING", None)}
        new = job(metadata=b'{"tenant":"acme"}')
        await engine.submit([new])
        assert (await take(watch)).id == (await take(live)).id == new.id


async def test_a_live_watch_is_not_told_again_what_it_remembers(small: None) -> None:
    engine = Shaky()
    first, second = job(), job()
    async with opened(engine) as hub:
        watch = hub.watch(None, None, None, await hub.cursor())
        await engine.submit([first, second])
        assert {(await take(watch)).id for _ in range(2)} == {first.id, second.id}
        engine.lost = True
        await engine.update(second.id, merge_metadata(b'{"checked":true}'), unless=())
        assert (await take(watch)).id == second.id
        with pytest.raises(TimeoutError):
            await take(watch, 0.1)
        assert not engine.lost


class Held(MemoryEngine):
    """Keeps the answer of one reading back."""

    def __init__(self) -> None:
        super().__init__()
        self.held: asyncio.Event | None = None
        self.holding = asyncio.Event()

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008
        changes = await super().changes(since, query, limit=limit)
        held, self.held = self.held, None
        if held is not None:
            self.holding.set()
            await held.wait()
        return changes


async def test_what_is_told_never_goes_back_in_time() -> None:
    """A watch that catches up does not overtake the reader, whose older answer would then come behind."""
    engine = Held()
    new = job()
    await engine.submit([new])
    async with opened(engine) as hub:
        cursor, live = await hub.cursor(), hub.watch(None, None, None, None)
        with suppress(TimeoutError):
            await take(live, 0.05)
        answer = engine.held = asyncio.Event()
        [claim] = await engine.claim("n", ["q"], 1, lease=LEASE)
        await engine.holding.wait()
        await engine.settle([succeeded(claim.token, b"1")])
        late = hub.watch(None, None, None, cursor)
        with suppress(TimeoutError):
            await take(late, 0.05)
        answer.set()
        events: list[Event] = []
        with suppress(TimeoutError):
            while True:
                events.append(await take(late, 0.2))
        assert [event.state for event in events][-1:] == ["SUCCESS"]
        assert [event.state for event in events].count(ResultState.RUNNING) == 0


# --- cursors and questions


async def test_the_snapshot_of_a_tree_can_be_left_in_the_middle(small: None) -> None:
    engine = MemoryEngine()
    top = job()
    jobs = [top, *(job(parent=top.id, root=top.id) for _ in range(9))]
    for new in jobs:
        await engine.submit([new])
    async with opened(engine) as hub:
        told: list[UUID] = []
        cursor = None
        while len(told) < len(jobs):
            watch = hub.watch(None, top.id, None, cursor)
            for _ in range(2):
                event = await take(watch)
                told.append(event.id)
                cursor = event.cursor
        assert told == [new.id for new in jobs]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        write_cursor("watch", "elsewhere", "1"),
        write_cursor("find", "here", "1"),
        *(
            write_cursor("watch", "here", *parts)
            for parts in (
                (),
                (1,),
                ("1", 1.0),
                ("nowhere",),
                ("1", "now", 1, "0" * 32),
                ("1", float("nan"), 1, "0" * 32),
                ("1", 10**400, 1, "0" * 32),
                ("1", 1.7e308, 1, "0" * 32),
                ("1", 0.0, 2**63 - 1, "0" * 32),
                ("1", 0.0, 1, "0"),
            )
        ),
    ],
)
async def test_cursors_that_are_none(cursor: str) -> None:
    engine = MemoryEngine()
    engine._store.identity = "here"
    async with opened(engine) as hub:
        with pytest.raises(InvalidCursor):
            await take(hub.watch(None, None, None, cursor))


def test_questions_that_are_none() -> None:
    hub = Hub(MemoryEngine())
    id = uuid4()
    for args in ((id, id, None), (id, None, {"a": 1}), (None, id, {"a": 1}), (None, None, {}), (None, None, {"a": []})):
        with pytest.raises(InvalidQuery):
            hub.watch(*args, since=None)
    for top in ({"id": id, "root": None}, {"id": None, "root": id}):
        for filters in ({"name": "cook"}, {"state": "FAILURE"}):
            with pytest.raises(InvalidQuery, match="not two of these"):
                hub.watch(**top, metadata=None, since=None, **filters)
    with pytest.raises(InvalidQuery, match="there are: PENDING"):
        hub.watch(None, None, None, None, state="BROKEN")
    for value in (float("nan"), "\ud800", object()):
        with pytest.raises(InvalidQuery, match="'tenant'"):
            hub.watch(None, None, {"tenant": value}, None)
    with pytest.raises(InvalidQuery, match="strings"):
        hub.watch(None, None, {1: 2}, None)  # type: ignore[dict-item]


async def test_what_is_new_in_the_metadata() -> None:
    engine = MemoryEngine()
    new = job(metadata=b'{"a":1,"b":{"c":1}}')
    async with opened(engine) as hub:
        watch = hub.watch(None, None, {"b.c": [1, 2], "a": 1}, await hub.cursor())
        await engine.submit([new, job(metadata=b'{"a":1}'), job(metadata=b'{"a":2,"b":{"c":1}}')])
        assert (await take(watch)).changed == {"a", "b"}
        await engine.update(new.id, merge_metadata(b'{"b":{"c":2},"d":null}'))
        event = await take(watch)
        assert (event.changed, event.metadata) == ({"b", "d"}, {"a": 1, "b": {"c": 2}, "d": None})
        await engine.update(new.id, merge_metadata(b'{"a":1.0,"b":{"c":2,"e":[1]}}'))
        assert (await take(watch)).changed == {"b"}
        await engine.update(new.id, merge_metadata(b'{"b":{"c":2,"e":[true]}}'))
        assert (await take(watch)).changed == {"b"}, "1 is 1.0, and True is neither"
        await engine.update(new.id, revoke())
        event = await take(watch)
        assert (event.changed, event.state, event.done) == (frozenset(), ResultState.REVOKED, True)
        assert event.to_dict()["changed"] == []
        # the same names as a result has
        result = Result(event.record, None)  # type: ignore[arg-type]
        shared = event.to_dict().keys() - {"cursor", "changed"}
        assert {key: result.to_dict()[key] for key in shared} == {key: event.to_dict()[key] for key in shared}
        assert all(getattr(event, key) == getattr(result, key) for key in ("queue_name", "node_id", "parent_id", "root_id"))


async def test_by_name_and_state(small: None) -> None:
    """Of one who reads along, of one who reads by himself, and of one whose notes are lost: each is told what is so, and nothing else."""
    engine = Shaky()
    wanted = {"name": "cook", "state": {"FAILURE", ResultState.INVALID}}
    async with opened(engine) as hub:
        cursor = await hub.cursor()
        watches = [hub.watch(None, None, metadata, since, **wanted) for metadata in (None, {"a": 1}) for since in (None, cursor)]
        watches.append(hub.watch(None, None, None, None))  # else the engine would filter for all
        for watch in watches:
            with suppress(TimeoutError):
                await take(watch, 0.02)
        kinds = [{"name": name, "metadata": metadata} for name in ("cook", "wash") for metadata in (b'{"a":1}', b"{}")]
        jobs = [job(**kind) for _ in range(2) for kind in kinds]
        await engine.submit(jobs)
        claims = {claim.token.id: claim.token for claim in await engine.claim("n", ["q"], 8, lease=LEASE)}
        ends = [failed(claims[each.id], b"1") for each in jobs[:4]] + [succeeded(claims[each.id], b"1") for each in jobs[4:]]
        await engine.settle(ends)
        for watch, ids in zip(watches[:4], [jobs[:2]] * 2 + [jobs[:1]] * 2, strict=True):
            await _tells(watch, ids)
        engine.lost = True
        await _tells(hub.watch(None, None, None, cursor, **wanted), jobs[:2])
        assert not engine.lost


async def _tells(watch: Watch, jobs: Sequence[Job]) -> None:
    """These, and nothing else."""
    assert {(await take(watch)).id for _ in jobs} == {each.id for each in jobs}
    with pytest.raises(TimeoutError):
        await take(watch, 0.02)


async def test_who_comes_while_the_reader_lags_behind_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more changes than can be read, there is always more."""

    class Flooded(MemoryEngine):
        async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008
            await asyncio.sleep(0.001)
            changes = await super().changes(since, query, limit=limit)
            return changes if since is None else changes._replace(more=True)

    hasten(monkeypatch)
    engine = Flooded()
    async with opened(engine) as hub:
        [first, second] = jobs = [job(), job()]
        await engine.submit(jobs)
        assert (await take(hub.watch(first.id, None, None, None))).id == first.id
        watch = hub.watch(None, None, None, None)
        waiting = asyncio.create_task(anext(watch))
        while watch._box not in hub._live.boxes:  # noqa: ASYNC110 - a moment
            await asyncio.sleep(0)
        assert (await take(hub.watch(second.id, None, None, None))).id == second.id
        waiting.cancel()
        await asyncio.wait([waiting])


class Slow(MemoryEngine):
    """One whose readings of changes take a while, and are counted."""

    reads = 0

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008
        self.reads += 1
        await asyncio.sleep(0.002)
        return await super().changes(since, query, limit=limit)


async def test_a_crowd_that_comes_back_holds_up_nobody_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    engine = Slow()
    async with opened(engine) as hub:
        cursor = await hub.cursor()
        await engine.submit([job()])
        live = hub.watch(None, None, {"here": True}, None)
        waiting = asyncio.create_task(take(live))
        while not hub._live.boxes:  # noqa: ASYNC110 - a moment
            await asyncio.sleep(0.001)
        crowd = [asyncio.create_task(take(hub.watch(None, None, None, cursor), 30.0)) for _ in range(200)]
        while engine.reads < 50:  # noqa: ASYNC110 - until they are at it
            await asyncio.sleep(0.001)
        new = job(metadata=b'{"here":true}')
        await engine.submit([new])
        before = engine.reads
        assert (await waiting).id == new.id
        assert engine.reads - before < 20
        assert len(await asyncio.gather(*crowd)) == 200


# --- a task that watches


@pytest.mark.parametrize("end", [False, True])
async def test_what_comes_while_the_slot_is_given_away_is_told(monkeypatch: pytest.MonkeyPatch, end: bool) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr(context, "KEEPS_SLOT", 0.0)
    engine, new = MemoryEngine(), job()
    await engine.submit([new])
    [claim] = await engine.claim("n", ["q"], 1, lease=LEASE)

    class Slot:
        @asynccontextmanager
        async def waiting(self) -> AsyncIterator[None]:
            if watch._box.told:
                if end:
                    await engine.settle([succeeded(claim.token, b"1")])
                else:
                    await engine.update(new.id, merge_metadata(b'{"told":true}'))
                while watch._box.empty:  # noqa: ASYNC110 - the reader tells nobody else
                    await asyncio.sleep(0)
            yield

    async with opened(engine) as hub:
        watch = context._FreeingWatch(Slot(), hub, make_want(new.id, None, {}), None)
        assert (await take(watch)).state == "RUNNING"
        event = await take(watch)
        assert (event.done, event.metadata) == (end, {} if end else {"told": True})
