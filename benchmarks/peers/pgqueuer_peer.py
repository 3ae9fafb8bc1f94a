"""PgQueuer on PostgreSQL, with asyncpg.

Settings, and why:

- At least once; all tables are logged, its default (``durable``). Lists of a thousand are enqueued by one statement.
- Batches of 100 for the burst. Ends are stored with others, a batch at a time or every 100 ms, so for the round trip batches are of one.
- The round trip is until its ``CompletionWatcher`` tells; it waits for a millisecond only (50 by default).
- Not done: what a task returns is not stored; of an end there is a line in its log.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import psycopg
from beside import PLACE, Peer, main, tick
from pgqueuer import AsyncpgDriver, PgQueuer, Queries
from pgqueuer.core.completion import CompletionWatcher

logging.disable(logging.WARNING)
BATCH = int(os.environ.get("BENCH_MORE", "100"))


class Pgqueuer(Peer):
    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        self.driver = AsyncpgDriver(await asyncpg.connect(PLACE))
        self.queries = Queries(self.driver)
        if not await self.queries.schema_is_installed():
            await self.queries.install()
        yield

    async def one(self) -> object:
        return await self.queries.enqueue("noop", None)

    async def many(self, number: int) -> None:
        for _ in range(0, number, 1000):
            await self.queries.enqueue(["noop"] * 1000, [None] * 1000, [0] * 1000)

    async def ask(self) -> None:
        if not hasattr(self, "watcher"):
            listener = AsyncpgDriver(await asyncpg.connect(PLACE))
            watcher = CompletionWatcher(listener, queries=Queries(listener), debounce=timedelta(milliseconds=1))
            self.watcher = await watcher.__aenter__()
        [job] = await self.queries.enqueue("noop", None)
        await self.watcher.wait_for(job)

    def work(self, measure: str) -> None:
        async def work() -> None:
            worker = PgQueuer(AsyncpgDriver(await asyncpg.connect(PLACE)))

            @worker.entrypoint("noop")
            async def noop(job: object) -> None:
                tick()

            await worker.run(batch_size=1 if measure == "trip" else BATCH)

        asyncio.run(work())

    def ended(self, total: int) -> bool:
        self.client = getattr(self, "client", None) or psycopg.connect(PLACE, autocommit=True)
        return not self.client.execute("SELECT 1 FROM pgqueuer LIMIT 1").fetchall()


if __name__ == "__main__":
    main(Pgqueuer())
