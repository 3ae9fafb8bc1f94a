"""What may happen to the connections to a RabbitMQ, and to those who wait for an answer over them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from pathlib import Path

import pytest

from mognet.engines.rabbitmq.broker import RabbitMQBroker
from mognet.engines.rabbitmq.settings import queue_name, read_urls
from mognet.exceptions import ConnectionError
from proxy import Proxy
from servers.certificates import Certificates

from .test_rabbitmq import LOST, Lab, broker, ids, lab, tickets

__all__ = ["broker", "lab"]


async def test_a_session_is_closed_at_any_step_of_an_attempt() -> None:
    for steps in range(60):
        broker = RabbitMQBroker(read_urls(LOST), "app")
        pushing = asyncio.create_task(broker.push(tickets(1)))
        for _ in range(steps):
            await asyncio.sleep(0)
        closing = asyncio.create_task(broker.giving.close())
        assert (await asyncio.wait([closing], timeout=5))[0], f"after {steps} steps it is never closed"
        pushing.cancel()
        await asyncio.wait([pushing])


@pytest.mark.parametrize("closing", [False, True])
async def test_who_waits_for_an_answer_is_not_cancelled_when_the_connection_ends(lab: Lab, closing: bool) -> None:
    async with Proxy(lab.settings.addresses[0].port) as proxy:
        address = lab.settings.addresses[0]._replace(port=proxy.port)
        broker = await lab.broker(addresses=(address,))
        await broker.depth("q")
        link = await broker.taking.link(5)
        with proxy.hanging():
            asking = asyncio.create_task(broker.depth("q"))
            await asyncio.sleep(0.05)
            if closing:
                await broker.taking.close()
            else:
                link.fail("a test")
            with pytest.raises(ConnectionError):
                await asking


async def test_a_question_that_is_cancelled_leaves_the_connection_alone(broker: RabbitMQBroker) -> None:
    await broker.depth("q")
    link = await broker.taking.link(5)
    for steps in range(40):
        asking = asyncio.create_task(broker.depth("q"))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        assert await broker.depth("q") == 0
    assert link.alive


async def test_a_queue_that_cannot_be_used_leaves_the_others_alone(broker: RabbitMQBroker, lab: Lab) -> None:
    """As when the node that keeps it is down: no connection is made anew for it, and other queues' tickets come."""
    wire, channel = await lab.raw()
    await channel.queue_declare(queue_name(lab.app, "kept"), exclusive=True)
    await broker.push(sent := tickets(2))
    links = [await broker.giving.link(5), await broker.taking.link(5)]
    for _ in range(3):
        with pytest.raises(ConnectionError, match="RESOURCE_LOCKED"):
            await broker.push(tickets(1, "kept"))
        with pytest.raises(ConnectionError, match="RESOURCE_LOCKED"):
            await broker.pull(["kept"], 1)
    assert ids(await broker.pull(["kept", "q"], 1)) == ids(sent[:1])
    assert ids(await broker.pull(["kept", "q"], 1, 1.0)) == ids(sent[1:])
    assert all(link.alive for link in links)
    await wire.close()


async def test_links_that_do_not_last_are_made_ever_less_often(broker: RabbitMQBroker, caplog: pytest.LogCaptureFixture) -> None:
    """Else a right that is missing, of which the server tells by closing, would mean ten logins in a second, and as many log lines."""
    loop = asyncio.get_running_loop()
    until, made = loop.time() + 8.0, 0
    while loop.time() < until:
        try:
            (await broker.taking.link(5)).fail("a test")
        except ConnectionError as error:
            assert "a test" in str(error)
            await asyncio.sleep(0.01)
        else:
            made += 1
            await asyncio.sleep(0)
    assert 5 < made < 50
    assert len(caplog.records) < 5
    async with asyncio.timeout(5):
        await broker.taking.until_back(5)
    assert (await broker.taking.link(5)).alive


async def test_what_is_closed_stays_closed(lab: Lab) -> None:
    broker = await lab.broker()
    await broker.pull(["q"], 1)
    waiting = asyncio.create_task(broker.pull(["q"], 1, 10.0))
    await asyncio.sleep(0.05)
    await broker.__aexit__(None, None, None)
    with pytest.raises(ConnectionError):
        await waiting
    with pytest.raises(ConnectionError, match="closed"):
        await broker.push(tickets(1))
    assert not broker.giving.started
    async with broker:
        assert await broker.depth("q") == 0


async def test_a_server_that_says_nothing_behind_tls_is_left_in_time(tmp_path: Path) -> None:
    """It has shaken hands, and does not part in order either."""
    files = Certificates(tmp_path, "guest")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.crt("server"), files.key("server"))
    shaken = asyncio.Event()
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True):
                loop.call_soon_threadsafe(shaken.set)
                over.wait(60)

        over = threading.Event()
        serving = asyncio.create_task(asyncio.to_thread(serve))
        url = f"amqps://guest:guest@127.0.0.1:{listening.getsockname()[1]}/?cafile={files.crt('ca')}"
        broker = RabbitMQBroker(read_urls(url), "app")
        pushing = asyncio.create_task(broker.push(tickets(1)))
        await shaken.wait()
        began = loop.time()
        await broker.__aexit__(None, None, None)
        took = loop.time() - began
        over.set()
        await serving
        with pytest.raises(ConnectionError):
            await pushing
        assert took < 4


async def test_a_slow_broker_is_waited_for_as_long_as_it_answers(broker: RabbitMQBroker, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its silence counts, not how long all answers take: else one who asks for many would get none, again and again."""
    monkeypatch.setattr("proxy.CHUNK", 2048)
    await broker.push(sent := tickets(400))
    async with Proxy(lab.settings.addresses[0].port) as proxy:
        slow = await lab.broker(addresses=(lab.settings.addresses[0]._replace(port=proxy.port),))
        slow.ack(await slow.pull(["q"], 1))
        link = await slow.taking.link(5)
        link._yield["q"] = 400
        proxy.delay = 0.15
        loop = asyncio.get_running_loop()
        began = loop.time()
        got = await slow.pull(["q"], 399)
        assert loop.time() - began > 5
        assert ids(got) == ids(sent[1:])
        assert link.alive
        proxy.delay = 0
