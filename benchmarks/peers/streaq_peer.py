"""streaQ on Redis.

Settings, and why:

- Streams, acknowledged with the result in one transaction: at least once.
- ``enqueue_many``, a thousand in one pipeline. It is not all or none.
- 32 tasks at a time, twice the default; 16 and 100 take more of the processor.
- The number of results is asked by ``redis-cli``: its client is not redis-py.
"""

import logging
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from beside import LINE, PLACE, Peer, main, tick
from streaq import Worker

logging.disable(logging.INFO)
SLOTS = int(os.environ.get("BENCH_MORE", "32"))

worker = Worker(redis_url=PLACE, queue_name=LINE, concurrency=SLOTS)


@worker.task(ttl=600, silent=True)
async def noop() -> None:
    tick()


class Streaq(Peer):
    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        async with worker:
            yield

    async def one(self) -> object:
        return await noop.enqueue()

    async def many(self, number: int) -> None:
        for _ in range(0, number, 1000):
            await worker.enqueue_many([noop.enqueue() for _ in range(1000)])

    async def ask(self) -> None:
        task = await noop.enqueue()
        await task.result(20)

    def work(self, measure: str) -> None:
        worker.run_sync()

    def ended(self, total: int) -> bool:
        call = ["redis-cli", "-u", PLACE, "zcard", f"streaq:{LINE}:index:results"]
        return int(subprocess.run(call, capture_output=True, check=True).stdout) >= total


if __name__ == "__main__":
    main(Streaq())
