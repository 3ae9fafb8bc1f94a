"""SAQ on Redis, or on PostgreSQL.

Settings, and why:

- There is no bulk call: a hundred ``enqueue`` are gathered. Waiting is by its own signals.
- 20 jobs at a time, twice the default. Results are kept for ten minutes, which is its default too.
- PostgreSQL: psycopg with its C part.
- Not done: on Redis a job that was running is looked for once a minute, and only its own timeout says that it was lost.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from beside import LINE, PLACE, Peer, main, tick
from saq import Job, Queue, Worker

logging.disable(logging.INFO)
SLOTS = int(os.environ.get("BENCH_MORE", "20"))


async def noop(context: object) -> None:
    tick()


class Saq(Peer):
    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        self.queue = Queue.from_url(PLACE, name=LINE)
        await self.queue.connect()
        yield
        await self.queue.disconnect()

    async def one(self) -> object:
        return await self.queue.enqueue(Job("noop", ttl=600))

    async def many(self, number: int) -> None:
        for _ in range(0, number, 100):
            await asyncio.gather(*(self.one() for _ in range(100)))

    async def ask(self) -> None:
        await self.queue.apply("noop", timeout=20, poll_interval=0)

    def work(self, measure: str) -> None:
        async def work() -> None:
            async with self.connected():
                await Worker(self.queue, [("noop", noop)], concurrency=SLOTS).start()

        asyncio.run(work())

    def ended(self, total: int) -> bool:
        if PLACE.startswith("redis"):
            from redis import Redis

            self.client = getattr(self, "client", None) or Redis.from_url(PLACE)
            return self.client.zcard(f"saq:{LINE}:incomplete") == 0
        import psycopg

        self.client = getattr(self, "client", None) or psycopg.connect(PLACE, autocommit=True)
        return not self.client.execute("SELECT 1 FROM saq_jobs WHERE status <> 'complete' LIMIT 1").fetchall()


if __name__ == "__main__":
    main(Saq())
