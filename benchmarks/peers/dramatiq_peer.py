"""dramatiq on Redis, or on RabbitMQ, with results in Redis.

Settings, and why:

- Acknowledged late, always: at least once. On RabbitMQ with ``confirm_delivery``, so that a message that was sent is stored.
- It is not asyncio. There is no bulk call: messages are sent one by one.
- One process with eight threads, its default; two and four threads, and two processes, are slower and take more of the processor.
- Results are waited for by Redis (``BRPOPLPUSH``). Logging is off.
- Not done: a result and its acknowledgement are not one step.
"""

import os
import sys
from pathlib import Path

import dramatiq
from beside import LINE, PLACE, Peer, main, tick
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

BROKER, _, STORE = PLACE.rpartition(",")
RESULTS = STORE.removesuffix("/0") + "/1"

if BROKER:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=BROKER, confirm_delivery=True)
else:
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=STORE)
broker.add_middleware(Results(backend=RedisBackend(url=RESULTS)))
dramatiq.set_broker(broker)
results = Redis.from_url(RESULTS)


@dramatiq.actor(queue_name=LINE, store_results=True)
def noop() -> None:
    tick()


class Dramatiq(Peer):
    async def one(self) -> object:
        return noop.send()

    async def ask(self) -> None:
        noop.send().get_result(block=True, timeout=20_000)

    def work(self, measure: str) -> None:
        os.chdir(Path(__file__).parent)
        more = os.environ.get("BENCH_MORE", "--processes 1 --threads 8").split()
        os.execv(sys.executable, [sys.executable, "-m", "dramatiq", "dramatiq_peer", "--skip-logging", *more])

    def ended(self, total: int) -> bool:
        return results.dbsize() >= total


if __name__ == "__main__":
    main(Dramatiq())
