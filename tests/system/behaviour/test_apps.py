"""Apps and workers: their life, their queues, their nodes."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mognet import App, AppConfig, Context, Request
from mognet.exceptions import BrokerError, ImproperlyConfigured, NotConnected, QueueNotFound

from .conftest import Gate, Lab, nothing_runs, soon, state_is, until, works


async def test_connect_and_close(lab: Lab) -> None:
    app = lab.app()
    assert app.worker is None
    async with app as entered:
        assert entered is app
        await app.connect()
        result = await app.submit(Request(name="none"))
        assert app.worker is None
    with pytest.raises(NotConnected):
        await app.submit(Request(name="none"))
    await app.close()
    await app.connect()
    assert await app.result_backend.get(result.id) is not None
    await app.close()


async def test_start_returns_when_closed(lab: Lab) -> None:
    app = lab.app()
    start = asyncio.ensure_future(app.start())
    await lab.start(lab.app())
    await works(app)
    with pytest.raises(ImproperlyConfigured, match="running"):
        await app.start()
    await app.close()
    assert await soon(start) is None
    assert app.worker is None


async def test_close_hands_back_what_runs(lab: Lab, gate: Gate) -> None:
    app = await lab.working()

    @app.task(name="work")
    async def work(context: Context) -> str:
        await gate.pass_through()
        return "value"

    result = await app.submit(work)
    await gate.arrived()
    await soon(app.close())
    assert gate.cancelled
    other = await lab.connected()
    found = await other.result_backend.get(result.id)
    assert found is not None
    assert (found.state, found.number_of_starts, found.number_of_stops) == ("SUSPENDED", 1, 1)
    gate.open()
    await lab.start(app)
    assert await soon(other.result_backend.wait(result.id)) is not None
    found = await other.result_backend.get(result.id)
    assert found is not None
    assert (found.state, found.number_of_starts, found.unexpected_retry_count) == ("SUCCESS", 2, 0)


async def test_stop_lets_tasks_finish(lab: Lab, gate: Gate) -> None:
    app = await lab.connected()
    start = await lab.start(app)

    @app.task(name="work")
    async def work() -> str:
        await gate.pass_through()
        return "value"

    result = await app.submit(work)
    await gate.arrived()
    stopping = asyncio.ensure_future(app.stop(grace=20))
    await asyncio.sleep(0.05)
    later = await app.submit(work)
    await asyncio.sleep(0.05)
    assert not stopping.done()
    gate.open()
    await soon(stopping)
    await soon(start)
    assert await soon(result) == "value"
    await state_is(later, "PENDING")


async def test_max_tasks(lab: Lab) -> None:
    app = lab.app(max_tasks=3, minimum_concurrency=2)
    runs: list[int] = []

    @app.task(name="work")
    async def work(n: int) -> None:
        runs.append(n)

    await app.connect()
    await app.submit_many([Request[None](name="work", args=(n,)) for n in range(6)])
    await soon(await lab.start(app))
    assert sorted(runs) == [0, 1, 2]
    await soon(await lab.start(app))
    assert app.worker is None
    assert sorted(runs) == [0, 1, 2, 3, 4, 5]


async def test_burst(lab: Lab) -> None:
    app = await lab.connected()
    runs: list[int] = []

    @app.task(name="work")
    async def work(context: Context, n: int) -> None:
        await asyncio.sleep(0.001)
        runs.append(n)
        if n > 0:
            await context.submit(work, n - 1)

    await soon(app.start(burst=True))
    await app.submit_many([Request[None](name="work", args=(n,)) for n in range(5)])
    await app.submit(Request(name="work", args=(9,), delay=timedelta(hours=1)))
    await soon(app.start(burst=True))
    assert len(runs) == 5 + 4 + 3 + 2 + 1
    assert app.worker is None


def test_one_app_in_many_event_loops(url: str) -> None:
    app = App("loops", AppConfig(), url=url)

    @app.task(name="work")
    async def work(n: int) -> int:
        return n

    async def use(n: int) -> int:
        async with app:
            start = asyncio.ensure_future(app.start())
            await works(app)
            value = await soon(app.run(work, n))
        await soon(start)
        return value

    assert [asyncio.run(use(n)) for n in range(4)] == [0, 1, 2, 3]


async def test_nothing_is_left_after_close(url: str, tmp_path: Path) -> None:
    """The leak checker sees to it; here is much to leave behind."""
    app = App("leaks", AppConfig(), url=url)
    release = threading.Event()

    @app.task(name="blocks")
    def blocks() -> None:
        release.wait(20)

    @app.task(name="parent")
    async def parent(context: Context) -> None:
        await context.gather(*[await context.submit(blocks) for _ in range(3)])

    start = asyncio.ensure_future(app.start())
    await works(app)
    result = await app.submit(parent)
    waits = [asyncio.ensure_future(result.wait()) for _ in range(5)]
    await state_is(result, "SUSPENDED")
    await soon(app.close())
    await soon(start)
    for wait in waits:
        with pytest.raises(NotConnected):
            await wait
    release.set()


async def test_names_and_urls_that_make_no_sense(tmp_path: Path) -> None:
    for name in ("", "a\0b", "x" * 101):
        with pytest.raises(ImproperlyConfigured, match="name"):
            App(name)
    with pytest.raises(ImproperlyConfigured, match="nonsense"):
        await App("x", url="nonsense://secret:word@host").connect()


async def test_without_a_url_it_is_a_file_at_the_project_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    async with App("mine") as app:
        await app.submit(Request(name="none"))
    assert (tmp_path / ".mognet" / "mine.db").is_file()
    assert (tmp_path / ".mognet" / ".gitignore").read_text().strip() == "*"
    assert list(deep.iterdir()) == []


async def test_apps_of_different_names_do_not_meet(lab: Lab) -> None:
    one, two = await lab.connected("one"), await lab.connected("two")
    result = await one.submit(Request(name="none"))
    assert await two.result_backend.get(result.id) is None
    twin = await lab.connected("one")
    assert await twin.result_backend.get(result.id) is not None


async def test_imports(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks_of_mine.py").write_text("from mognet import task\n@task(name='imported')\ndef imported() -> int:\n    return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tasks_of_mine", raising=False)
    app = await lab.working(imports=["tasks_of_mine"])
    assert await soon(app.run(Request(name="imported"))) == 7
    with pytest.raises(ImproperlyConfigured, match="no_such_module"):
        await lab.app(imports=["no_such_module"]).connect()


# queues and nodes


async def test_queue_stats(lab: Lab) -> None:
    app = await lab.connected()
    for _ in range(3):
        await app.submit(Request(name="none"))
    stats = await app.queue_stats("tasks")
    assert (stats.message_count, stats.consumer_count) == (3, 0)
    with pytest.raises(QueueNotFound, match="nowhere") as caught:
        await app.queue_stats("nowhere")
    assert isinstance(caught.value, BrokerError)
    worker = await lab.working(task_queues={"include": {"tasks", "other"}})

    async def is_heard() -> bool:  # a worker that has just begun may not listen yet
        return bool([node async for node in app.get_current_status_of_nodes(timeout=0.1)])

    await until(is_heard)
    assert (await app.queue_stats("other")).consumer_count == 1
    await worker.close()


async def test_purging(lab: Lab) -> None:
    app = await lab.connected(task_routes={"b": "second"})
    kept = await app.submit(Request(name="a", queue_name="elsewhere"))
    gone = await app.submit_many([Request(name=name) for name in ("a", "a", "b", "a")])
    assert await app.purge_task_queues() == {"tasks": 3, "second": 1}
    assert await app.result_backend.get_many(*(each.id for each in gone)) == [None] * 4
    assert await app.result_backend.get(kept.id) is not None
    assert await app.purge_task_queues() == {"tasks": 0, "second": 0}
    assert await app.purge_control_queue() == 0


async def test_nodes(lab: Lab, gate: Gate) -> None:
    one, two = await lab.working(node_id="one"), await lab.working(node_id="two")
    asking = await lab.connected()

    async def work() -> None:
        await gate.pass_through()

    for app in (one, two):
        app.task(name="work")(work)
    results = [await asking.submit(Request(name="work")) for _ in range(4)]
    await gate.arrived(4)
    nodes = {node.node_id: node.payload.running_request_ids async for node in asking.get_current_status_of_nodes(timeout=0.3)}
    assert set(nodes) == {"one", "two"}
    assert {id for ids in nodes.values() for id in ids} == {result.id for result in results}
    assert one.worker is not None
    assert two.worker is not None
    assert set(one.worker.running_tasks) | set(two.worker.running_tasks) == {result.id for result in results}
    gate.open()
    await nothing_runs(one)
    await nothing_runs(two)


def test_including_and_excluding_queues() -> None:
    with pytest.raises(ValueError, match="included or excluded"):
        AppConfig(task_queues={"include": {"a"}, "exclude": {"b"}})  # type: ignore[arg-type]


async def test_two_workers_share_the_work(lab: Lab) -> None:
    apps = [await lab.working(node_id=f"node{n}", minimum_concurrency=5) for n in range(3)]
    runs: list[int] = []

    async def work(n: int) -> int:
        await asyncio.sleep(0.001)
        runs.append(n)
        return n

    for app in apps:
        app.task(name="work")(work)
    results = await apps[0].submit_many([Request[int](name="work", args=(n,)) for n in range(200)])
    assert await soon(asyncio.gather(*results)) == list(range(200))
    assert sorted(runs) == list(range(200))
    assert len({result.node_id for result in results}) == 3


async def test_concurrent_connects_open_one_engine(lab: Lab) -> None:
    app = lab.app()
    calls: list[Coroutine[Any, Any, None]] = [app.connect() for _ in range(5)]
    await soon(asyncio.gather(*calls))
    await app.submit(Request(name="none"))
