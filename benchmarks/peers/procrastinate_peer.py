"""Procrastinate on PostgreSQL.

Settings, and why:

- At least once; jobs stay in the table with their state. ``batch_defer_async``, a thousand in one statement.
- 20 jobs at a time, and as many connections. psycopg with its C part. Notifications are on, its default.
- Not done: what a task returns is not stored, so the round trip is until the job's state says that it succeeded,
  asked for every millisecond.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from beside import LINE, PLACE, Peer, main, tick
from procrastinate import App, PsycopgConnector
from procrastinate.jobs import Status

logging.disable(logging.INFO)
SLOTS = int(os.environ.get("BENCH_MORE", "20"))

app = App(connector=PsycopgConnector(conninfo=PLACE, min_size=SLOTS, max_size=SLOTS))


@app.task(name="noop", queue=LINE)
async def noop() -> None:
    tick()


class Procrastinate(Peer):
    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        async with app.open_async():
            [row] = await app.connector.execute_query_all_async("SELECT to_regclass('procrastinate_jobs') IS NULL AS missing")
            if row["missing"]:
                await app.schema_manager.apply_schema_async()
            yield

    async def one(self) -> object:
        return await noop.defer_async()

    async def many(self, number: int) -> None:
        for _ in range(0, number, 1000):
            await noop.batch_defer_async(*({} for _ in range(1000)))

    async def ask(self) -> None:
        job = await noop.defer_async()
        while await app.job_manager.get_job_status_async(job) is not Status.SUCCEEDED:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)

    def work(self, measure: str) -> None:
        async def work() -> None:
            async with self.connected():
                await app.run_worker_async(queues=[LINE], concurrency=SLOTS)

        asyncio.run(work())

    def ended(self, total: int) -> bool:
        self.client = getattr(self, "client", None) or psycopg.connect(PLACE, autocommit=True)
        return not self.client.execute("SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1").fetchall()


if __name__ == "__main__":
    main(Procrastinate())
