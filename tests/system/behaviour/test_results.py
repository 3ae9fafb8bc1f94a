"""Results: waiting, values, trees, deleting."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from mognet import App, Context, Request, Result, ResultState, ResultTree
from mognet.engine import DONE
from mognet.exceptions import NotConnected, ResultFailed, ResultLost, ResultNotReady, ResultValueLost, Revoked
from mognet.records import Query

from .conftest import Gate, Lab, soon, state_is, until


async def test_get_before_the_end(idle: App) -> None:
    result = await idle.submit(Request(name="none"))
    with pytest.raises(ResultNotReady):
        await result.get()
    with pytest.raises(ResultNotReady):
        await result.value.get_raw_value()


async def test_wait_times_out(idle: App) -> None:
    result = await idle.submit(Request(name="none"))
    with pytest.raises(asyncio.TimeoutError):
        await result.wait(timeout=0.05)
    with pytest.raises(TimeoutError):
        await result.wait(0)
    with pytest.raises(TimeoutError):
        await idle.result_backend.wait(result.id, timeout=0.05)


async def test_wait_then_get(app: App) -> None:
    @app.task
    async def one() -> int:
        return 1

    result = await app.submit(one)
    assert result.state == "PENDING"
    assert await soon(result.wait()) is None
    assert result.done
    assert await result.get() == 1
    assert await result == 1
    assert await result.value.get_raw_value() == 1
    assert await (await app.result_backend.wait(result.id, timeout=5)) == 1


async def test_a_failed_jobs_raw_value_is_its_error(app: App) -> None:
    @app.task
    async def fail() -> None:
        raise KeyError("gone")

    result = await app.submit(fail)
    await soon(result.wait())
    error = await result.value.get_raw_value()
    assert isinstance(error, KeyError)
    assert error.args == ("gone",)
    with pytest.raises(KeyError, match="gone"):
        await result.get()
    with pytest.raises(KeyError, match="gone"):
        await result
    assert result.failed
    info = await result.value.get_error()
    assert info is not None
    assert 'raise KeyError("gone")' in info.traceback


async def test_waiting_for_what_is_not_there(idle: App) -> None:
    with pytest.raises(ResultLost):
        await soon(idle.result_backend.wait(uuid4()))
    result = await idle.submit(Request(name="none"))
    await result.delete()
    with pytest.raises(ResultLost) as caught:
        await soon(result)
    assert caught.value.result_id == result.id
    with pytest.raises(ResultLost):
        await result.get()


async def test_a_record_deleted_while_waiting(idle: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mognet.waiting.LOOK_EVERY", 0.2)
    result = await idle.submit(Request(name="none"))
    waiting = asyncio.ensure_future(result.wait())
    await asyncio.sleep(0.05)
    await result.delete()
    with pytest.raises(ResultLost):
        await soon(waiting)


async def test_thousands_of_waiters_at_once(app: App) -> None:
    @app.task
    async def echo(n: int) -> int:
        return n

    results = await app.submit_many([app.create_request(echo, n) for n in range(1500)])
    twice = [Result(result.record, app.result_backend) for result in results]
    assert await soon(asyncio.gather(*results, *twice), 60) == [*range(1500), *range(1500)]


async def test_many_who_wait_for_one(app: App, lab: Lab, gate: Gate) -> None:
    @app.task
    async def work() -> str:
        await gate.pass_through()
        return "value"

    result = await app.submit(work)
    others = [await lab.connected() for _ in range(3)]
    waits = [asyncio.ensure_future(o.result_backend.wait(result.id)) for o in others for _ in range(300)]
    cancelled = asyncio.ensure_future(app.result_backend.wait(result.id))
    await gate.arrived()
    cancelled.cancel()
    gate.open()
    assert {await each for each in await soon(asyncio.gather(*waits))} == {"value"}


async def test_nothing_is_asked_of_the_engine_while_waiting(app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task
    async def work(n: int) -> int:
        await gate.pass_through()
        return n

    results = await app.submit_many([app.create_request(work, n) for n in range(50)])
    waiting = asyncio.gather(*results)
    await gate.arrived(50)
    await asyncio.sleep(0.1)
    calls: list[int] = []
    engine: Any = app.result_backend._engine
    get = engine.get

    async def counted(ids: Any) -> Any:
        calls.append(len(ids))
        return await get(ids)

    monkeypatch.setattr(engine, "get", counted)
    await asyncio.sleep(0.5)
    assert len(calls) <= 1, "one look at all of them now and then, no poll each"
    gate.open()
    assert await soon(waiting) == list(range(50))


async def test_a_wait_survives_lost_signals(app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mognet.waiting.LOOK_EVERY", 0.1)

    @app.task
    async def work() -> int:
        await gate.pass_through()
        return 1

    monkeypatch.setattr("mognet.waiting.unpack_done", lambda body: (_ for _ in ()).throw(ValueError("lost")))
    result = await app.submit(work)
    waiting = asyncio.ensure_future(result.wait())
    await gate.arrived()
    gate.open()
    await soon(waiting)
    assert result.successful


async def test_a_wait_survives_signals_of_others(app: App, gate: Gate) -> None:
    @app.task
    async def work() -> int:
        await gate.pass_through()
        return 1

    result = await app.submit(work)
    waiting = asyncio.ensure_future(result)
    await gate.arrived()
    engine: Any = app._engine
    for body in (b"", b"\xff" * 50, b"[", b"[]", b'["%b"]' % str(result.id).encode(), b'["%b",1,2,3]' % str(result.id).encode()):
        await engine.publish(DONE, body)
    await asyncio.sleep(0.05)
    gate.open()
    assert await soon(waiting) == 1
    assert await soon(app.run(work)) == 1


async def test_wait_from_an_app_without_a_worker(app: App, idle: App) -> None:
    @app.task(name="remote")
    async def remote() -> dict[str, int]:
        return {"a": 1}

    assert await soon(idle.run(Request(name="remote"))) == {"a": 1}


async def test_closing_ends_waits(lab: Lab) -> None:
    app = await lab.connected()
    result = await app.submit(Request(name="none"))
    waiting = asyncio.ensure_future(result.wait())
    await asyncio.sleep(0.02)
    await app.close()
    with pytest.raises(NotConnected, match="closed"):
        await soon(waiting)


async def test_get_many(app: App) -> None:
    @app.task
    async def one() -> int:
        return 1

    first, second = [await app.submit(one) for _ in range(2)]
    found = await app.result_backend.get_many(second.id, uuid4(), first.id, second.id)
    assert [None if r is None else r.id for r in found] == [second.id, None, first.id, second.id]
    assert await app.result_backend.get_many() == []


# trees


async def grow(app: App, width: int, depth: int) -> Result[Any]:
    """A tree of finished jobs."""

    @app.task(name="grow")
    async def grow(context: Context, depth: int) -> None:
        if depth:
            await context.gather(*[await context.submit(grow, depth - 1) for _ in range(width)])

    result = await app.submit(grow, depth)
    await soon(result)
    return result


async def test_children(app: App) -> None:
    top = await grow(app, 3, 2)
    assert await top.children.count() == await app.result_backend.get_children_count(top.id) == 3
    ids = [id async for id in top.children.iter_ids()]
    children = [child async for child in top.children.iter_instances()]
    assert [child.id for child in children] == ids
    assert {child.parent_id for child in children} == {top.id}
    assert [id async for id in top.children.iter_ids(count=2)] == ids[:2]
    assert [id async for id in app.result_backend.iterate_children_ids(top.id)] == ids
    assert [await child.children.count() for child in children] == [3, 3, 3]


async def test_trees(app: App) -> None:
    top = await grow(app, 3, 2)
    tree = await top.tree(10, 10)
    assert isinstance(tree, ResultTree)
    assert tree.result.id == top.id
    assert [len(child.children) for child in tree.children] == [3, 3, 3]
    assert all(not leaf.children for child in tree.children for leaf in child.children)
    assert len((await top.tree(10, 2)).children) == 2
    shallow = await top.tree(max_depth=2, max_width=10)
    assert [child.children for child in shallow.children] == [[], [], []]
    assert (await top.tree(1, 10)).children == []
    assert tree.to_dict()["children"][0]["parent_id"] == str(top.id)


async def test_a_tree_shows_its_top_as_it_is_now(app: App) -> None:
    top = await app.submit(Request(name="t", delay=timedelta(hours=1)))
    await app.revoke(top.id)
    assert top.state is ResultState.PENDING
    assert (await top.tree()).result.state is ResultState.REVOKED
    assert top.revoked


async def test_delete_takes_the_children_along(app: App) -> None:
    top = await grow(app, 2, 2)
    everything = [top.id]
    for child in (await top.tree(10, 10)).children:
        everything += [child.result.id, *(leaf.result.id for leaf in child.children)]
    await top.delete()
    assert await app.result_backend.get_many(*everything) == [None] * 7


async def test_delete_without_the_children(app: App) -> None:
    top = await grow(app, 2, 1)
    ids = [id async for id in top.children.iter_ids()]
    await top.delete(include_children=False)
    assert await app.result_backend.get(top.id) is None
    assert None not in await app.result_backend.get_many(*ids)
    await app.result_backend.delete(ids[0])
    assert await app.result_backend.get(ids[0]) is None


# retention


async def test_set_ttl(app: App) -> None:
    top = await grow(app, 2, 1)
    ids = [top.id, *[id async for id in top.children.iter_ids()]]
    await top.set_ttl(timedelta(seconds=30), include_children=True)
    assert None not in await app.result_backend.get_many(*ids)
    await top.set_ttl(timedelta(milliseconds=1), include_children=False)
    await asyncio.sleep(0.01)
    assert await app.result_backend.get(top.id) is None
    assert None not in await app.result_backend.get_many(*ids[1:])
    other = await grow(app, 2, 1)
    ids = [other.id, *[id async for id in other.children.iter_ids()]]
    await app.result_backend.set_ttl(other.id, timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    assert await app.result_backend.get_many(*ids) == [None] * 3
    with pytest.raises(ResultLost):
        await app.result_backend.set_ttl(other.id, timedelta(seconds=1))


async def test_a_ttl_set_before_the_end_counts_from_the_end(app: App, gate: Gate) -> None:
    @app.task
    async def work() -> int:
        await gate.pass_through()
        return 1

    result = await app.submit(work)
    await gate.arrived()
    await result.set_ttl(timedelta(milliseconds=50))
    await asyncio.sleep(0.1)
    assert await app.result_backend.get(result.id) is not None
    gate.open()
    await soon(result)

    async def gone() -> bool:
        return await app.result_backend.get(result.id) is None

    await until(gone)


async def test_records_expire_by_themselves(lab: Lab) -> None:
    app = await lab.working(result_ttl=timedelta(seconds=0.2), sweep_interval=timedelta(seconds=0.05))
    engine: Any = app._engine

    @app.task
    async def work(context: Context, fail: bool) -> int:
        await context.state.set("note", 1)
        await context.set_metadata(a=1)
        if fail:
            raise ValueError("no")
        return 1

    results = [await app.submit(work, fail) for fail in (True, False)]
    results.append(await app.submit(Request(name="unknown")))
    results.append(await app.revoke((await app.submit(Request(name="x", delay=timedelta(hours=1)))).id))
    results.append(await app.revoke(uuid4()))
    for result in results:
        await soon(result.wait())

    async def gone() -> bool:
        return await app.result_backend.get_many(*(r.id for r in results)) == [None] * 5

    await until(gone)
    for result in results:
        with pytest.raises(ResultLost):
            await result.get_metadata()

    assert [r async for r in engine.search(Query())] == []


async def test_values_expire_before_records(lab: Lab) -> None:
    app = await lab.working(result_value_ttl=timedelta(seconds=0.1), sweep_interval=timedelta(seconds=0.05))
    other = await lab.connected()

    @app.task
    async def work(fail: bool) -> str:
        if fail:
            raise ValueError("no")
        return "x" * 10_000

    good, bad = await app.submit(work, False), await app.submit(work, True)
    await soon(good.wait())
    await soon(bad.wait())
    await asyncio.sleep(0.3)
    found, failed = await other.result_backend.get_many(good.id, bad.id)
    assert found is not None
    assert failed is not None
    assert found.state is ResultState.SUCCESS
    with pytest.raises(ResultValueLost):
        await found.get()
    with pytest.raises(ResultFailed):
        await failed.get()


async def test_an_unfinished_job_does_not_expire(lab: Lab) -> None:
    app = await lab.working(result_ttl=timedelta(seconds=0.05), state_ttl=timedelta(hours=1), sweep_interval=timedelta(seconds=0.05))
    result = await app.submit(Request(name="x", delay=timedelta(hours=1), metadata={"a": 1}))
    await asyncio.sleep(0.3)
    assert await result.get_metadata() == {"a": 1}


async def test_results_know_themselves(app: App) -> None:
    @app.task
    async def mine(context: Context) -> str:
        result = await context.get_result()
        assert result.state == "RUNNING"
        assert result.id == context.request.id
        return str(result.id)

    result = await app.submit(mine)
    assert await soon(result) == str(result.id)
    found = await app.result_backend.get(result.id)
    assert found == result
    assert hash(found) == hash(result)
    assert str(result.id) in repr(result)


async def test_revoked_is_raised_at_the_caller(idle: App) -> None:
    result = await idle.submit(Request(name="none"))
    waiting = asyncio.ensure_future(result)
    await asyncio.sleep(0.01)
    await idle.revoke(result.id)
    with pytest.raises(Revoked) as caught:
        await soon(waiting)
    assert isinstance(caught.value, ResultFailed)
    assert caught.value.result.id == result.id
    await state_is(result, "REVOKED")
    assert result.revoked
    assert result.failed
    assert isinstance(await result.value.get_raw_value(), Revoked)


async def test_ids_may_be_texts(idle: App) -> None:
    result = await idle.submit(Request(name="nobody", metadata={"a": 1}))
    found = await idle.result_backend.get(str(result.id))
    assert found is not None and found.id == result.id
    assert await idle.result_backend.get_metadata(result.id.hex) == {"a": 1}
    assert (await idle.revoke(str(result.id))).revoked
    for wrong in ("garbage", 7):
        with pytest.raises(ValueError, match="UUID"):
            await idle.result_backend.get(wrong)  # type: ignore[arg-type]
