"""Tasks that submit tasks: slots, recursion, trees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mognet import App, Context, Request
from mognet.exceptions import ResultLost

from .conftest import Gate, Lab, soon, state_is


async def test_ten_levels_with_one_slot(narrow: App) -> None:
    @narrow.task
    async def down(context: Context, n: int) -> int:
        return 0 if n == 0 else 1 + await context.run(down, n - 1)

    assert await soon(narrow.run(down, 10)) == 10


async def test_ten_levels_of_def_tasks_with_one_slot(narrow: App) -> None:
    @narrow.task
    def down(context: Context, n: int) -> int:
        return 0 if n == 0 else 1 + context.call_threadsafe(context.run(down, n - 1))

    assert await soon(narrow.run(down, 10)) == 10


async def test_ten_levels_by_submit_and_gather_with_one_slot(narrow: App) -> None:
    @narrow.task
    async def down(context: Context, n: int) -> int:
        if n == 0:
            return 0
        return 1 + max(await context.gather(*[await context.submit(down, n - 1) for _ in range(2 if n < 4 else 1)]))

    @narrow.task
    async def awaiting(context: Context, n: int) -> int:
        return 0 if n == 0 else 1 + await (await context.submit(awaiting, n - 1))

    assert await soon(narrow.run(down, 10)) == 10
    assert await soon(narrow.run(awaiting, 10)) == 10


async def test_a_maximum_of_held_jobs_does_not_stop_recursion(lab: Lab) -> None:
    app = await lab.working(minimum_concurrency=1, maximum_concurrency=2)

    @app.task
    async def down(context: Context, n: int) -> int:
        return 0 if n == 0 else 1 + await context.run(down, n - 1)

    assert await soon(app.run(down, 10)) == 10


async def test_one_slot_runs_one_at_a_time(narrow: App) -> None:
    running = most = 0

    @narrow.task
    async def work(context: Context, n: int) -> None:
        nonlocal running, most
        for _ in range(2):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.002)
            running -= 1
            if n:
                await context.run(work, n - 1)

    await soon(asyncio.gather(*(narrow.run(work, 2) for _ in range(4))))
    assert most == 1


async def test_waiting_for_children_shows(narrow: App, gate: Gate) -> None:
    @narrow.task
    async def child() -> str:
        await gate.pass_through()
        return "value"

    @narrow.task
    async def parent(context: Context) -> Any:
        return await context.run(child)

    result = await narrow.submit(parent)
    await gate.arrived()
    await state_is(result, "SUSPENDED")
    assert (result.number_of_starts, result.number_of_stops) == (1, 1)
    gate.open()
    assert await soon(result) == "value"
    assert (result.number_of_starts, result.number_of_stops, result.unexpected_retry_count) == (2, 2, 0)
    assert [child.parent_id async for child in result.children.iter_instances()] == [result.id]


async def test_watching_a_child_with_one_slot(narrow: App) -> None:
    """While nothing is told, the slot is the child's."""

    @narrow.task
    async def child(context: Context) -> int:
        await context.progress(1, 2)
        return 1

    @narrow.task
    async def parent(context: Context) -> list[str]:
        result = await context.submit(child)
        told = [str(event.state) async for event in result.watch()]
        return [told[0], told[-1], str((await context.get_result()).state)]

    result = await narrow.submit(parent)
    assert await soon(result) == ["PENDING", "SUCCESS", "RUNNING"]
    assert result.unexpected_retry_count == 0


@pytest.mark.parametrize("keeps", [0.0, 0.05])
async def test_a_watch_of_a_child_loses_nothing_when_its_wait_is_given_up(
    narrow: App, gate: Gate, monkeypatch: pytest.MonkeyPatch, keeps: float
) -> None:
    """Nor does it keep the slot for ever, however soon each of its waits is given up."""
    monkeypatch.setattr("mognet.context.KEEPS_SLOT", keeps)

    @narrow.task
    async def child() -> None:
        await gate.pass_through()

    @narrow.task
    async def parent(context: Context) -> list[str]:
        told, events = [], (await context.submit(child)).watch()
        while True:
            try:
                async with asyncio.timeout(0.003):
                    told.append(str((await anext(events)).state))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return told

    result = await narrow.submit(parent)
    await gate.arrived()
    gate.open()
    assert (await soon(result))[-1] == "SUCCESS"


async def test_gather_in_order_by_results_and_ids(app: App) -> None:
    @app.task
    async def echo(n: int) -> int:
        await asyncio.sleep(0.01 * (3 - n))
        return n

    @app.task
    async def parent(context: Context) -> Any:
        first, second, third = [await context.submit(echo, n) for n in range(3)]
        both = await context.gather(first, second.id, third)
        assert await context.gather() == []
        return [both, await context.gather(third, first.id)]

    assert await soon(app.run(parent)) == [[0, 1, 2], [2, 0]]


async def test_gather_and_errors(app: App, gate: Gate) -> None:
    @app.task
    async def fail() -> None:
        raise KeyError("first")

    @app.task
    async def slow() -> int:
        await gate.pass_through()
        return 1

    @app.task
    async def good() -> int:
        return 2

    @app.task
    async def parent(context: Context) -> Any:
        bad, waits = await context.submit(fail), await context.submit(slow)
        with pytest.raises(KeyError, match="first"):
            await context.gather(bad, waits)
        gate.open()
        values = await context.gather(bad, waits, await context.submit(good), return_exceptions=True)
        lost = await context.submit(good)
        await lost.delete()
        with pytest.raises(ResultLost):
            await context.gather(lost.id)
        return [type(values[0]).__name__, *values[1:]]

    assert await soon(app.run(parent)) == ["KeyError", 1, 2]


async def test_a_childs_error_reaches_the_parent(app: App) -> None:
    @app.task
    async def child() -> None:
        raise KeyError("child")

    @app.task
    async def parent(context: Context) -> str:
        try:
            await context.run(child)
        except KeyError as error:
            return str(error.args[0])
        return "nothing"

    @app.task
    async def passing(context: Context) -> None:
        await context.run(child)

    assert await soon(app.run(parent)) == "child"
    with pytest.raises(KeyError, match="child"):
        await soon(app.run(passing))


async def test_deeper_than_max_recursion(lab: Lab) -> None:
    app = await lab.working(max_recursion=5)

    @app.task
    async def down(context: Context, n: int) -> int:
        return len(context.request.stack) if n == 0 else await context.run(down, n - 1)

    assert await soon(app.run(down, 5)) == 5
    with pytest.raises(RecursionError, match="max_recursion"):
        await soon(app.run(down, 6))


async def test_a_task_without_end_is_stopped_by_max_recursion(narrow: App) -> None:
    @narrow.task
    async def for_ever(context: Context) -> None:
        await context.run(for_ever)

    with pytest.raises(RecursionError):
        await soon(narrow.run(for_ever))


async def test_the_stack_is_known(app: App) -> None:
    @app.task
    async def leaf(context: Context) -> list[str]:
        return [str(id) for id in context.request.stack]

    @app.task
    async def middle(context: Context) -> list[str]:
        assert context.id == context.request.id
        return [str(context.id), *await context.run(leaf)]

    @app.task
    async def top(context: Context) -> list[str]:
        return [str(context.id), *await context.run(middle)]

    result = await app.submit(top)
    top_id, middle_id, *stack = await soon(result)
    assert stack == [top_id, middle_id]
    assert top_id == str(result.id)


async def test_children_by_request(app: App) -> None:
    @app.task(name="echo")
    async def echo(value: str) -> str:
        return value

    @app.task
    async def parent(context: Context) -> Any:
        request = context.create_request(echo, "a")
        request.metadata["who"] = "child"
        first = await context.submit(request)
        assert (await first.get_metadata()) == {"who": "child"}
        return [await first, await context.run(Request[str](name="echo", args=("b",))), await context.run(echo, "c")]

    assert await soon(app.run(parent)) == ["a", "b", "c"]


async def test_call_threadsafe(app: App) -> None:
    @app.task
    def work(context: Context) -> list[Any]:
        async def plain(n: int) -> int:
            await asyncio.sleep(0)
            return n

        async def bad() -> None:
            raise KeyError("inside")

        with pytest.raises(KeyError, match="inside"):
            context.call_threadsafe(bad())
        context.call_threadsafe(context.state.set("a", 1))
        return [context.call_threadsafe(plain(5)), context.call_threadsafe(context.state.get("a"))]

    assert await soon(app.run(work)) == [5, 1]


async def test_def_tasks_run_side_by_side(app: App) -> None:
    import threading

    barrier = threading.Barrier(8)
    threads: set[int] = set()

    @app.task
    def work() -> None:
        threads.add(threading.get_ident())
        barrier.wait(10)

    await soon(asyncio.gather(*(app.run(work) for _ in range(8))))
    assert len(threads) == 8
    assert threading.get_ident() not in threads
