"""RabbitMQ over each store, for tests: one private node for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from mognet.engine import Engine
from mognet.engines.paired import Paired
from mognet.engines.rabbitmq.broker import RabbitMQBroker
from mognet.engines.rabbitmq.settings import Settings, queue_name, read_urls
from mognet.engines.rabbitmq.wire import Wire
from mognet.testing.conformance import APP, Harness
from servers.rabbitmq import shared_rabbitmq


class PairHarness(Harness):
    """Tickets over RabbitMQ, under a name of its own, and jobs in another harness's store."""

    own_line = False

    def __init__(self, store: Harness, url: str, *, exact: bool = True) -> None:
        self.store = store
        self.settings: Settings = read_urls(url)
        self.exact = exact
        self.most_queues = 30  # the broker makes each of them, and one test with hundreds tells as much as five
        self.fake_clock, self.unit, self.patience = store.fake_clock, store.unit, store.patience
        self.prefix = uuid4().hex
        self.opened: list[tuple[str, Paired]] = []

    def open(self, app: str = APP) -> Engine:
        broker = RabbitMQBroker(self.settings, f"{self.prefix}-{app}")
        pair = Paired(broker, self.store.open(app), exact=self.exact)
        self.opened.append((f"{self.prefix}-{app}", pair))
        return pair

    async def advance(self, seconds: float) -> None:
        await self.store.advance(seconds)

    async def leftovers(self) -> Mapping[str, int]:
        return await self.store.leftovers()  # stale tickets go when they are pulled: see `delete_queues`

    async def delete_queues(self) -> dict[str, int]:
        """Delete the queues; answer what was in them."""
        names = {queue_name(app, queue) for app, pair in self.opened for queue in pair._queues}
        found = {}
        wire = Wire(self.settings.addresses[0], self.settings, None, "cleaner")
        await wire.connect()
        channel = await wire.channel()
        for name in sorted(names):
            deleted = await channel.queue_delete(name)
            found[name] = deleted.message_count or 0
        await wire.close()
        return found


def pairs(stores: Mapping[str, Callable[[Path], Harness]]) -> dict[str, Callable[[Path], PairHarness]]:
    """A pair with each of these stores."""

    def pair(make: Callable[[Path], Harness]) -> Callable[[Path], PairHarness]:
        return lambda folder: PairHarness(make(folder), shared_rabbitmq())

    return {f"rabbitmq+{name}": pair(make) for name, make in stores.items()}
