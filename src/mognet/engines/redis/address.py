"""From a URL to connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from mognet.engines.knocking import Door
from mognet.engines.redis.wire import hang_up
from mognet.engines.tls import INSECURE, Tls
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.redaction import redact_url

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

PORT = 6379
SENTINEL_PORT = 26379

MOST_DATABASES = 2**31 - 1
"""The highest number that a server takes for one; how many it really has is its own affair."""

_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _truth(value: str) -> bool:
    return _TRUTHS[value.lower()]


def _positive(value: str) -> float:
    seconds = float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError(value)
    return seconds


def _database(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and int(value) <= MOST_DATABASES):
        raise ValueError(value)
    return int(value)


def _verification(value: str) -> str:
    if value != "required":
        raise ValueError(value)
    return value


OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "db": (_database, "the number of the database, where the path does not say it"),
    "timeout": (_positive, "seconds of silence after which a connection is given up (5)"),
    "allow_eviction": (_truth, "1: accept a server that may delete jobs when its memory is full"),
    "client_name": (str, "what CLIENT LIST shows"),
    "ssl_ca_certs": (str, "file of the authorities that may have signed the server's certificate"),
    "ssl_certfile": (str, "file of our own certificate"),
    "ssl_keyfile": (str, "file of its key"),
    "ssl_check_hostname": (_truth, "0: accept a valid certificate of another host"),
    "ssl_cert_reqs": (_verification, f"required; to accept any certificate, say {INSECURE}=1"),
    INSECURE: (_truth, "1: accept any certificate (anybody in between can read and change everything)"),
    "sentinel_username": (str, "user name for the sentinels"),
    "sentinel_password": (str, "password for the sentinels"),
}
"""What may follow the ``?`` of a URL."""


@dataclass(frozen=True)
class Address:
    """Where a server is, and how to speak to it."""

    shown: str
    """The URL without its secrets."""
    kind: str
    """``single``, ``sentinel`` or ``cluster``."""
    hosts: tuple[tuple[str, int], ...]
    settings: dict[str, Any] = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    tls: Tls | None = None
    path: str | None = None
    service: str = ""

    @property
    def timeout(self) -> float:
        """Seconds of silence after which a connection is given up."""
        return float(self.options.get("timeout", 5.0))

    def doors(self) -> list[Door]:
        """Where to knock. Of a service or a cluster only those are known that are asked for the server."""
        if self.tls:
            return [Door(host, port) for host, port in self.hosts]
        question, not_yet = b"PING\r\n", (b"-LOADING", b"-MASTERDOWN")
        if self.path is not None:
            return [Door(path=self.path, question=question, not_yet=not_yet)]
        return [Door(host, port, question=question, not_yet=not_yet) for host, port in self.hosts]

    async def connect(self, key: bytes) -> AbstractConnection:
        """A connection to the server that holds the key."""
        if self.path is not None:
            return await _open(UnixDomainSocketConnection(path=self.path, **self._common(self.settings)), self.timeout)
        last: Exception = ConnectionError(f"no server of {self.shown} can be reached")
        for host in self.hosts:
            try:
                found = host if self.kind == "single" else await self._find(host, key)
                return await _open(await self._connection(found, self.settings), self.timeout)
            except Exception as error:  # the next one may be better
                last = error
        raise last

    async def _find(self, host: tuple[str, int], key: bytes) -> tuple[str, int]:
        """Ask a sentinel, or a node of a cluster, who the server is."""
        settings = self.settings
        if self.kind == "sentinel":
            names = {"username": "sentinel_username", "password": "sentinel_password"}
            settings = {name: self.options[option] for name, option in names.items() if option in self.options}
        connection = await _open(await self._connection(host, settings), self.timeout)
        try:
            if self.kind == "sentinel":
                found: Any = await _ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
                if not found:
                    raise ConnectionError(f"the sentinel at {host[0]}:{host[1]} knows no master of {self.service!r} at present")
                return found[0].decode(), int(found[1])
            slot: Any = await _ask(connection, "CLUSTER", "KEYSLOT", key)
            for first, last, node, *_ in await _ask(connection, "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return node[0].decode() or host[0], int(node[1])
            raise ConnectionError(f"no node of the cluster at {host[0]}:{host[1]} serves slot {slot} at present")
        finally:
            await hang_up(connection)

    async def _connection(self, host: tuple[str, int], settings: dict[str, Any]) -> AbstractConnection:
        where = {"host": host[0], "port": host[1], "socket_keepalive": True, **self._common(settings)}
        if self.tls is None:
            return Connection(**where)
        connection = SSLConnection(**where)
        connection.ssl_context.context = await self.tls.context(self.shown)  # redis-py's own trusts the system's authorities as well
        return connection

    def _common(self, settings: dict[str, Any]) -> dict[str, Any]:
        # No retries and no timeouts of redis-py's own: both would act on a command whose answer is still under way.
        own = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "socket_timeout": None, "socket_connect_timeout": self.timeout}
        return {**own, "client_name": self.options.get("client_name", "mognet"), **settings}


async def _open(connection: AbstractConnection, timeout: float) -> AbstractConnection:
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()  # type: ignore[no-untyped-call] # redis-py has no types there
    except BaseException:
        await hang_up(connection)
        raise
    return connection


async def _ask(connection: AbstractConnection, *command: str | bytes) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


def parse(url: str) -> Address:
    """The address of a URL. Raises ImproperlyConfigured."""
    shown = redact_url(url)
    try:
        return _parse(url, shown)
    except ImproperlyConfigured:
        raise
    except ValueError:
        raise ImproperlyConfigured(f"{shown!r} is no URL of a Redis: redis://user:password@host:6379/0 is one") from None


def _parse(url: str, shown: str) -> Address:
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if parts.scheme not in SCHEMES:
        raise ImproperlyConfigured(f"{shown!r}: the Redis engine knows {', '.join(f'{each}://' for each in SCHEMES)}")
    options = _options(parts.query, shown)
    user, at, hosts = parts.netloc.rpartition("@")
    settings: dict[str, Any] = {}
    if at:
        name, _, password = user.partition(":")
        settings = {key: unquote(value) for key, value in (("username", name), ("password", password)) if value}
    tls = _tls(options) if scheme in ("rediss", "valkeys") else None
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ImproperlyConfigured(f"{shown!r} names no socket: unix:///run/redis/redis.sock?db=0 does")
        return Address(shown, "single", (), {**settings, "db": options.get("db", 0)}, options, path=unquote(parts.path))
    path = [unquote(part) for part in parts.path.split("/") if part]
    service = ""
    if kind == "sentinel":
        if not path:
            raise ImproperlyConfigured(f"{shown!r} names no service: redis+sentinel://host1,host2/service/0 does")
        service = path.pop(0)
    try:
        [db] = [_database(part) for part in path] or [options.get("db", 0)]
    except ValueError:
        raise ImproperlyConfigured(f"{shown!r}: the path is the number of a database, such as /0") from None
    if kind == "cluster" and db:
        raise ImproperlyConfigured(f"{shown!r}: a cluster has only database 0")
    places = tuple(_host(host, SENTINEL_PORT if kind == "sentinel" else PORT) for host in hosts.split(","))
    if len(places) > 1 and not kind:
        raise ImproperlyConfigured(f"{shown!r} names several servers: redis+sentinel:// or redis+cluster:// says how they belong together")
    return Address(shown, kind or "single", places, {**settings, "db": db}, options, tls, service=service)


def _tls(options: dict[str, Any]) -> Tls:
    cafile, certfile, keyfile = (options.get(name) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
    return Tls(cafile, certfile, keyfile, options.get("ssl_check_hostname", True), options.get(INSECURE, False))


def _host(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return unquote(parts.hostname or "localhost"), parts.port or port


def _options(query: str, shown: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ImproperlyConfigured(f"{shown!r}: {name!r} is no option of the Redis engine; these are: {', '.join(OPTIONS)}")
        try:
            options[name] = OPTIONS[name][0](value)
        except (KeyError, ValueError):
            raise ImproperlyConfigured(f"{shown!r}: the value of {name!r} does not fit ({OPTIONS[name][1]})") from None
    return options
