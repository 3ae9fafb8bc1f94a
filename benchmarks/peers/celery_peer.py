"""Celery on Redis, or on RabbitMQ, with results in Redis.

Settings, and why:

- ``acks_late``: at least once. On RabbitMQ with ``confirm_publish``, so that a message that was sent is stored.
- It is not asyncio. There is no bulk call: one producer is kept for all messages, the quickest of its ways.
- The pool is ``solo``: 0.8 to 0.9 ms of the processor for a task, prefork and threads 1.1 to 1.3, and not faster.
- 100 messages at once. No gossip, mingle and heartbeats among workers. Results are waited for by Redis's signals, its default.
- Not done: a result and its acknowledgement are not one step; on Redis what a killed worker had starts again after an hour.
"""

import os

from beside import LINE, PLACE, Peer, main, tick
from celery import Celery
from redis import Redis

BROKER, _, STORE = PLACE.rpartition(",")
RESULTS = STORE.removesuffix("/0") + "/1"
BATCH = 1000

app = Celery("bench", broker=BROKER or STORE, backend=RESULTS)
app.conf.update(
    task_default_queue=LINE,
    task_acks_late=True,
    worker_prefetch_multiplier=100,
    worker_hijack_root_logger=False,
    result_expires=600,
    broker_transport_options={"confirm_publish": True} if BROKER else {},
)
results = Redis.from_url(RESULTS)


@app.task(name="noop")
def noop() -> None:
    tick()


class CeleryPeer(Peer):
    async def one(self) -> object:
        return noop.delay()

    async def many(self, number: int) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(number):
                noop.apply_async(producer=producer)

    async def ask(self) -> None:
        noop.delay().get(timeout=20)

    def work(self, measure: str) -> None:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        more = os.environ.get("BENCH_MORE", "--pool solo").split()
        app.worker_main(["worker", "--loglevel", "WARNING", *quiet, *more])

    def ended(self, total: int) -> bool:
        return results.dbsize() >= total


if __name__ == "__main__":
    main(CeleryPeer())
