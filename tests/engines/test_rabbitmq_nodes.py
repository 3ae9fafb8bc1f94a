"""RabbitMQ as its operators set it up: users with few rights, vhosts with other defaults, quorum queues, several nodes."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from exercise import Going, exercise, working
from mognet.engines.rabbitmq.broker import RabbitMQBroker
from mognet.engines.rabbitmq.checkup import RabbitMQCheckup
from mognet.engines.rabbitmq.settings import read_urls
from mognet.exceptions import ImproperlyConfigured
from mognet.records import Ticket
from mognet.testing.conformance.bench import make_job
from proxy import Proxy
from servers import Server
from servers.rabbitmq import rabbitmq_server, rabbitmqctl
from servers.redis import shared_redis

PAGE = Path(__file__).parents[2] / "docs/engines/rabbitmq.md"
PASSWORD = "a long password"

Node = tuple[Server, str]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose operators the tests are."""
    server, url = rabbitmq_server(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server, url
    server.kill()


def commands(text: str) -> list[list[str]]:
    """The commands for an operator in a text."""
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("rabbitmqctl ")]


def operate(node: Node, *words: str) -> None:
    rabbitmqctl(node[0], *words)


def place(node: Node, user: str, vhost: str) -> str:
    return f"amqp://{user}@{urlsplit(node[1]).netloc.rpartition('@')[2]}/{vhost}"


async def test_a_user_with_the_rights_that_the_page_gives(node: Node, tmp_path: Path) -> None:
    """They are enough for an app and its worker, and not for another app's queues."""
    found = commands(PAGE.read_text())
    assert [words[0] for words in found] == ["add_vhost", "add_user", "set_permissions"]
    for words in found:
        operate(node, *words)
    url = place(node, f"shop:{PASSWORD.replace(' ', '%20')}", "shop")
    await exercise("shop", broker=url, result_backend=f"sqlite:///{tmp_path}/jobs.db")
    assert {each.grade for each in await RabbitMQCheckup([url], "shop").examine(["tasks"])} == {"ok"}
    async with RabbitMQBroker(read_urls(url), "other") as broker:
        with pytest.raises(ImproperlyConfigured, match="set_permissions"):
            await broker.push([Ticket(make_job().id, "tasks", 5)])


async def test_the_doctor_says_which_right_is_missing(node: Node, tmp_path: Path) -> None:
    """And the command that it gives mends it."""
    operate(node, "add_vhost", "closed")
    operate(node, "add_user", "small", "secret")
    url = place(node, "small:secret", "closed")
    for rights in (("^$", ".*", ".*"), (".*", "^$", ".*"), (".*", ".*", "^$")):
        operate(node, "set_permissions", "-p", "closed", "small", *rights)
        found = [each for each in await RabbitMQCheckup([url], "kitchen.2").examine(["tasks"]) if each.grade == "error"]
        assert [each.subject for each in found] == ["round trip"]
    [words] = commands(str(found[0].remedy))
    operate(node, *words)
    assert {each.grade for each in await RabbitMQCheckup([url], "kitchen.2").examine(["tasks"])} == {"ok"}
    await exercise("kitchen.2", broker=url, result_backend=f"sqlite:///{tmp_path}/jobs.db")


async def test_a_vhost_with_quorum_queues_by_default(node: Node, tmp_path: Path) -> None:
    """Classic queues are classic there, too."""
    operate(node, "add_vhost", "quorum", "--default-queue-type", "quorum")
    operate(node, "set_permissions", "-p", "quorum", "guest", ".*", ".*", ".*")
    url = place(node, "guest:guest", "quorum")
    await exercise("mixed", broker=url, result_backend=f"sqlite:///{tmp_path}/jobs.db")
    assert "mixed.tasks\tclassic" in rabbitmqctl(node[0], "list_queues", "-p", "quorum", "name", "type")


async def test_quorum_queues_by_setting(node: Node, tmp_path: Path) -> None:
    url = f"{node[1]}?queue_type=quorum"
    await exercise("replicated", broker=url, result_backend=f"sqlite:///{tmp_path}/jobs.db")
    assert "replicated.tasks\tquorum" in rabbitmqctl(node[0], "list_queues", "name", "type")
    found = {each.subject: each for each in await RabbitMQCheckup([url], "replicated").examine(["tasks"])}
    assert "copied by its cluster" in found["queue tasks"].text


async def test_the_configuration_of_mognet_2(node: Node) -> None:
    """As it was, on servers as they were."""
    redis = shared_redis()
    old = {
        "result_backend": {"redis": {"url": redis, "result_ttl": 3600, "result_value_ttl": 60}},
        "state_backend": {"redis": {"url": redis}},
        "broker": {"amqp": {"url": node[1]}},
    }
    await exercise(**old)


async def test_from_one_node_to_the_next(node: Node, tmp_path: Path) -> None:
    """The first of three is down. The one in use goes: the app goes on with another, and nothing is lost."""
    port = urlsplit(node[1]).port or 0
    async with Proxy(port) as one, Proxy(port) as two:
        ways = {one: one.url(node[1]), two: two.url(node[1])}
        broker = ["amqp://guest:guest@127.0.0.1:1/", *ways.values()]
        async with working("moving", broker=broker, result_backend=f"sqlite:///{tmp_path}/jobs.db") as app:
            going = Going(app)
            await going.on()
            for gone, left in ((one, two), (two, one)):
                gone.refuse()
                gone.reset()
                await going.on()
                await asyncio.wait_for(_in_use(left), 20)
                await gone.accept()
            await going.end()


async def _in_use(proxy: Proxy) -> None:
    """Both connections, the one that publishes and the one that takes."""
    while proxy.open < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
