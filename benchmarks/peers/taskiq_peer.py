"""taskiq on Redis streams, or on RabbitMQ, with results in Redis.

Settings, and why:

- ``RedisStreamBroker``: the only one of its Redis brokers that is at least once. Acknowledged when the result is saved, its default.
- On RabbitMQ publishes are persistent and confirmed, its default, and a worker has 200 messages at once.
- There is no bulk call: a hundred ``kiq`` are gathered.
- One worker process takes less of the processor for a task than two (0.6 ms to 0.75), and is as fast on two cores that the server and
  the peer share. Prefetching more, or not parsing parameters, changed nothing.
- Results are asked for every millisecond (its default is 200 ms); there is nothing that tells of them.
- Not done: a result and its acknowledgement are not one step, and a worker's unfinished tasks start again after ten minutes.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from beside import LINE, PLACE, Peer, main, tick
from redis import Redis
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

BROKER, _, STORE = PLACE.rpartition(",")
RESULTS = STORE.removesuffix("/0") + "/1"
results = Redis.from_url(RESULTS)

backend = RedisAsyncResultBackend(RESULTS, serializer=ORJSONSerializer(), result_ex_time=600, max_connection_pool_size=100)
if BROKER:
    from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

    broker = AioPikaBroker(BROKER, qos=200, exchange=Exchange(name=LINE), task_queues=[Queue(name=LINE, routing_key=LINE)])
else:
    broker = RedisStreamBroker(STORE, queue_name=LINE, consumer_id="0", max_connection_pool_size=100)
broker = broker.with_result_backend(backend)


@broker.task(task_name="noop")
async def noop() -> None:
    tick()


class Taskiq(Peer):
    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        await broker.startup()
        yield
        await broker.shutdown()

    async def one(self) -> object:
        return await noop.kiq()

    async def many(self, number: int) -> None:
        for _ in range(0, number, 100):
            await asyncio.gather(*(noop.kiq() for _ in range(100)))

    async def ask(self) -> None:
        task = await noop.kiq()
        await task.wait_result(check_interval=0.001, timeout=20)

    def work(self, measure: str) -> None:
        os.chdir(Path(__file__).parent)
        command = [sys.executable, "-m", "taskiq", "worker", "taskiq_peer:broker", "--log-level", "WARNING"]
        os.execv(sys.executable, [*command, *os.environ.get("BENCH_MORE", "--workers 1").split()])

    def ended(self, total: int) -> bool:
        return results.dbsize() >= total


if __name__ == "__main__":
    main(Taskiq())
