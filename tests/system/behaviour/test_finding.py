"""Jobs are found and counted by what they are, while they wait, while they run and after their end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import App, AppConfig, Context, Request, finding
from mognet.exceptions import InvalidCursor, InvalidMetadata, InvalidQuery
from mognet.states import ResultState

from .conftest import Gate, Lab, soon, state_is, until

KEYS = {"tenant_id", "user.id"}


async def found(app: App, **filters: Any) -> set[UUID]:
    return {result.id async for result in app.result_backend.find(**filters)}


@pytest.fixture(params=["indexed", "scanned"])
async def searched(request: pytest.FixtureRequest, lab: Lab) -> App:
    """An app without a worker, with and without indexes."""
    return await lab.connected(searchable_metadata=KEYS if request.param == "indexed" else set())


def labelled(name: str = "t", **metadata: Any) -> Request[Any]:
    return Request(name=name, metadata=metadata)


async def test_in_every_state_by_every_filter(lab: Lab, searched: App, gate: Gate) -> None:
    queues = {"include": {"tasks", "other"}}
    app = await lab.working(searchable_metadata=searched.config.searchable_metadata, node_id="n1", task_queues=queues)

    @app.task(name="enter", queue="other")
    async def enter(context: Context) -> None:
        child = await context.submit(Request(name="child", metadata={"tenant_id": "acme"}, queue_name="nowhere"))
        await gate.pass_through(child.id)

    @app.task(name="end")
    async def end(well: bool) -> None:
        if not well:
            raise ValueError("no")

    acme = {"tenant_id": "acme", "user": {"id": 7}}
    running = await app.submit(Request(name="enter", metadata=acme))
    good = await app.submit(Request(name="end", args=(True,), metadata=acme))
    bad = await app.submit(Request(name="end", args=(False,), metadata={"tenant_id": "zoo"}))
    waiting = await app.submit(Request(name="end", args=(True,), metadata=acme, delay=timedelta(hours=1)))
    stopped = await app.submit(Request(name="end", args=(True,), metadata=acme, delay=timedelta(hours=1)))
    await app.revoke(stopped.id)
    await gate.arrived()
    await soon(good.wait())
    await soon(bad.wait())
    child = gate.entered[0]
    ours = {running.id, good.id, waiting.id, stopped.id}

    assert await found(searched) == {*ours, bad.id, child}
    assert await found(searched, metadata={"tenant_id": "acme"}) == {*ours, child}
    assert await found(searched, metadata={"tenant_id": ["acme", "zoo"]}) == {*ours, bad.id, child}
    assert await found(searched, metadata={"user.id": 7}) == ours
    assert await found(searched, metadata={"user": {"id": 7.0}}) == ours
    assert await found(searched, metadata={"user.id": "7"}) == set()
    assert await found(searched, metadata={"tenant_id": "acme", "user.id": 7}, state="RUNNING") == {running.id}
    assert await found(searched, state=[ResultState.SUCCESS, "FAILURE"]) == {good.id, bad.id}
    assert await found(searched, state="REVOKED") == {stopped.id}
    assert await found(searched, name="end", state="PENDING") == {waiting.id}
    assert await found(searched, queue="other") == {running.id}
    assert await found(searched, node="n1") == {running.id, good.id, bad.id}
    assert await found(searched, root=running.id) == {running.id, child}
    assert await found(searched, root=str(running.id), parent=running.id) == {child}
    assert await found(searched, parent=uuid4()) == set()
    [first] = [result async for result in searched.result_backend.find(order="oldest", limit=1)]
    assert (first.id, first.state, await first.get_metadata()) == (running.id, "RUNNING", acme)

    count = searched.result_backend.count
    assert await count() == {"PENDING": 2, "FAILURE": 1, "REVOKED": 1, "RUNNING": 1, "SUCCESS": 1}
    assert next(iter(await count())) == "PENDING", "the largest first"
    assert await count(by="name", metadata={"tenant_id": "acme"}) == {"end": 3, "enter": 1, "child": 1}
    assert await count(by="queue", state="PENDING") == {"tasks": 1, "nowhere": 1}
    assert await count(by="metadata:tenant_id") == {"acme": 5, "zoo": 1}
    assert await count(by="metadata:user.id", name="end") == {"7": 3, "": 1}


async def test_changed_labels_are_what_counts(app: App, gate: Gate) -> None:
    @app.task
    async def work(context: Context) -> None:
        await context.set_metadata(tenant_id="new")
        await gate.pass_through()

    request = app.create_request(work)
    request.metadata = {"tenant_id": "old"}
    result = await app.submit(request)
    await gate.arrived()
    assert await found(app, metadata={"tenant_id": "old"}) == set()
    assert await found(app, metadata={"tenant_id": "new"}) == {result.id}
    gate.open()
    await soon(result)
    await result.set_metadata(tenant_id="newer")
    assert await found(app, metadata={"tenant_id": "newer"}) == {result.id}
    await result.delete()
    assert await found(app) == set()


async def test_pages_stay_where_they_are(searched: App) -> None:
    """Jobs that come or go meanwhile neither double nor hide the others."""
    ids = [result.id for result in await searched.submit_many([labelled(tenant_id="ab"[n % 2], n=n) for n in range(40)])]
    wanted: dict[str, Any] = {"metadata": {"tenant_id": "a"}}
    seen, cursor = [], None
    while page := [result async for result in searched.result_backend.find(limit=6, after=cursor, **wanted)]:
        assert len(page) <= 6
        seen += [result.id for result in page]
        cursor = page[-1].cursor
        await searched.submit(labelled(tenant_id="a"))
        await page[-1].delete()
    assert seen == ids[::2][::-1]
    older = [result async for result in searched.result_backend.find(order="oldest", limit=3)]
    assert [result.id for result in older] == [id for id in ids if id in await found(searched)][:3]
    back = [result.id async for result in searched.result_backend.find(after=older[-1].cursor)]
    assert back == [older[1].id, older[0].id], "the same place, looked at the other way"


async def test_by_when_they_were_submitted(idle: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datetime without a time zone is local time."""
    first = await idle.submit(labelled())
    await until(lambda: time.time() > first.record.created + 0.05)
    second = await idle.submit(labelled())
    [one, two] = [result async for result in idle.result_backend.find(order="oldest")]
    assert (one.id, two.id) == (first.id, second.id)
    assert await found(idle, created_after=one.created + timedelta(seconds=0.01)) == {second.id}
    assert await found(idle, created_before=one.created + timedelta(seconds=0.01)) == {first.id}
    assert await found(idle, created_after=one.created - timedelta(hours=1), created_before=two.created + timedelta(hours=1)) == {
        first.id,
        second.id,
    }
    monkeypatch.setitem(os.environ, "TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        between = (one.created + timedelta(seconds=0.01)).astimezone().replace(tzinfo=None)
        assert await found(idle, created_after=between) == {second.id}
        assert await found(idle, created_before=between.replace(tzinfo=UTC)) == {first.id, second.id}, "14 hours later"
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_a_key_that_is_declared_later(lab: Lab) -> None:
    """Old jobs are found before and after they are indexed, new ones too."""
    before = await lab.connected()
    old = {result.id for result in await before.submit_many([labelled(tenant_id="acme") for _ in range(30)])}
    assert await found(before, metadata={"tenant_id": "acme"}) == old
    after = await lab.connected(searchable_metadata={"tenant_id"})
    assert await found(after, metadata={"tenant_id": "acme"}) == old
    new = {(await each.submit(labelled(tenant_id="acme"))).id for each in (before, after)}
    for _ in range(100):
        if (await after.engine.reindex(limit=7)).left == 0:
            break
    else:
        pytest.fail("it never ends")
    assert await found(after, metadata={"tenant_id": "acme"}) == old | new
    assert await after.engine.declare({"tenant_id"}) == {"tenant_id"}
    assert await after.result_backend.count(by="metadata:tenant_id") == {"acme": 32}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    monkeypatch.setattr(finding, "_told", set())
    with caplog.at_level(logging.WARNING, "mognet.finding"):
        yield caplog


async def test_looking_at_every_job_is_said(lab: Lab, told: pytest.LogCaptureFixture) -> None:
    app = await lab.connected(searchable_metadata={"tenant_id"})
    for _ in range(2):
        assert await found(app, metadata={"tenant_id": "acme"}) == set()
        assert await found(app, metadata={"color": "red"}) == set()
    [message] = [record.getMessage() for record in told.records if record.name == "mognet.finding"]
    assert "'color'" in message
    assert "mognet APP store reindex" in message


async def test_cursors_belong_to_one_app(lab: Lab) -> None:
    ours, theirs = await lab.connected("one"), await lab.connected("two")
    await ours.submit(labelled())
    await theirs.submit(labelled())
    [result] = [result async for result in ours.result_backend.find()]
    with pytest.raises(InvalidCursor, match="another app"):
        await found(theirs, after=result.cursor)
    with pytest.raises(InvalidCursor):
        await found(ours, after="nonsense")
    assert await found(ours, after=result.cursor) == set()


async def test_what_makes_no_sense_is_refused(idle: App) -> None:
    await idle.submit(labelled())
    with pytest.raises(InvalidQuery, match="'a'"):
        await found(idle, metadata={"a": float("nan")})
    with pytest.raises(InvalidQuery, match="state"):
        await found(idle, state=[])
    with pytest.raises(InvalidMetadata, match="'tenant_id'"):
        await idle.submit(labelled(tenant_id=float("nan")))
    assert len(await found(idle)) == 1


async def test_values_of_every_kind(searched: App) -> None:
    """What is stored as JSON is looked for as JSON."""
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    values: list[Any] = [1, "1", True, None, 1.5, "", "ä\n", ["a"], {"b": [1, None]}, moment, UUID(int=7), "x" * 3000]
    ids = [result.id for result in await searched.submit_many([labelled(tenant_id=value) for value in values])]
    for id, value in zip(ids, values, strict=True):
        assert await found(searched, metadata={"tenant_id": [value]}) == {id}, value
    assert await found(searched, metadata={"tenant_id": "2026-03-01T12:30:00Z"}) == {ids[9]}
    assert await found(searched, metadata={"tenant_id": [1, None, {"b": [1, None]}]}) == {ids[0], ids[3], ids[8]}
    counted = await searched.result_backend.count(by="metadata:tenant_id")
    assert counted.keys() >= {"1", '"1"', "true", "null", "1.5", '""', "ä\n", '["a"]', "x" * 3000}
    assert set(counted.values()) == {1}


def test_keys_are_checked_where_they_are_declared() -> None:
    for key in ("", "a..b", ".a", "a\0", "x" * 300):
        with pytest.raises(ValueError, match="is no key of metadata"):
            AppConfig(searchable_metadata={key})


async def test_running_jobs_under_a_root(app: App, gate: Gate) -> None:
    """All levels of a tree, however deep."""

    @app.task
    async def down(context: Context, levels: int) -> None:
        if levels:
            await context.submit(down, levels - 1, context=context)
        await gate.pass_through(context.id)

    result = await app.submit(down, 3)
    await gate.arrived(4)
    await state_is(result, "RUNNING")
    assert await found(app, root=result.id) == set(gate.entered)
    assert await app.result_backend.count(root=result.id) == {"RUNNING": 4}
