"""PostgreSQL in all the places where a URL may find it: a socket, hosts that are down or say nothing, a primary that fails."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from exercise import Going, exercise, until, working
from mognet.engines.postgres import connecting
from mognet.engines.postgres.checkup import PostgresCheckup
from mognet.engines.postgres.connecting import HOST_SECONDS, connection_parameters
from mognet.engines.postgres.engine import PostgresEngine
from mognet.engines.postgres.settings import parse_url
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from servers.postgres import empty_postgres, own_postgres, postgres_standby, query


def several(*urls: str) -> str:
    """One URL of several servers."""
    parts = urlsplit(urls[-1])
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@{','.join(urlsplit(url).netloc.rpartition('@')[2] for url in urls)}").geturl()


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a host that takes connections and says nothing, as one behind a broken switch."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_socket() -> None:
    with tempfile.TemporaryDirectory(prefix="mognet-sockets-") as folder:
        Path(folder).chmod(0o777)
        with own_postgres(unix_socket_directories=folder, fsync="off") as (_, url):
            parts = urlsplit(url)
            user = parts.netloc.rpartition("@")[0]
            local = f"postgresql://{user}@/postgres?host={folder}&port={parts.port}"
            await exercise(url=local)
            found = {each.subject: each for each in await PostgresCheckup(local, "x").examine([])}
            assert found["encryption"].text == "none, and nothing leaves this machine"


async def test_the_first_host_is_down() -> None:
    await exercise(url=several("postgresql://127.0.0.1:1", empty_postgres()))


async def test_hosts_that_say_nothing_are_passed_over() -> None:
    """Each may take a few seconds, and only once: the host that let us in is asked first from then on."""
    with silent() as one:
        url = several("postgresql://127.0.0.1:1", one, empty_postgres())
        began = time.monotonic()
        async with PostgresEngine.from_url(url) as engine, asyncio.timeout(20):
            assert time.monotonic() - began > HOST_SECONDS - 1
            began = time.monotonic()
            await asyncio.gather(*(engine.sweep() for _ in range(4)))
            async with engine.subscribe("talk"):
                pass
            assert time.monotonic() - began < HOST_SECONDS


def test_the_good_host_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, good, first in (
        ("postgresql://a,b:2,c/d", ("c", "5432"), ("c,a,b", "5432,5432,2")),
        ("postgresql://u:p@a:1,b:2/d", ("b", "2"), ("b,a", "2,1")),
        ("postgresql:///d?host=a,b&port=7", ("b", "7"), ("b,a", "7,7")),
    ):
        settings = parse_url(url)
        monkeypatch.setattr(connecting, "_good", {settings.url: good})
        found = connection_parameters(settings)
        assert (found["host"], found["port"]) == first
    monkeypatch.setattr(connecting, "_good", {"postgresql://a/d": ("a", "5432")})
    assert not {"host", "port", "target_session_attrs"} & set(connection_parameters(parse_url("postgresql://a/d")))


async def test_a_standby_is_passed_over_and_takes_over() -> None:
    """It is named first, and not used. When the primary is killed and it is promoted, the app goes on there, and nothing is lost."""
    with own_postgres() as (primary, url), tempfile.TemporaryDirectory(prefix="mognet-standby-") as folder:
        standby, copy = postgres_standby(Path(folder), url)
        standby.start()
        try:
            with pytest.raises((ConnectionError, ImproperlyConfigured), match="standby"):
                async with PostgresEngine.from_url(copy):
                    pass
            query(url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            query(url, "SELECT pg_reload_conf()")
            await until(lambda: query(url, "SELECT sync_state FROM pg_stat_replication") == [("sync",)])
            async with working(url=several(copy, url)) as app:
                going = Going(app)
                await going.on()
                await asyncio.to_thread(primary.kill)
                assert query(copy, "SELECT pg_promote()") == [(True,)]
                await going.on()
                await going.end()
        finally:
            standby.kill()
