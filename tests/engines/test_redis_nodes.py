"""Redis in all the places where a URL may find it: sockets, Valkey's names, several nodes that fail and hand over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.crc import key_slot

from exercise import Going, exercise, until, working
from mognet import App
from mognet.engines.checkups import checkups
from servers import Server, find_binary, free_port
from servers.redis import redis_server

PASSWORD = "geheim"


def ask(url: str, *command: str) -> Any:
    with Redis.from_url(url, protocol=2, decode_responses=True) as client:
        return client.execute_command(*command)


class Nodes:
    """Servers that end with the test, each in a folder of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.servers: list[Server] = []

    def _folder(self) -> Path:
        folder = self.folder / str(len(self.servers))
        folder.mkdir()
        return folder

    def _start(self, server: Server) -> None:
        self.servers.append(server)
        self._stack.callback(server.kill)
        server.start()

    def start(self, *options: str) -> str:
        """One more; its URL."""
        server, url = redis_server(self._folder(), *options, durable=False)
        self._start(server)
        return url

    def start_sentinel(self, *lines: str) -> int:
        """A sentinel; its port."""
        port, folder = free_port(), self._folder()
        (folder / "sentinel.conf").write_text("\n".join([*lines, f"port {port}", "bind 127.0.0.1"]) + "\n")

        def ready() -> bool:
            try:
                ask(f"redis://127.0.0.1:{port}", "ROLE")
            except OSError:
                return False
            except Exception as error:
                return "NOAUTH" in str(error) or "required" in str(error)
            return True

        self._start(Server("redis-sentinel", [find_binary("redis-server"), "sentinel.conf", "--sentinel"], folder, ready))
        return port


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


async def test_a_unix_socket(nodes: Nodes) -> None:
    nodes.start("--unixsocket", "s", "--unixsocketperm", "700")
    await exercise(url=f"unix://{nodes.folder}/0/s?db=1")


async def test_valkeys_names(nodes: Nodes) -> None:
    url = nodes.start("--requirepass", PASSWORD)
    await exercise(url=url.replace("redis://", f"valkey://:{PASSWORD}@"))


# --- Sentinel


async def test_sentinel_fails_over_and_the_app_goes_on(nodes: Nodes) -> None:
    """The master is killed, a sentinel promotes its replica, and submits and the worker go on there. All of them want passwords."""
    auth = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    first = nodes.start(*auth)
    port = urlsplit(first).port
    second = nodes.start(*auth, "--replicaof", "127.0.0.1", str(port))
    lines = [
        f"sentinel monitor main 127.0.0.1 {port} 1",
        f"sentinel auth-pass main {PASSWORD}",
        "sentinel down-after-milliseconds main 300",
    ]
    sentinel = nodes.start_sentinel(*lines, "requirepass watchman")
    watch, replica = f"redis://:watchman@127.0.0.1:{sentinel}", second.replace("//", f"//:{PASSWORD}@")
    async with asyncio.timeout(20):
        await until(lambda: "up" in str(ask(replica, "INFO", "replication")["master_link_status"]))
        await until(lambda: ask(watch, "SENTINEL", "REPLICAS", "main"))
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{sentinel}/main/0?sentinel_password=watchman"
    async with working(url=url) as app:
        going = Going(app)
        await going.on()
        nodes.servers[0].kill()
        await going.on()
        assert ask(replica, "ROLE")[0] == "master"
        await going.end(lost=True)
        assert app.ready
    assert {each.grade for each in await next(iter(checkups(url, "x").values())).examine([])} <= {"ok", "warning"}


# --- Cluster


class Cluster:
    """Masters that share the slots, and replicas of some."""

    OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.urls: list[str] = []
        self._buses: list[int] = []

    @property
    def url(self) -> str:
        """That of an app: it names all of them, and one that is not there."""
        return f"redis+cluster://127.0.0.1:1,{','.join(urlsplit(url).netloc for url in self.urls)}"

    def _add(self) -> str:
        self._buses.append(free_port())
        self.urls.append(self.nodes.start(*self.OPTIONS, "--cluster-port", str(self._buses[-1])))
        ask(self.urls[-1], "CLUSTER", "SET-CONFIG-EPOCH", str(len(self.urls)))
        if len(self.urls) > 1:
            ask(self.urls[0], "CLUSTER", "MEET", "127.0.0.1", str(urlsplit(self.urls[-1]).port), str(self._buses[-1]))
        return self.urls[-1]

    async def start(self, masters: int) -> None:
        """So many masters, which know each other."""
        edges = [16384 * number // masters for number in range(masters + 1)]
        for first, last in pairwise(edges):
            ask(self._add(), "CLUSTER", "ADDSLOTSRANGE", str(first), str(last - 1))
        await self._agrees()

    async def add_replica(self, master: str) -> str:
        """A replica of a master."""
        replica = self._add()
        await self._agrees()
        ask(replica, "CLUSTER", "REPLICATE", ask(master, "CLUSTER", "MYID"))
        async with asyncio.timeout(20):
            await until(lambda: "up" in str(ask(replica, "INFO", "replication").get("master_link_status")))
            await until(lambda: all(str(ask(url, "CLUSTER", "NODES")).count("slave") == 1 for url in self.urls))
        return replica

    async def _agrees(self) -> None:
        def agree() -> bool:
            said = [set(ask(url, "CLUSTER", "INFO").split()) for url in self.urls]
            return all({"cluster_state:ok", f"cluster_known_nodes:{len(self.urls)}"} <= each for each in said)

        async with asyncio.timeout(20):
            await until(agree)

    def owner(self, app: App) -> str:
        """The URL of the master that holds an app's keys."""
        return next(url for url in self.urls if any(ask(url, "KEYS", f"mognet:{{{app.name}}}:*")) and ask(url, "ROLE")[0] == "master")

    def move(self, slot: int, source: str, target: str) -> None:
        """Hand a slot over, as ``redis-cli --cluster reshard`` does."""
        ids = {url: ask(url, "CLUSTER", "MYID") for url in (source, target)}
        ask(target, "CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[source])
        ask(source, "CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[target])
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", str(slot), "10"):
            ask(source, "MIGRATE", "127.0.0.1", str(urlsplit(target).port), "", "0", "5000", "KEYS", *keys)
        for url in (target, source, *self.urls):
            ask(url, "CLUSTER", "SETSLOT", str(slot), "NODE", ids[target])


@pytest.fixture
async def cluster(nodes: Nodes) -> Cluster:
    cluster = Cluster(nodes)
    await cluster.start(3)
    return cluster


async def test_apps_in_a_cluster_of_three(cluster: Cluster) -> None:
    """Each app is on one node, and different ones are on different nodes."""
    names = [f"app{number}" for number in range(4)]
    assert len({key_slot(name.encode()) * 3 // 16384 for name in names}) == 3
    await asyncio.gather(*(exercise(name, url=cluster.url) for name in names))
    slots = {name: {key_slot(key.encode()) for url in cluster.urls for key in ask(url, "KEYS", f"mognet:{{{name}}}:*")} for name in names}
    assert slots == {name: {key_slot(name.encode())} for name in names}


async def test_a_slot_moves_while_its_app_works(cluster: Cluster) -> None:
    """MOVED and ASK: submits and the worker go on at the node that has the keys now, and nothing is lost."""
    async with working(url=cluster.url) as app:
        going = Going(app)
        await going.on()
        source = cluster.owner(app)
        target = next(url for url in cluster.urls if url != source)
        await asyncio.to_thread(cluster.move, key_slot(app.name.encode()), source, target)
        await going.on()
        assert cluster.owner(app) == target
        await going.end()


async def test_a_master_of_a_cluster_is_killed(cluster: Cluster) -> None:
    """Its replica takes its place, and the app goes on there."""
    async with working(url=cluster.url) as app:
        going = Going(app)
        await going.on()
        master = cluster.owner(app)
        replica = await cluster.add_replica(master)
        await going.on()
        cluster.nodes.servers[cluster.urls.index(master)].kill()
        await going.on()
        assert ask(replica, "ROLE")[0] == "master"
        await going.end(lost=True)
