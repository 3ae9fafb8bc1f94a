"""aiormq, and a store: a job is a persistent message with a confirm; a consumer brings it, the store gets its result, then an ack."""

import asyncio
from typing import Any, Protocol, cast
from uuid import uuid4

import aiormq
from aiormq import spec
from aiormq.abc import DeliveredMessage

from benchmarks.raw.common import BATCH, LANES, Client, arguments, main

PREFETCH = 2 * LANES * BATCH
QUEUES = ("raw", "asked")


class Store(Protocol):
    """Where results go: one of the other raw clients."""

    async def __aenter__(self) -> "Store": ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def keep(self, lane: int, ids: list[str]) -> None: ...
    async def keep_and_tell(self, id: str) -> None: ...
    async def listen(self, channel: str) -> None: ...
    async def told(self, id: str) -> None: ...


class Connection(aiormq.connection.Connection):
    FRAME_BUFFER_SIZE = 16_384  # with the library's 10, each publish waits for the last one's write


class RawRabbitMQ:
    def __init__(self, broker: str, store: Store, queue_type: str) -> None:
        self._broker = broker
        self._store = store
        self._arguments = {"x-queue-type": queue_type}
        self._come: dict[str, asyncio.Queue[DeliveredMessage]] = {}

    async def __aenter__(self) -> "RawRabbitMQ":
        await self._store.__aenter__()
        self._connection = Connection(self._broker)
        await self._connection.connect()
        self._lanes = [await self._connection.channel(publisher_confirms=True, frame_buffer_size=1000) for _ in range(LANES)]
        self._taking = await self._connection.channel(publisher_confirms=False)
        await self._taking.basic_qos(prefetch_count=PREFETCH)
        for queue in QUEUES:
            await self._taking.queue_declare(queue, durable=True, arguments=cast("dict[str, Any]", self._arguments))
        await self._taking.queue_purge("raw")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._connection.close()
        await self._store.__aexit__(*exc)

    async def give(self, lane: int, number: int) -> None:
        await asyncio.gather(*(self._publish(lane, "raw", uuid4().hex, each) for each in range(number)))

    async def _publish(self, lane: int, queue: str, id: str, number: int = 0) -> None:
        properties, body = spec.Basic.Properties(delivery_mode=2, message_id=id), arguments(number)
        await self._lanes[lane].basic_publish(body, routing_key=queue, properties=properties, mandatory=True, wait=False)

    async def take(self, lane: int, number: int) -> int:
        messages = await self._pull("raw", number)
        await self._store.keep(lane, [message.header.properties.message_id or "" for message in messages])
        for message in messages:
            await self._taking.basic_ack(message.delivery_tag or 0, wait=False)
        return len(messages)

    async def _pull(self, queue: str, number: int) -> list[DeliveredMessage]:
        if queue not in self._come:
            come = self._come[queue] = asyncio.Queue()

            async def arrived(message: DeliveredMessage) -> None:
                come.put_nowait(message)

            await self._taking.basic_consume(queue, arrived)
        come = self._come[queue]
        messages = [await come.get()]
        while len(messages) < number and not come.empty():
            messages.append(come.get_nowait())
        return messages

    async def ask(self, id: str) -> None:
        await self._store.listen("told")
        await self._publish(0, "asked", id)
        await self._store.told(id)

    async def serve(self) -> None:
        while True:
            for message in await self._pull("asked", 1):
                await self._store.keep_and_tell(message.header.properties.message_id or "")
                await self._taking.basic_ack(message.delivery_tag or 0, wait=False)


def make(place: str) -> Client:
    broker, store = place.split(",")
    broker, _, options = broker.partition("?")
    kept: Store
    if store.startswith("redis"):
        from benchmarks.raw.redis import RawRedis

        kept = RawRedis(store)
    else:
        from benchmarks.raw.postgres import RawPostgres

        kept = RawPostgres(store)
    return RawRabbitMQ(broker, kept, "quorum" if "queue_type=quorum" in options else "classic")


if __name__ == "__main__":
    main(make)
