"""Watching jobs: what is told, from where, and until when."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from mognet import App, Context, Event, Request, ResultState, watching
from mognet.exceptions import InvalidCursor, InvalidQuery, NotConnected, ResultLost
from mognet.watching import Watch

from .conftest import Gate, Lab, soon, until


async def states(watch: Watch) -> list[str]:
    return [str(event.state) async for event in watch]


async def latest(watch: Watch, ids: set[UUID], seen: dict[UUID, Event] | None = None) -> dict[UUID, Event]:
    """What is told until all of these jobs have ended."""
    seen = {} if seen is None else seen
    async for event in watch:
        seen[event.id] = event
        if all(id in seen and seen[id].done for id in ids):
            break
    return seen


async def test_why_a_job_has_failed(app: App, lab: Lab) -> None:
    @app.task
    async def f(fail: bool) -> int:
        if fail:
            raise KeyError("no rows")
        return 1

    elsewhere = await lab.connected()
    for arguments, state, error in (({"fail": True}, "FAILURE", "builtins:KeyError 'no rows'"), ({"fail": False}, "SUCCESS", None)):
        result = await app.submit(app.create_request(f, **arguments))
        events = await soon(rest(elsewhere.watch(result.id)))
        assert events[-1].state == state
        for event in events:
            why = await event.error()
            assert (why and f"{why.type_name} {why.message}") == (error if event.done else None)
    lost = await app.submit(Request(name="no.such.task"))
    [*_, last] = await soon(rest(elsewhere.watch(lost.id)))
    assert last.state == "INVALID"
    why = await last.error()
    assert why is not None
    assert "no.such.task" in why.message
    await result.delete()
    assert await events[-1].error() is None


async def rest(watch: Watch) -> list[Event]:
    return [event async for event in watch]


async def test_one_job_from_its_present_state_to_its_end(app: App, lab: Lab, gate: Gate) -> None:
    @app.task
    async def f(context: Context) -> int:
        await context.set_metadata(step=1)
        await gate.pass_through()
        return 1

    request = app.create_request(f)
    request.metadata = {"tenant": "acme"}
    result = await app.submit(request)
    await gate.arrived()
    elsewhere = await lab.connected()
    watch = elsewhere.watch(str(result.id))
    event = await soon(anext(watch))
    assert (event.id, event.name, event.state, event.queue_name) == (result.id, result.name, "RUNNING", "tasks")
    assert (event.node_id, event.parent_id, event.root_id, event.progress) == (app.config.node_id, None, result.id, None)
    assert (event.metadata, event.changed) == ({"tenant": "acme", "step": 1}, {"tenant", "step"})
    await result.set_metadata(tenant="acme", note="seen")
    event = await soon(anext(watch))
    assert (event.state, event.changed) == ("RUNNING", {"note"})
    gate.open()
    [*_, last] = [event async for event in watch]
    assert (last.state, last.done, last.changed) == ("SUCCESS", True, frozenset())
    assert json.loads(json.dumps(last.to_dict()))["state"] == "SUCCESS"
    assert await soon(states(result.watch())) == ["SUCCESS"]
    with pytest.raises(ResultLost):
        await soon(anext(app.watch(uuid4())))


async def test_a_tree_until_all_of_it_has_ended(app: App, lab: Lab, gate: Gate) -> None:
    @app.task
    async def leaf(n: int) -> int:
        await gate.pass_through(n)
        return n

    @app.task
    async def top(context: Context) -> int:
        for n in range(3):
            await context.submit(leaf, n)
        return 0

    result = await app.submit(top)
    await result
    watch = (await lab.connected()).watch(root=result.id)
    seen = {(event := await soon(anext(watch))).id: event for _ in range(4)}
    assert {event.root_id for event in seen.values()} == {result.id}
    assert {str(event.state) for event in seen.values() if event.id != result.id} <= {"PENDING", "RUNNING"}
    summary = await result.summary()
    assert (sum(summary.values()), summary[ResultState.SUCCESS], summary[ResultState.FAILURE]) == (4, 1, 0)
    other = await app.submit(leaf, 9)
    gate.open()
    async for event in watch:
        assert event.id != other.id
        seen[event.id] = event
    assert len(seen) == 4
    assert {event.state for event in seen.values()} == {"SUCCESS"}
    assert (await result.summary())[ResultState.SUCCESS] == 4
    [child, *_] = [child async for child in result.children.iter_instances()]
    assert {state: n for state, n in (await child.summary()).items() if n} == {"SUCCESS": 1}
    with pytest.raises(InvalidQuery, match=str(result.id)):
        await soon(anext(app.watch(root=child.id)))


async def test_by_metadata_and_all(app: App, lab: Lab) -> None:
    @app.task
    async def f() -> int:
        return 1

    elsewhere = await lab.connected()
    before = await elsewhere.cursor()
    requests = []
    for user in ({"id": "dol"}, {"id": "ann"}, {"id": "bob"}, "dol"):
        requests.append(app.create_request(f))
        requests[-1].metadata = {"user": user, "n": 1}
    await app.submit_many(requests)
    ids = [request.id for request in requests]
    two = await soon(latest(elsewhere.watch(metadata={"user.id": ["dol", "ann"], "n": 1.0}, since=before), set(ids[:2])))
    assert set(two) == set(ids[:2])
    failing = app.task(name="fails")(lambda: 1 / 0)
    failures = elsewhere.watch(name="fails", state=["FAILURE"])
    with pytest.raises(TimeoutError):
        await soon(anext(failures), 0.1)
    failed = await app.submit(failing)
    event = await soon(anext(failures))
    assert (event.id, event.state) == (failed.id, "FAILURE")
    event = await soon(anext(elsewhere.watch(name="fails", state="FAILURE", since=before)))
    assert (event.id, event.state) == (failed.id, "FAILURE")
    all_ = await soon(latest(elsewhere.watch(since=before), set(ids)))
    assert set(all_) == set(ids)
    now = elsewhere.watch()
    with pytest.raises(TimeoutError):
        await soon(anext(now), 0.1)
    late = await app.submit(f)
    assert set(await soon(latest(now, {late.id}))) == {late.id}


async def test_who_returns_with_a_cursor_misses_no_final_state(app: App, lab: Lab) -> None:
    @app.task
    async def f(context: Context, n: int) -> int:
        await context.set_metadata(n=n)
        if n % 3 == 0:
            raise ValueError(n)
        return n

    elsewhere = await lab.connected()
    cursor = await elsewhere.cursor()
    results = await app.submit_many([app.create_request(f, n) for n in range(40)])
    ids, seen = {result.id for result in results}, dict[UUID, Event]()
    while not all(id in seen and seen[id].done for id in ids):
        watch = elsewhere.watch(since=cursor)
        for _ in range(7):
            event = await soon(anext(watch))
            seen[event.id], cursor = event, event.cursor
            if all(id in seen and seen[id].done for id in ids):
                break
    for result in results:
        await result.wait()
        assert seen[result.id].state == result.state
    one = results[0]
    assert await soon(states(one.watch(since=seen[one.id].cursor))) == ["FAILURE"]  # also if it ended before
    assert await soon(states(one.watch(since=await app.cursor()))) == ["FAILURE"]
    assert await soon(states(app.watch(root=one.id, since=await app.cursor()))) == ["FAILURE"]


async def test_a_slow_watch_gets_the_latest_state_only(app: App, lab: Lab) -> None:
    @app.task
    async def f(context: Context) -> int:
        for n in range(50):
            await context.set_metadata(n=n)
        return 1

    watch = (await lab.connected()).watch()
    with pytest.raises(TimeoutError):
        await soon(anext(watch), 0.05)
    result = await app.submit(f)
    await result
    await asyncio.sleep(0.1)
    told = await soon(latest(watch, {result.id}))
    assert told[result.id].metadata == {"n": 49}


async def test_many_watch_at_once(app: App, lab: Lab, gate: Gate) -> None:
    @app.task
    async def f(n: int) -> int:
        await gate.pass_through(n)
        return n

    elsewhere = await lab.connected()
    results = await app.submit_many([app.create_request(f, n) for n in range(20)])
    watches = [elsewhere.watch(result.id) for result in results for _ in range(25)] + [
        elsewhere.watch(root=result.id) for result in results
    ]
    tasks = [asyncio.create_task(states(watch)) for watch in watches]
    await until(lambda: len(elsewhere.result_backend.hub._boxes) == len(watches))
    gate.open()
    assert {told[-1] for told in await soon(asyncio.gather(*tasks), 60.0)} == {"SUCCESS"}
    assert not elsewhere.result_backend.hub._boxes


async def test_revoked_and_gone(idle: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MISSING_EVERY", 0.05)

    @idle.task
    async def f() -> int:
        return 1

    result = await idle.submit(f)
    watch = result.watch()
    assert (await soon(anext(watch))).state == "PENDING"
    await idle.revoke(result.id)
    assert await soon(states(watch)) == ["REVOKED"]
    gone = await idle.submit(f)
    watch = gone.watch()
    await soon(anext(watch))
    await gone.delete()
    with pytest.raises(ResultLost):
        await soon(anext(watch))


async def test_closing_the_app_ends_watches(lab: Lab) -> None:
    app = await lab.connected()

    @app.task
    async def f() -> int:
        return 1

    result = await app.submit(f)
    tasks = [asyncio.create_task(states(watch)) for watch in (app.watch(), app.watch(result.id), app.watch(root=result.id))]
    await asyncio.sleep(0.1)
    await app.close()
    assert await soon(asyncio.gather(*tasks)) == [[], ["PENDING"], ["PENDING"]]
    with pytest.raises(NotConnected):
        app.watch()


async def test_cursors_from_elsewhere(lab: Lab) -> None:
    app, other = await lab.connected(), await lab.connected("other")
    for cursor in ("x", "", await other.cursor()):
        with pytest.raises(InvalidCursor):
            await soon(anext(app.watch(since=cursor)))
