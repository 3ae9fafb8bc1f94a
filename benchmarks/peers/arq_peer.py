"""arq on Redis.

Settings, and why:

- Tasks run at least once, always. A job's end, its result and its removal are one transaction.
- There is no bulk call: a hundred ``enqueue_job`` are gathered.
- 100 jobs at a time; 10, 50 and 300 take as much of the processor. The queue is looked at every 10 ms, which the default, 0.5 s, would make
  the round trip; the idle worker has the default. Results are asked for every millisecond.
- Not done: a job is claimed by itself, in two round trips, and no order but that of time.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker
from beside import LINE, PLACE, Peer, main, tick
from redis import Redis

SETTINGS = RedisSettings.from_dsn(PLACE)
JOBS = int(os.environ.get("BENCH_MORE", "100"))

redis = Redis.from_url(PLACE)


async def noop(context: object) -> None:
    tick()


class Arq(Peer):
    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        self.pool = await create_pool(SETTINGS, default_queue_name=LINE)
        yield
        await self.pool.aclose()

    async def one(self) -> object:
        return await self.pool.enqueue_job("noop")

    async def many(self, number: int) -> None:
        for _ in range(0, number, 100):
            await asyncio.gather(*(self.one() for _ in range(100)))

    async def ask(self) -> None:
        job = await self.pool.enqueue_job("noop")
        await job.result(timeout=20, poll_delay=0.001)

    def work(self, measure: str) -> None:
        Worker(
            [func(noop, name="noop")],
            queue_name=LINE,
            redis_settings=SETTINGS,
            max_jobs=JOBS,
            poll_delay=0.5 if measure == "idle" else 0.01,
        ).run()

    def ended(self, total: int) -> bool:
        return redis.zcard(LINE) == 0


if __name__ == "__main__":
    main(Arq())
