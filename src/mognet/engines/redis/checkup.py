"""What the doctor looks at on a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from mognet.engines.findings import Finding, Schema, client_version, clock, encryption, error, ok, server_version, warning
from mognet.engines.redis import address, keys
from mognet.engines.redis.session import explain
from mognet.engines.redis.wire import hang_up
from mognet.engines.tls import INSECURE
from mognet.exceptions import ConnectionError

TESTED = (7, 0)
CLIENT_TESTED = (8, 1)

FULL = 0.9
"""Share of ``maxmemory`` from which on there is little room left."""

_PERSIST = "redis-cli CONFIG SET appendonly yes (and put it into redis.conf, or CONFIG REWRITE)"

Info = dict[str, str]


class RedisCheckup:
    """Looks at a Redis or Valkey."""

    title = "Redis"

    def __init__(self, url: str, app: str) -> None:
        self._address = address.parse(url)
        self._key = keys.prefix(app)
        self.shown = self._address.shown

    async def examine(self, queues: Collection[str]) -> list[Finding]:
        async with self._connected() as connection:
            info = await _info(connection)

            async def theirs() -> float:
                seconds, micros = await _ask(connection, "TIME")
                return int(seconds) + int(micros) / 1e6

            found = [client_version("redis", "redis", CLIENT_TESTED), _server(info), await clock(theirs)]
            settings = {name: await _setting(connection, name) for name in ("appendfsync", "save")}
            allowed = bool(self._address.options.get("allow_eviction"))
            found.append(self._encryption())
            return [*found, *_role(info), _eviction(info, allowed), *_memory(info), *_persistence(info, settings), *_clients(info)]

    def _encryption(self) -> Finding:
        hosts, tls = [host for host, _ in self._address.hosts], self._address.tls
        checked = tls is not None and tls.check_hostname and not tls.insecure
        check = f"leave {INSECURE} and ssl_check_hostname=0 out of the URL, and name the authority: ?ssl_ca_certs="
        return encryption(hosts, tls=tls is not None, checked=checked, switch_on="rediss:// (tls-port in redis.conf)", check=check)

    async def schema(self) -> Schema | None:
        return None

    async def size(self) -> int | None:
        async with self._connected() as connection:
            return int((await _info(connection)).get("used_memory", 0)) or None

    async def migrate(self, version: int | None = None) -> None:
        pass

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        try:
            async with asyncio.timeout(self._address.timeout * 2):
                connection = await self._address.connect(self._key)
                try:
                    yield connection
                finally:
                    await hang_up(connection)
        except ConnectionError:
            raise
        except (RedisError, OSError) as problem:
            raise explain(problem, self._address) from problem


async def _ask(connection: AbstractConnection, *command: str) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


async def _info(connection: AbstractConnection) -> Info:
    text = (await _ask(connection, "INFO")).decode(errors="replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def _setting(connection: AbstractConnection, name: str) -> str | None:
    """None: this user may not ask, or the provider has taken CONFIG away."""
    try:
        answer = await _ask(connection, "CONFIG", "GET", name)
    except ResponseError:
        return None
    return answer[1].decode(errors="replace") if len(answer) > 1 else None


def _server(info: Info) -> Finding:
    if valkey := info.get("valkey_version"):
        return server_version("server", f"Valkey {valkey}", valkey, TESTED)
    version = info.get("redis_version", "0")
    return server_version("server", f"Redis {version}", version, TESTED)


def _role(info: Info) -> Iterator[Finding]:
    if info.get("role") == "slave":
        master = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
        yield error("role", f"a replica of {master}, which takes no writes", "name the master, or redis+sentinel:// or redis+cluster://")
    elif replicas := info.get("connected_slaves", "0").strip("0"):
        yield ok("role", f"master with {replicas} replica{'' if replicas == '1' else 's'}: a fail-over may lose what they had not got yet")


def _eviction(info: Info, allowed: bool) -> Finding:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return ok("eviction", "maxmemory-policy is noeviction")
    text = f"maxmemory-policy is {policy}: when its memory is full, it deletes keys, and jobs with them"
    remedy = "redis-cli CONFIG SET maxmemory-policy noeviction (and put it into redis.conf, or CONFIG REWRITE)"
    return warning("eviction", f"{text}; ?allow_eviction=1 accepts that", remedy) if allowed else error("eviction", text, remedy)


def _memory(info: Info) -> Iterator[Finding]:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if most and used > FULL * most:
        text = f"{used / most:.0%} of maxmemory ({most >> 20} MiB) is used: when it is full, submits and results are refused"
        yield warning("memory", text, "redis-cli CONFIG SET maxmemory …, or shorter result_ttl and result_value_ttl")
    else:
        yield ok("memory", f"{used / 2**20:.1f} MiB used" + (f" of {most >> 20} MiB" if most else ", without a limit"))


def _persistence(info: Info, settings: dict[str, str | None]) -> Iterator[Finding]:
    """What a crash of the server, or of its machine, would lose."""
    if info.get("aof_enabled") == "1":
        if info.get("aof_last_write_status", "ok") != "ok":
            yield error("persistence", "the last write to its append-only file failed", "make room on its disk; its log says more")
        yield _sync(settings["appendfsync"])
        return
    failed = info.get("rdb_last_bgsave_status", "ok") != "ok"
    if failed:
        yield error("persistence", "its last snapshot failed, so that it may refuse writes", "make room on its disk; its log says more")
    elif settings["save"] == "":
        yield warning("persistence", "nothing is kept on disk: a restart of the server forgets all jobs", _PERSIST)
    else:
        text = "snapshots only: a crash of the server loses all jobs since the last one"
        yield warning("persistence", text if settings["save"] else f"no append-only file: {text}, if there are any", _PERSIST)


def _sync(appendfsync: str | None) -> Finding:
    if appendfsync == "always":
        return ok("persistence", "append-only file, appendfsync is always: what was acknowledged is on disk")
    if appendfsync == "everysec":
        return ok("persistence", "append-only file, appendfsync is everysec: a crash of its machine may lose the last second")
    if appendfsync is None:
        return ok("persistence", "append-only file (appendfsync cannot be seen by this user: redis-cli CONFIG GET appendfsync)")
    text = f"append-only file, but appendfsync is {appendfsync}: a crash of its machine may lose about half a minute"
    return warning("persistence", text, "redis-cli CONFIG SET appendfsync everysec (or always)")


def _clients(info: Info) -> Iterator[Finding]:
    connected, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if most and connected > FULL * most:
        yield warning("connections", f"{connected} of {most} in use", "redis-cli CONFIG SET maxclients …")
    elif most:
        yield ok("connections", f"{connected} of {most} in use")
