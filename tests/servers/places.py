"""Where an app may keep its jobs: each engine on servers of its own, which tests may kill, and a way to them that tests may break."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from mognet import App, AppConfig
from proxy import Proxy
from servers import Server
from servers.postgres import postgres_server
from servers.rabbitmq import rabbitmq_server
from servers.redis import redis_server

SERVERS = {"redis": redis_server, "postgres": postgres_server, "rabbitmq": rabbitmq_server}
ON_SERVERS = ["redis", "postgres", "rabbitmq+redis", "rabbitmq+postgres"]

on_servers = pytest.mark.parametrize("place", ON_SERVERS, indirect=True)
"""Runs a test on every engine that has a server."""

on_every_engine = pytest.mark.parametrize("place", ["sqlite", *ON_SERVERS], indirect=True)
"""Runs a test on every engine that processes share; without it a test is about the worker, and runs on SQLite."""


@cache
def _started(name: str) -> tuple[Server, str]:
    """One server of each kind for all tests of this process. It keeps what it has answered, whatever is done to it."""
    folder = Path(tempfile.mkdtemp(prefix=f"mognet-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server, url = SERVERS[name](folder)
    server.start()
    atexit.register(server.kill)
    return server, url


class Place:
    """An engine: its servers, by the part they play (``store``, ``broker``), and the URLs to reach them by. Each has an app of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.app_name = f"app-{uuid4().hex}"
        self.file = folder / "jobs.db"
        self.servers: dict[str, Server] = {}
        self.direct: dict[str, str] = {"store": f"sqlite:///{self.file}"}
        """URLs of the servers themselves."""
        *broker, store = name.split("+")
        for part, kind in {"store": store, **({"broker": broker[0]} if broker else {})}.items():
            if kind != "sqlite":
                self.servers[part], self.direct[part] = _started(kind)
        self.urls = dict(self.direct)
        """What the app is told."""
        self.proxies: dict[str, Proxy] = {}

    @property
    def settings(self) -> dict[str, str]:
        """The app's settings, in the words of AppConfig."""
        if "broker" in self.urls:
            return {"broker": self.urls["broker"], "result_backend": self.urls["store"]}
        return {"url": self.urls["store"]}

    def app(self) -> App:
        """The app, for the test itself."""
        return App(self.app_name, AppConfig(**self.settings))  # type: ignore[arg-type]

    @asynccontextmanager
    async def behind_proxies(self) -> AsyncIterator[None]:
        """Inside the context, those who are told the URLs come through proxies, which the test may break."""
        async with AsyncExitStack() as stack:
            for part in self.servers:
                proxy = await stack.enter_async_context(Proxy(urlsplit(self.direct[part]).port or 0))
                self.proxies[part], self.urls[part] = proxy, proxy.url(self.direct[part])
            yield

    def mend(self) -> None:
        """Leave the servers running, whatever a test has done to them."""
        for server in self.servers.values():
            server.resume()
            if not server.running:
                server.start()


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The engine of the test: SQLite, unless the test is marked to run on others."""
    place = Place(getattr(request, "param", "sqlite"), tmp_path)
    yield place
    place.mend()
