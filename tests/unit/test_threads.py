from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from mognet.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads()
    yield threads
    threads.close()


async def test_work_never_waits_behind_other_work(threads: Threads) -> None:
    """Each piece needs the next one to have begun: if one waited for another's thread, none would end."""
    for _ in range(50):
        barrier = threading.Barrier(3)
        await asyncio.gather(*[threads.run(barrier.wait, 10) for _ in range(3)])


async def test_threads_are_used_again(threads: Threads) -> None:
    names = set()
    for _ in range(20):
        names.add(await threads.run(lambda: threading.current_thread().name))
        time.sleep(0.002)  # the thread is idle a moment after its function's end
    assert len(names) <= 3


async def test_errors_arrive(threads: Threads) -> None:
    def fail(error: BaseException) -> None:
        raise error

    for error in (ValueError("x"), SystemExit(3), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            await threads.run(fail, error)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(fail, StopIteration(1))


async def test_cancelling_stops_the_waiting_and_not_the_function(threads: Threads) -> None:
    begun, end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(10)
        ended.set()

    task = asyncio.create_task(threads.run(work))
    while not begun.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    end.set()
    assert ended.wait(10)


async def test_a_thread_whose_function_returns_after_the_end_goes_too(threads: Threads) -> None:
    end = threading.Event()
    task = asyncio.create_task(threads.run(end.wait, 10))
    await asyncio.sleep(0)
    threads.close()
    end.set()
    assert await task  # the leak checker sees the rest
