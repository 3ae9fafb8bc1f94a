"""The broker on a real RabbitMQ: what it carries, in which order, and what it makes of trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import App, AppConfig
from mognet.engine import Broker
from mognet.engines.rabbitmq import session as session_module
from mognet.engines.rabbitmq.broker import RabbitMQBroker
from mognet.engines.rabbitmq.settings import queue_arguments, queue_name, read_urls, read_version, wire_priority
from mognet.engines.rabbitmq.wire import Wire, spec
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.records import Delivery, Ticket
from servers.rabbitmq import shared_rabbitmq

LOST = "amqp://nobody:canary@127.0.0.1:1/"


class Lab:
    """Brokers of one app, and a look behind them."""

    def __init__(self, url: str) -> None:
        self.settings = read_urls(url)
        self.app = uuid4().hex
        self.opened: list[RabbitMQBroker] = []
        self.queues = {"q"}

    async def broker(self, **changes: Any) -> RabbitMQBroker:
        broker = await RabbitMQBroker(replace(self.settings, **changes), self.app).__aenter__()
        self.opened.append(broker)
        return broker

    async def raw(self) -> tuple[Wire, Any]:
        wire = Wire(self.settings.addresses[0], self.settings, None, "raw")
        await wire.connect()
        return wire, await wire.channel()

    async def close(self) -> None:
        for broker in self.opened:
            await broker.__aexit__(None, None, None)
        wire, channel = await self.raw()
        for queue in self.queues:
            await channel.queue_delete(queue_name(self.app, queue))
        await wire.close()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(await asyncio.to_thread(shared_rabbitmq))
    yield lab
    await lab.close()


@pytest.fixture
async def broker(lab: Lab) -> RabbitMQBroker:
    return await lab.broker()


def tickets(number: int, queue: str = "q", priority: int = 5) -> list[Ticket]:
    return [Ticket(uuid4(), queue, priority) for _ in range(number)]


def ids(found: list[Delivery] | list[Ticket]) -> list[UUID]:
    return [each.ticket.id if isinstance(each, Delivery) else each.id for each in found]


# --- URLs and names


def test_urls() -> None:
    settings = read_urls(["amqp://a", "amqps://u:p%40ss@b:99/v%2Fh?queue_type=quorum&order=exact&heartbeat=30"])
    assert settings.addresses[0] == ("a", 5672, "guest", "guest", "/", False)
    assert settings.addresses[1] == ("b", 99, "u", "p@ss", "v/h", True)
    assert (settings.queue_type, settings.exact_order, settings.heartbeat) == ("quorum", True, 30)
    assert "p@ss" not in settings.addresses[1].shown


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://u:canary@a", "amqp://"),
        ("amqp://u:canary@a:port", "no valid URL"),
        ("amqp://u:canary@a?prefetch=1", "unknown option 'prefetch'"),
        ("amqp://u:canary@a?queue_type=stream", "classic, quorum"),
        ("amqp://u:canary@a?heartbeat=0", "from 2 to"),
        ("amqp://u:canary@a/#x", "%23"),
        ("amqps://u:canary@a?keyfile=k", "certfile"),
        ("amqps://u:canary@a?insecure_skip_verify=perhaps", "1 or 0"),
        ("", "needs a URL"),
    ],
)
def test_what_is_no_url(url: str, why: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=why) as error:
        read_urls(url)
    assert "canary" not in str(error.value)


def test_nodes_must_agree() -> None:
    with pytest.raises(ImproperlyConfigured, match="do not agree on queue_type"):
        read_urls(["amqp://a?queue_type=quorum", "amqp://b?queue_type=classic"])


def test_names() -> None:
    assert queue_name("shop", "tasks") == "shop.tasks"
    assert queue_name("shop", "a.b") == "shop.a.b"
    assert queue_name("shop.a", "b") == "shop#2Ea.b"
    assert queue_name("ä", "\0%") == "#C3#A4.#00#25"
    assert queue_name("amq", "q") == "#61mq.q"
    long = {queue_name("shop", "q" * 300 + str(number)) for number in range(3)}
    assert len(long) == 3
    assert {len(name) for name in long} == {255}


VERSIONS = ("3.10.8", "3.13.7", "4.0.1", "4.2.5", "4.3.0-rc.1", "4.3.7", "5.0")


def test_versions() -> None:
    assert read_version("3.10.8") == (3, 10)
    assert read_version("4.3.0-rc.1") == (4, 3)
    assert read_version("4.3.0+12.g1a2b3c") == (4, 3)
    assert read_version(b"4") == read_version(None) == read_version("x.y") == (0, 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_classic_queue_is_one_on_every_version(version: str) -> None:
    """Also where the vhost has quorum queues by default, which know no ``x-max-priority``."""
    assert queue_arguments("classic", read_version(version)) == [{"x-queue-type": "classic", "x-max-priority": 10}]
    assert [wire_priority("classic", read_version(version), priority) for priority in (-1, 0, 5, 10, 11)] == [0, 0, 5, 10, 10]


@pytest.mark.parametrize("version", [*VERSIONS, ""])
def test_no_quorum_queue_drops_tickets(version: str) -> None:
    """From 4.0 on, and where the version is unknown, the limit of deliveries is lifted; and a queue that was made without is found."""
    limits = [arguments.get("x-delivery-limit") for arguments in queue_arguments("quorum", read_version(version))]
    assert limits == ([None] if version.startswith("3") else [-1, None])
    for arguments in queue_arguments("quorum", read_version(version)):
        assert arguments["x-queue-type"] == "quorum"
        assert not {"x-max-priority", "x-message-ttl", "x-expires", "x-max-length"} & set(arguments)


def test_priorities_of_quorum_queues() -> None:
    """None before 4.0; then two; from 4.3 on 32, of which the first eleven are used, so that none meets the default of 4 by chance."""
    levels = {version: [wire_priority("quorum", read_version(version), priority) for priority in (0, 4, 5, 6, 10)] for version in VERSIONS}
    assert levels["3.10.8"] == levels["3.13.7"] == [None] * 5
    assert levels["4.0.1"] == levels["4.2.5"] == [0, 0, 0, 9, 9]
    assert levels["4.3.0-rc.1"] == levels["4.3.7"] == levels["5.0"] == [0, 4, 5, 6, 10]


def test_pauses_grow_with_the_outage() -> None:
    for outage, most in ((0, 0.1), (0.2, 0.1), (12, 3), (60, 15), (1e6, 30)):
        drawn = [session_module.pause(outage) for _ in range(500)]
        assert 0 <= min(drawn) < most / 4
        assert most * 0.75 < max(drawn) <= most


# --- tickets


async def test_it_is_a_broker(broker: RabbitMQBroker) -> None:
    assert isinstance(broker, Broker)
    assert await broker.pull(["q"], 5) == []
    assert await broker.pull([], 5) == await broker.pull(["q"], 0) == []
    await broker.push([])


async def test_in_order(broker: RabbitMQBroker, lab: Lab) -> None:
    low, high = tickets(3, priority=1), tickets(3, priority=9)
    await broker.push(low + high)
    other = await lab.broker()
    first = await other.pull(["q"], 4)
    assert ids(first) == ids(high + low[:1])
    assert [each.ticket for each in first] == high + low[:1]
    other.give_back(first)
    again = await other.pull(["q"], 10)
    assert ids(again) == ids(high + low)
    other.ack(again)
    assert await other.pull(["q"], 10) == []
    assert await broker.depth("q") == 0


async def test_in_order_over_several_queues(broker: RabbitMQBroker, lab: Lab) -> None:
    lab.queues = set("abc")
    sent = [ticket for number in range(30) for ticket in tickets(1, "abc"[number % 3], 9 if number > 20 else 5)]
    for ticket in sent:
        await broker.push([ticket])
    want = ids(sent[21:] + sent[:21])
    got = [each for number in (1, 2, 7, 5, 15) for each in await broker.pull(["c", "a", "b"], number)]
    assert ids(got) == want
    broker.ack(got)


async def test_a_thousand(broker: RabbitMQBroker) -> None:
    sent = tickets(1000)
    await broker.push(sent)
    assert await broker.depth("q") == 1000
    got = await broker.pull(["q"], 1000)
    assert ids(got) == ids(sent)
    broker.ack(got)
    await asyncio.sleep(0.1)
    assert await broker.depth("q") == 0


async def test_a_wait_is_woken(broker: RabbitMQBroker, lab: Lab) -> None:
    other = await lab.broker()
    for _ in range(20):
        waiting = asyncio.create_task(other.pull(["q"], 5, 10))
        await asyncio.sleep(0.01)
        await broker.push(sent := tickets(3))
        got = await waiting
        while len(got) < 3:
            got += await other.pull(["q"], 5, 1)
        assert sorted(ids(got)) == sorted(ids(sent))
        other.ack(got)


async def test_a_wait_ends(broker: RabbitMQBroker) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await broker.pull(["q"], 5, 0.2) == []
    assert 0.19 < loop.time() - start < 2


async def test_many_who_wait_share(broker: RabbitMQBroker, lab: Lab) -> None:
    others = [await lab.broker() for _ in range(3)]
    waiting = [asyncio.create_task(other.pull(["q"], 1, 10)) for other in others * 4]
    await asyncio.sleep(0.05)
    await broker.push(sent := tickets(12))
    got = [each for pulled in await asyncio.gather(*waiting) for each in pulled]
    assert sorted(ids(got)) == sorted(ids(sent))


async def test_a_busy_worker_holds_nothing(broker: RabbitMQBroker, lab: Lab) -> None:
    """Between its pulls a broker keeps no ticket from others."""
    other = await lab.broker()
    waiting = asyncio.create_task(other.pull(["q"], 2, 10))
    await asyncio.sleep(0.02)
    await broker.push(sent := tickets(10))
    held = await waiting
    rest = [each for _ in range(10) for each in await broker.pull(["q"], 10, 0.05)]
    assert sorted(ids(held + rest)) == sorted(ids(sent))


async def test_cancelled_pulls_hold_nothing(broker: RabbitMQBroker, lab: Lab) -> None:
    other = await lab.broker()
    await other.pull(["q"], 1)
    await broker.push(sent := tickets(20))
    for number in range(60):
        pulling = asyncio.create_task(other.pull(["q"], 5, 1.0))
        for _ in range(number % 30):
            await asyncio.sleep(0)
        pulling.cancel()
        await asyncio.wait([pulling])
        if not pulling.cancelled():
            other.give_back(pulling.result())
    async with asyncio.timeout(10):
        got: list[Delivery] = []
        while len(got) < 20:
            got += await broker.pull(["q"], 20, 1)
    assert sorted(ids(got)) == sorted(ids(sent))


async def test_what_is_no_ticket_is_dropped(broker: RabbitMQBroker, lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    await broker.pull(["q"], 1)
    wire, channel = await lab.raw()
    for body in (b"", b"{}", b"[1]", b'{"id":"x","priority":1,"sent":1}', b'{"id":1,"priority":1,"sent":1}', b"\xff" * 100):
        await channel.basic_publish(body, routing_key=queue_name(lab.app, "q"))
    await wire.close()
    await broker.push(sent := tickets(1))
    assert ids(await broker.pull(["q"], 10)) == ids(sent)
    assert "no ticket of mognet" in caplog.text


async def test_tickets_are_persistent_and_each_message_has_an_id(broker: RabbitMQBroker, lab: Lab) -> None:
    [ticket] = tickets(1, priority=7)
    await broker.push([ticket, ticket])
    wire, channel = await lab.raw()
    messages = [await channel.basic_get(queue_name(lab.app, "q"), no_ack=True) for _ in range(2)]
    await wire.close()
    assert {message.header.properties.delivery_mode for message in messages} == {2}
    assert {message.header.properties.priority for message in messages} == {7}
    assert len({message.header.properties.message_id for message in messages}) == 2


async def test_a_deleted_queue_is_made_again(broker: RabbitMQBroker, lab: Lab) -> None:
    """By whoever pushes to it, and by whoever waits at it or asks it."""
    other = await lab.broker()
    await broker.push(tickets(1))
    for wait in (0.0, 10.0):
        assert len(await other.pull(["q"], 5)) <= 1
        waiting = asyncio.create_task(other.pull(["q"], 5, wait)) if wait else None
        await asyncio.sleep(0.05)
        wire, channel = await lab.raw()
        await channel.queue_delete(queue_name(lab.app, "q"))
        await wire.close()
        await broker.push(sent := tickets(1))
        async with asyncio.timeout(5):
            got: list[Delivery] = []
            if waiting is not None:
                try:
                    got = await waiting
                except ConnectionError:
                    pass
            while not got:
                try:
                    got = await other.pull(["q"], 5, 1)
                except ConnectionError:
                    await asyncio.sleep(0.05)
        assert ids(got) == ids(sent)
        other.ack(got)


async def test_a_queue_with_other_settings(lab: Lab) -> None:
    broker, quorum = await lab.broker(), await lab.broker(queue_type="quorum")
    await broker.push(tickets(1))
    for use in (quorum.push(tickets(1)), quorum.pull(["q"], 1), quorum.depth("q")):
        with pytest.raises(ImproperlyConfigured, match=r"exists with other settings than queue_type=quorum.*delete_queue"):
            await use
    assert len(await broker.pull(["q"], 1)) == 1


async def test_a_quorum_queue(lab: Lab) -> None:
    broker = await lab.broker(queue_type="quorum")
    await broker.push(sent := tickets(50))
    got = [each for _ in range(5) for each in await broker.pull(["q"], 10)]
    assert ids(got) == ids(sent)
    broker.give_back(got[10:])
    broker.ack(got[:10])
    again: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(again) < 40:
            again += await broker.pull(["q"], 50, 1)
    assert sorted(ids(again)) == sorted(ids(sent[10:]))


async def test_nobody_there() -> None:
    """The first who ask wait for the first attempt; after it failed, the others are told at once."""
    async with RabbitMQBroker(read_urls(LOST), "app") as broker:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(20):
            with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1") as error:
                await broker.push(tickets(1))
            assert "canary" not in str(error.value)
            with pytest.raises(ConnectionError):
                await broker.pull(["q"], 1, 5.0)
        assert loop.time() - start < 4


async def test_a_wrong_password(lab: Lab) -> None:
    address = lab.settings.addresses[0]._replace(password="canary")
    broker = await lab.broker(addresses=(address,))
    with pytest.raises(ConnectionError, match="ACCESS_REFUSED") as error:
        await broker.push(tickets(1))
    assert "canary" not in str(error.value)


async def test_a_login_that_is_refused_is_told_at_the_start(lab: Lab) -> None:
    (sound,) = lab.settings.addresses
    wrong = sound._replace(password="canary")
    broker = await lab.broker(addresses=(wrong,))
    with pytest.raises(ImproperlyConfigured, match=r"ACCESS_REFUSED.*correct user and password") as error:
        await broker.check_login()
    assert "canary" not in str(error.value)
    for addresses in ((sound,), (wrong, sound), read_urls(LOST).addresses, (wrong, *read_urls(LOST).addresses)):
        broker = await lab.broker(addresses=addresses)
        await broker.check_login()  # nobody there, or only one of them refuses: that may pass


async def test_a_vhost_that_is_not_there(lab: Lab) -> None:
    broker = await lab.broker(addresses=(lab.settings.addresses[0]._replace(vhost="nowhere"),))
    with pytest.raises(ConnectionError, match="does not let user 'guest' into vhost 'nowhere'"):
        await broker.pull(["q"], 1)
    await broker.check_login()


async def test_a_worker_that_is_refused_does_not_start(lab: Lab) -> None:
    sound = lab.settings.addresses[0].url
    app = App("refused", AppConfig(broker=sound.replace(":guest@", ":canary@"), result_backend="memory://"))
    async with app:
        with pytest.raises(ImproperlyConfigured, match="ACCESS_REFUSED"):
            await app.start(burst=True)
    app = App("let-in", AppConfig(broker=sound, result_backend="memory://"))
    async with app:
        await app.start(burst=True)


async def test_any_node_will_do(lab: Lab) -> None:
    dead = [address for number in (1, 2) for address in read_urls(f"amqp://127.0.0.1:{number}").addresses]
    for _ in range(4):
        broker = await lab.broker(addresses=(*dead, *lab.settings.addresses))
        await broker.push(tickets(1))


async def test_stale_acknowledgements_do_nothing(broker: RabbitMQBroker) -> None:
    """A delivery of an earlier connection is neither acknowledged nor given back over the next one."""
    await broker.push(sent := tickets(3))
    old = await broker.pull(["q"], 2)
    link = await broker.taking.link(1)
    link.fail("a test")
    async with asyncio.timeout(5):
        new: list[Delivery] = []
        while len(new) < 3:
            try:
                new += await broker.pull(["q"], 3, 1)
            except ConnectionError:
                await asyncio.sleep(0.01)
    assert sorted(ids(new)) == sorted(ids(sent))
    broker.ack(old)
    broker.give_back(old)
    assert (await broker.taking.link(1)).number > link.number
    broker.ack(new)
    assert await broker.pull(["q"], 3, 0.2) == []
    assert (await broker.taking.link(1)).alive


async def test_a_consumer_that_brings_nothing(broker: RabbitMQBroker, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tickets that are found right after waits in vain: the third time, the connection is made anew."""
    other = await lab.broker()
    link = await other.taking.link(5)
    monkeypatch.setattr(link, "_ring", lambda *_: None)
    for number in range(3):
        assert link.alive
        await broker.push(tickets(1))
        await link.declare(["q"])
        assert await link.wait(["q"], 0.05) is None
        monkeypatch.setattr(link, "_quiet_until", asyncio.get_running_loop().time() + 1)
        link._found()
        assert link.misses == number + 1
    assert not link.alive


async def test_a_consumer_stays_from_one_wait_to_the_next(broker: RabbitMQBroker, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it brings in between is not lost, whoever asks next; and when nobody does, others get it."""
    taker, other = await lab.broker(), await lab.broker()
    monkeypatch.setattr("mognet.engines.rabbitmq.taking.LINGER", 5.0)
    for ask in (0.0, 5.0):
        assert await taker.pull(["q"], 3) == []
        link = await taker.taking.link(5)
        assert await link.wait(["q"], 0.05) is None
        assert link.lingers(["q"])
        await broker.push(tickets(1))
        if ask:
            while link.lingers(["q"]):  # noqa: ASYNC110 - until it has brought the ticket, of which nobody is told
                await asyncio.sleep(0)
        [found] = await taker.pull(["q"], 3, ask)
        taker.ack([found])
        assert not link.lingers(["q"])
    monkeypatch.setattr("mognet.engines.rabbitmq.taking.LINGER", 0.05)
    assert await link.wait(["q"], 0.05) is None
    await broker.push(tickets(1))
    [found] = await other.pull(["q"], 3, 5.0)
    other.ack([found])
    assert link.alive
    assert link.misses == 0


def test_nothing_is_consumed_with_a_global_prefetch() -> None:
    assert spec.Basic.Qos().global_ is False
